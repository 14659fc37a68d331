"""The tables of docs/performance.md, from results/*.jsonl; written by docs/results_tables.py."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "performance.md"
MISSING = "Not measured yet.\n"


def filled(text: str) -> str:
    """Return the page with its tables rewritten."""
    for mark, table in (("gates", gates_table()), ("everyday", everyday_table())):
        place = re.compile(rf"(<!-- {mark}:start -->\n).*?(<!-- {mark}:end -->)", re.DOTALL)
        text = place.sub(lambda found, table=table: found[1] + table + found[2], text)
    return text


def gates_table() -> str:
    """Return one line for each goal: measured, gate, moonshot, verdict."""
    rows = read("kernel_gates.jsonl")
    if not rows:
        return MISSING
    lines = [
        about(rows[0], "kernel_gates.jsonl", rows[0]["command"]),
        "",
        "| goal | measured | of minima | gate | moonshot | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        measured = "-" if row["measured"] is None else f"{number(row['measured'])}{row['unit']}"
        minimum = row["about"].get("minimum_ratio")
        sign = "≤" if row["lower"] else "≥"
        gate = f"{sign} {row['gate']:g}{row['unit']}" if row["gate"] else "-"
        moonshot = "-" if row["moonshot"] is None else f"{sign} {row['moonshot']:g}{row['unit']}"
        verdict = row["verdict"] if row["gate"] or row["measured"] is None else "-"
        lines.append(
            f"| {row['name']} | {measured} | {f'{number(minimum)}x' if minimum else '-'} "
            f"| {gate} | {moonshot} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def everyday_table() -> str:
    """Return one line for each network, form and batch size, with the best peer of each kind."""
    rows = read("everyday_networks.jsonl")
    if not rows:
        return MISSING
    lines = [
        about(rows[0], "everyday_networks.jsonl", "python benchmarks/everyday_networks.py"),
        "",
        "| network | form | test accuracy | file bytes | batch | whit ms | to torch "
        "| best fp32 peer | best int8 peer | gate |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = row["candidates"][0]["median_ms"]
        peers = [
            f"{short(row[f'best_{kind}'])} {number(row[f'best_{kind}_ratio'])}x"
            if row[f"best_{kind}"]
            else "-"
            for kind in ("float32", "int8")
        ]
        lines.append(
            f"| `{row['task']}` | {row['form']} | {row['test_accuracy']:.4f} "
            f"| {row['stored_bytes']:,} | {row['batch']} | {number(own)} "
            f"| {number(row['torch_ratio'])}x | {peers[0]} | {peers[1]} | {row['gate']} |"
        )
    return "\n".join(lines) + f"\n\nTrained with seed {rows[0]['seed']}: {trained(rows)}.\n"


def trained(rows: list[dict]) -> str:
    """Return how the networks were trained, those alike together."""
    groups: dict[tuple[str, int, int], list[str]] = {}
    for row in rows:
        forms = groups.setdefault((row["task"], row["epochs"], row["train_samples"]), [])
        if row["form"] not in forms:
            forms.append(row["form"])
    return "; ".join(
        f"`{task}` {', '.join(forms)} {epochs} epochs of {samples:,} samples"
        for (task, epochs, samples), forms in groups.items()
    )


def about(row: dict, name: str, command: str) -> str:
    """Return what was run where."""
    machine = row["machine"]
    versions = ", ".join(f"{package} {found}" for package, found in machine["versions"].items())
    level = row.get("level") or row.get("isa")
    commit = (row.get("commit") or "unknown")[:10]
    return (
        f"`{command}`, whit commit {commit}, {machine['cpu']}, kernels {level}, {versions}; "
        f"`results/{name}`."
    )


def read(name: str) -> list[dict]:
    """Return the lines of a file of results, none where there is no file."""
    path = RESULTS / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def number(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def short(name: str) -> str:
    """Return the name of a peer as it fits into a table."""
    return name.replace("ONNX Runtime", "ORT").replace(" dynamic", " dyn.")
