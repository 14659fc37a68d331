"""The tables of the low-bit cards that do not come from `whit compare`: results/*.jsonl as text.

Written by docs/results_tables.py behind the comparisons of the same card.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median, stdev

RESULTS = Path(__file__).parent.parent / "results"
Rows = list[dict]
STARTS = {
    "random": "random ternary values",
    "float": "the float network of as many seconds, rounded",
    "straight_through": "a straight-through one of as many seconds; all images, not shifted",
}


def tables(method: str | None) -> str:
    """Return the further tables of a card, an empty text for a card without any."""
    parts = [make(rows) for name, make in _TABLES.get(method or "", ()) if (rows := read(name))]
    return "\n".join(parts)


def read(name: str) -> Rows:
    """Return the rows of a file of results; none where it does not exist yet."""
    path = RESULTS / name
    return [json.loads(line) for line in path.open()] if path.exists() else []


def throughput(rows: Rows) -> str:
    """Return how fast candidates are scored, in multiples of one forward call each."""
    heads = (
        "network",
        "scores, neighbouring",
        "scores, all",
        "training loop",
        "1-optimal after, s",
        "certifying pass, s",
    )
    body = []
    for row in rows:
        ratio, certificate = row["ratio"], row["certificate"]
        body.append(
            (
                row["network"],
                f"{ratio['binary']:,.0f} x",
                f"{ratio['binary_all']:,.0f} x",
                f"{ratio['loop']:,.0f} x",
                f"{certificate['seconds']:.0f}",
                f"{certificate['pass_seconds']:.2f} ({certificate['moves']:,} moves)",
            )
        )
    worst = max(row["worst_error"]["float64"]["binary"] for row in rows)
    said = (
        "Candidates scored in a second, in multiples of one forward call for each (5,000 images, "
        "medians of interleaved turns): exact scores of the moves of the first layer to a "
        "neighbouring value on black and white pixels, of all its moves, and the whole training "
        "loop on grey pixels (beside forward calls on black and white ones). Goals: at least "
        "20,000 and 5,000. "
        f"Largest difference of a score to a fresh forward call: {worst:.0e} of the loss. "
        f"{about(rows, 'conntra_throughput.jsonl')}"
    )
    return table(said, heads, body)


def on_mnist(rows: Rows) -> str:
    """Return errors, bytes and time of coordinate descent beside back-propagation."""
    heads = (
        "data",
        "network",
        "start",
        "seconds each",
        "test accuracy",
        "float control, test",
        "valid (control)",
        "training accuracy (control)",
        "file bytes",
        "of float32",
        "of float64",
    )
    body = []
    for group in groups(rows, "data", "hidden", "start"):
        first = group[0]
        body.append(
            (
                first["data"],
                f"784-{first['hidden']}-10",
                STARTS[first["start"]],
                f"{first['seconds']:.0f}",
                spread([row["test"]["after"] for row in group]),
                spread([row["test"]["control"] for row in group]),
                beside(group, "valid_accuracy"),
                beside(group, "train_accuracy"),
                f"{fmean(row['after']['stored_bytes'] for row in group):,.0f}",
                f"1/{fmean(row['after']['float32_ratio'] for row in group):.1f}",
                f"1/{fmean(row['after']['float64_ratio'] for row in group):.1f}",
            )
        )
    rises = [row["losses_rise"] for row in rows if row["losses_rise"] is not None]
    text = (
        f"On all images the training loss rose in {sum(rises)} of {len(rises)} runs. "
        if rises
        else ""
    )
    said = (
        "Ternary networks by coordinate descent, beside the same architecture with real weights by "
        "back-propagation (Adam) for the same processor seconds of one thread, both with images "
        f"shifted by up to one pixel where not said otherwise. {text}"
        f"{about(rows, 'conntra_mnist*.jsonl')}"
    )
    return table(said, heads, body)


def small(rows: Rows) -> str:
    """Return Iris, digits and the oracle network."""
    heads = (
        "task",
        "seeds",
        "valid accuracy: median",
        "lowest",
        "control's median",
        "training accuracy",
        "training s (control)",
    )
    body, oracle = [], ""
    for group in groups(rows, "what"):
        if group[0]["what"] == "oracle":
            starts = [row["starts"] for row in group]
            oracle = (
                f" The 2-2-1 network reached the lowest loss of all {group[0]['settings']:,} "
                f"settings in {sum(row['reached'] for row in group)} of {len(group)} runs, after "
                f"{median(starts):.0f} random starts (median; at most {max(starts)})."
            )
            continue
        valid = [row["valid_accuracy"] for row in group]
        control = [row["control"]["valid_accuracy"] for row in group]
        body.append(
            (
                f"`{group[0]['task']}`",
                str(len(group)),
                f"{median(valid):.4f}",
                f"{min(valid):.4f}",
                f"{median(control):.4f}",
                f"{median(row['train_accuracy'] for row in group):.4f}",
                f"{fmean(row['train_seconds'] for row in group):.1f} "
                f"({fmean(row['control']['train_seconds'] for row in group):.1f})",
            )
        )
    said = (
        "Small networks from random ternary values by the exact engine, beside the same "
        f"architecture with real weights.{oracle} {about(rows, 'conntra_small.jsonl')}"
    )
    return table(said, heads, body)


def bit_layers(rows: Rows) -> str:
    """Return accuracy and time by the number of bit planes."""
    heads = ("planes", "test accuracy", "ms a sample")
    body = []
    for group in groups(rows, "planes"):
        body.append(
            (
                str(group[0]["planes"]),
                spread([row["accuracy"] for row in group]),
                f"{fmean(row['latency_ms'] for row in group):.4f}",
            )
        )
    same = sum(row["identity"] for row in rows)
    real = spread([row["real_accuracy"] for row in next(groups(rows, "planes"))])
    said = (
        f"`{rows[0]['task']}`, one file of {fmean(row['stored_bytes'] for row in rows):,.0f} bytes "
        "used with more or fewer bit planes, without retraining; the real network has "
        f"{real} and {fmean(row['real_bytes'] for row in rows):,.0f} bytes. All planes together "
        f"gave the dense product of the whole numbers bit for bit in {same} of {len(rows)} rows. "
        f"{about(rows, 'bit_layers.jsonl')}"
    )
    return table(said, heads, body)


def ensembles(rows: Rows) -> str:
    """Return accuracy by the number of sampled networks, beside single networks."""
    heads = ("network", "members", "combined", "test accuracy", "bit operations")
    body = []
    for group in groups(rows, "network", "members", "output"):
        first = group[0]
        body.append(
            (
                first["network"],
                str(first.get("members") or 1),
                first.get("output") or "-",
                spread([row["mean"] for row in group]),
                f"{first['bit_operations']:.3g}",
            )
        )
    said = (
        f"`{rows[0]['task']}`: mean over draws of the members, then over seeds, with the deviation "
        f"over seeds. {about(rows, 'bitwise_ensembles.jsonl')}"
    )
    return table(said, heads, body)


def teachers(rows: Rows) -> str:
    """Return ternary networks beside their teachers."""
    heads = ("seed", "teacher, valid accuracy", "student", "difference, points")
    body = [
        (
            str(row["seed"]),
            f"{row['teacher_valid']:.4f}",
            f"{row['student_valid']:.4f}",
            f"{100 * (row['student_valid'] - row['teacher_valid']):+.2f}",
        )
        for row in rows
    ]
    said = (
        "The same networks beside the teachers that they imitate, on validation (the test split is "
        f"read for finished networks alone). {about(rows, 'mnist_ternary_teachers.jsonl')}"
    )
    return table(said, heads, body)


def groups(rows: Rows, *names: str) -> Iterator[Rows]:
    """Yield rows that agree in these columns, in the order of their first."""
    found: dict[tuple[object, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name) for name in names), []).append(row)
    yield from found.values()


def spread(values: list[float]) -> str:
    """Return mean and sample deviation as text."""
    more = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{more}"


def beside(group: Rows, column: str) -> str:
    """Return a mean of coordinate descent, and of the control in brackets."""
    own = fmean(row["after"][column] for row in group)
    return f"{own:.4f} ({fmean(row['control'][column] for row in group):.4f})"


def about(rows: Rows, name: str) -> str:
    """Return seeds, commit, processor and file."""
    seeds = sorted({row["seed"] for row in rows if "seed" in row})
    origin = rows[0].get("provenance") or rows[0]
    which = f"Seeds {seeds[0]} to {seeds[-1]}, " if len(seeds) > 1 else ""
    which = f"Seed {seeds[0]}, " if len(seeds) == 1 else which
    return f"{which}whit commit {origin['commit'][:10]}, {origin['cpu']}; rows in `results/{name}`."


def table(said: str, heads: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    """Return a sentence and a table as Markdown."""
    lines = [said, "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(row)} |" for row in body]
    return "\n".join(lines) + "\n"


_TABLES: dict[str, tuple[tuple[str, Callable[[Rows], str]], ...]] = {
    "conntra": (
        ("conntra_mnist.jsonl", lambda rows: on_mnist(rows + read("conntra_mnist_wide.jsonl"))),
        ("conntra_small.jsonl", small),
        ("conntra_throughput.jsonl", throughput),
    ),
    "ternary_network": (("mnist_ternary_teachers.jsonl", teachers),),
    "precision_batching": (("bit_layers.jsonl", bit_layers),),
    "stochastic_bitwise_ensemble": (("bitwise_ensembles.jsonl", ensembles),),
}
