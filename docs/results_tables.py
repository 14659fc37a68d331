"""Write the measured tables into the cards and the README, from the stored results.

    .venv/bin/python docs/results_tables.py          rewrite
    .venv/bin/python docs/results_tables.py --check  say whether they are up to date (for a test)

A table stands between `<!-- results:start -->` and `<!-- results:end -->`, that of packed networks
in docs/packing.md between `agreement` marks, those of docs/performance.md between their own. Nobody
types a number into it.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import low_bit_tables
import numpy as np
import performance_tables

from whit.measure.verdict import seed_interval

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
METHODS = ROOT / "src" / "whit" / "methods"
PLACE = re.compile(r"(<!-- results:start -->\n).*?(<!-- results:end -->)", re.DOTALL)
AGREEMENT = re.compile(r"(<!-- agreement:start -->\n).*?(<!-- agreement:end -->)", re.DOTALL)
COMPARISONS = {
    "digits.jsonl": "whit compare digits --seed 100 --seeds 5",
    "mnist_techniques.jsonl": (
        'whit compare mnist "binarized_network()" "one_cycle_pruning(sparsity=0.95)" '
        "--seed 100 --seeds 3"
    ),
    "mnist_half_width.jsonl": (
        'whit compare "mnist(width=0.5)" "distillation(teacher_width=1.0)" --seed 100 --seeds 3'
    ),
    "fashion_mnist.jsonl": "whit run fashion_mnist --seed 100 --seeds 3",
    "cifar10.jsonl": "whit run cifar10 --seed 100",
    "mnist_binary_wide.jsonl": (
        "whit compare \"mnist(model='mlp4_wide')\" \"binarized_network(first='real', last='real', "
        "gradient='approxsign')\" --epochs 16 --seed 100 --seeds 3"
    ),
    "mnist_binary_conv4.jsonl": (
        "whit compare \"mnist(model='conv4')\" \"binarized_network(first='real', last='real')\" "
        "--epochs 16 --seed 100 --seeds 3"
    ),
    "mnist_ternary.jsonl": (
        'whit compare "mnist(model=\'mlp4\')" "ternary_network(candidates=0)" --seed 100 --seeds 3'
    ),
    "cifar10_binary.jsonl": (
        "whit compare \"cifar10(model='conv4', width=2)\" "
        "\"binarized_network(first='real', last='real')\" --epochs 6 --seed 100 --seeds 1"
    ),
}
# The README shows these; a card shows every comparison of its method.
IN_README = (
    "digits.jsonl",
    "mnist_techniques.jsonl",
    "mnist_half_width.jsonl",
    "fashion_mnist.jsonl",
    "cifar10.jsonl",
)


def main() -> int:
    """Rewrite or check all pages; return 1 where a page is out of date."""
    check = "--check" in sys.argv[1:]
    stale = []
    for page, method in pages():
        old = page.read_text()
        new = PLACE.sub(lambda found, m=method: found[1] + tables(m) + found[2], old)
        if new != old:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new)
    others = {
        ROOT / "docs" / "packing.md": lambda old: AGREEMENT.sub(
            lambda found: found[1] + agreement_table() + found[2], old
        ),
        performance_tables.PAGE: performance_tables.filled,
    }
    for page, rewritten in others.items():
        old = page.read_text()
        new = rewritten(old)
        if new != old:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new)
    print(f"{'out of date' if check else 'rewritten'}: {', '.join(stale) or 'nothing'}")
    return int(check and bool(stale))


def pages() -> Iterator[tuple[Path, str | None]]:
    """Yield (page, method): a card shows its own method's rows and the control, the README all."""
    yield ROOT / "README.md", None
    for card in sorted(METHODS.rglob("*.md")):
        yield card, card.stem


def tables(method: str | None) -> str:
    """Return all tables for a page as Markdown."""
    text = ""
    for name, command in COMPARISONS.items():
        path = RESULTS / name
        if path.exists() and (method is not None or name in IN_README):
            text += table(path, command, method) + "\n"
    text += low_bit_tables.tables(method)
    return text.strip() + "\n" if text.strip() else ""


def agreement_table() -> str:
    """Return the table of packed networks that were run in four forms: one seed, and how many."""
    rows = [json.loads(line) for line in (RESULTS / "packed_agreement.jsonl").open()]
    lines = [
        "| task | technique | file bytes | test inputs | same class: torch | C | ONNX QDQ "
        "| ONNX exact | C bit for bit | C: code + constants, arena |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["seed"] != min(other["seed"] for other in rows):
            continue
        sections = row["c_sections"]
        names = ("torch", "c", "onnx", "onnx_exact")
        shown = [f"{row[f'same_class_{name}']:,}" for name in names]
        torch_text = f"({shown[0]})" if row["int8"] else shown[0]
        what = f"`{shortened(row['spec'])}`" + (", 8 bits" if row["int8"] else "")
        exact = "yes" if row["c_bit_identical"] else "no" if row["integer"] else "float"
        lines.append(
            f"| `{row['task']}` | {what} | {row['stored_bytes']:,} | {row['samples']:,} "
            f"| {torch_text} | {shown[1]} | {shown[2]} | {shown[3]} | {exact} "
            f"| {sections['text']:,} + {sections['rodata']:,}, {row['c_arena_bytes']:,} |"
        )
    first = rows[0]["provenance"]
    agreeing = sum(
        {row["same_class_c"], row["same_class_onnx_exact"]} == {row["samples"]}
        and (row["int8"] or row["same_class_torch"] == row["samples"])
        and (row["c_bit_identical"] or not row["integer"])
        for row in rows
    )
    about = (
        f"{agreeing} of {len(rows)} networks give the same classes in torch (float ones and those "
        "trained with few bits), NumPy, C and exact ONNX; integers the same bits in C. Digits have "
        f"five seeds, of which one is shown. whit commit {first['commit'][:10]}, {first['cpu']}; "
        "`results/packed_agreement.jsonl`."
    )
    return "\n".join([about, "", *lines]) + "\n"


def table(path: Path, command: str, method: str | None) -> str:
    """Return one comparison's table: mean and sample deviation over seeds."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if '"scorecard"' in line]
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["spec"], []).append(row)
    specs = [s for s in groups if method is None or s == "plain()" or f"{method}(" in s]
    if not specs or (method not in (None, "plain") and len(specs) == 1):
        return ""
    seeds = sorted({row["seed"] for row in rows})
    first = rows[0]
    control = groups["plain()"]
    metric = first["scorecard"]["metric"]
    lines = [
        f"`{command}`, {seed_text(seeds)}, whit commit "
        f"{first['provenance']['commit'][:10]}, {first['provenance']['cpu']}, "
        f"{first['provenance']['threads']} thread(s); rows in `results/{path.name}`.",
        "",
        f"| technique | valid {metric} | test {metric} | test, less the control's | file bytes "
        "| of control | energy nJ (modelled) | training s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = mean(control, "stored_bytes")
    for spec in specs:
        group = groups[spec]
        lines.append(
            f"| `{shortened(spec)}` | {spread(group, f'valid_{metric}')} "
            f"| {spread(group, f'test_{metric}')} | {difference(group, control, metric)} "
            f"| {mean(group, 'stored_bytes'):,.0f} "
            f"| 1/{base / mean(group, 'stored_bytes'):.1f} | {mean(group, 'energy_nj'):,.1f} "
            f"| {mean(group, 'train_seconds'):.1f} |"
        )
    return "\n".join(lines) + "\n"


def difference(group: list[dict], control: list[dict], metric: str) -> str:
    """Return the 95 % interval over seeds of the difference to the control, in points."""
    if group is control or len(group) < 2:
        return "-"
    plain = {row["seed"]: row["scorecard"][f"test_{metric}"] for row in control}
    gaps = [row["scorecard"][f"test_{metric}"] - plain[row["seed"]] for row in group]
    low, high = seed_interval(np.asarray(gaps))
    return f"{100 * low:+.1f} to {100 * high:+.1f} points"


def seed_text(seeds: list[int]) -> str:
    """Return "seed 100" or "seeds 100 to 104"."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def mean(group: list[dict], column: str) -> float:
    """Return the mean of a column over seeds."""
    return fmean(row["scorecard"][column] for row in group)


def spread(group: list[dict], column: str) -> str:
    """Return mean and sample deviation of a column over seeds, as text."""
    values = [row["scorecard"][column] for row in group]
    return f"{fmean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def shortened(spec: str) -> str:
    """Return a spec without the options that have their default."""
    import whit

    return whit.spec(spec).brief


if __name__ == "__main__":
    sys.exit(main())
