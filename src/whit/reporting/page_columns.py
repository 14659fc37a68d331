"""The columns that the report page shows: unit, direction, source and text of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from whit.reporting.layout import significant

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

HIGHER, LOWER = "higher is better", "lower is better"
MEASURED, MODELLED, COUNTED = "measured", "modelled", "counted"


@dataclass(frozen=True)
class Column:
    """One column of the scorecard as the page shows it.

    Attributes:
        name: in the scorecard.
        head: words above the column.
        unit: in words, "" for none.
        better: HIGHER or LOWER.
        source: MEASURED, MODELLED or COUNTED.
        meaning: what the number is, in one or two sentences.
        written: number -> text.
    """

    name: str
    head: str
    unit: str
    better: str
    source: str
    meaning: str
    written: Callable[[float], str]


def quality(row: Row, split: str) -> str:
    """Return the name of the quality column of a split, "valid" or "test"."""
    return f"{split}_{row.metric}"


def whole(value: float) -> str:
    """Return a number without decimals."""
    return f"{value:,.0f}"


def four(value: float) -> str:
    """Return a number with four decimals."""
    return f"{value:.4f}"


COSTS = (
    Column(
        "stored_bytes",
        "file",
        "bytes",
        LOWER,
        MEASURED,
        "The packed .whit file on disk: weights, structure and everything else in it.",
        whole,
    ),
    Column(
        "macs",
        "MACs",
        "MACs per inference",
        LOWER,
        COUNTED,
        "Multiply-accumulates of the packed file. Below the total, by weight and activation bits: "
        "w1a32 has 1-bit weights and 32-bit activations. A 1-bit one costs far less than a 32-bit "
        "one. Behind a route, the mean over the validation inputs, and the share of them in each "
        "situation of the route, the familiar one first.",
        whole,
    ),
    Column(
        "latency_ms",
        "latency",
        "ms per inference",
        LOWER,
        MEASURED,
        "Median time of the packed file with one sample at 1 thread, alone on this machine after "
        "all trainings; small below it the same model in torch (float32), timed in the same turns. "
        "It belongs to this machine and this version of the program.",
        lambda value: significant(value, 3),
    ),
    Column(
        "energy_nj",
        "energy",
        "nJ per inference",
        LOWER,
        MODELLED,
        "From a published 45 nm table, compute and memory; not the joules of this machine. It "
        "ranks designs, and assumes hardware that skips multiplications by zero in ternary layers.",
        significant,
    ),
)
TRAINING = Column(
    "train_seconds",
    "training",
    "s per seed",
    LOWER,
    MEASURED,
    "Wall time of all training of one seed, on this machine.",
    lambda value: f"{value:,.1f}",
)


def quality_columns(comparison: Comparison) -> tuple[Column, Column]:
    """Return the validation and the test column of a comparison."""
    metric = comparison.control.metric
    unit = "share of samples, 0 to 1" if metric == "accuracy" else metric
    several = "Mean ± sample standard deviation over seeds. " if seeds_of(comparison) > 1 else ""
    valid = f"{several}On samples that were not trained on. Techniques are chosen by this column."
    times = read_times(comparison)
    test = (
        f"{several}On samples that nothing was chosen by. The test split of this task was read "
        f"{times} so far in '{comparison.out}': the more often, the less it says. Do not choose by "
        "it."
    )
    return (
        Column(f"valid_{metric}", f"validation {metric}", unit, HIGHER, MEASURED, valid, four),
        Column(f"test_{metric}", f"test {metric}", unit, HIGHER, MEASURED, test, four),
    )


def seeds_of(comparison: Comparison) -> int:
    """Return how many seeds the control was trained with."""
    return len(comparison.control.runs)


def read_times(comparison: Comparison) -> str:
    """Return how often the test split was read, in words."""
    reads = comparison.test_reads
    return "once" if reads == 1 else f"{reads:,} times"


def chosen_word(comparison: Comparison) -> str:
    """Return what the chosen row is: recommended, or the nearest where none keeps the budget."""
    row = comparison.recommend()[0]
    broken = comparison.budget.violations({**row.means, "reasons": row.reasons})
    return "nearest to the budget" if broken else "recommended"


def known(row: Row, column: str) -> float | None:
    """Return a row's mean of a column, None when it is unknown or no finite number."""
    value = None if row.failed else row.means.get(column)
    return value if value is not None and isfinite(value) else None


def why_unknown(row: Row, column: str) -> str:
    """Return in words why a row's column is unknown."""
    if row.failed:
        return row.failed
    if column in row.means:
        return "it is not a finite number"
    return row.reasons.get(column, "it was not measured")


def spread_of(row: Row, column: str) -> float:
    """Return the sample deviation over seeds; 0 with one seed or when it is unknown."""
    value = row.spreads.get(column, 0.0)
    return value if isfinite(value) else 0.0


def with_spread(row: Row, column: Column) -> str:
    """Return a mean with its spread over seeds, as "0.9683 ± 0.0103", or "unknown"."""
    value = known(row, column.name)
    if value is None:
        return "unknown"
    if column.name not in row.spreads:
        return column.written(value)
    return f"{column.written(value)} ± {spread_text(row, column)}"


def spread_text(row: Row, column: Column) -> str:
    """Return the sample deviation over seeds as text."""
    spread = spread_of(row, column.name)
    return four(spread) if column.better == HIGHER else significant(spread, 2)
