"""The head of the report page: the verdict in one sentence, the file to take, what was compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whit.measure import energy
from whit.measure.verdict import RULE
from whit.reporting.layout import ratio_text
from whit.reporting.page_columns import (
    COSTS,
    TRAINING,
    Column,
    chosen_word,
    known,
    quality_columns,
    read_times,
    seeds_of,
    why_unknown,
    with_spread,
)
from whit.reporting.page_marks import Mark, mark_of
from whit.reporting.page_markup import Content, Markup, caption, joined, scrolling, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whit.comparison import Comparison
    from whit.rows import Row

_FILE, _MACS, _LATENCY, _ENERGY = COSTS


def verdict_header(comparison: Comparison, marks: Sequence[Mark]) -> Markup:
    """Return the sentence of recommendation and the file, with the numbers that matter."""
    row, sentence = comparison.recommend()
    tiles = [
        _file_tile(row, comparison.control),
        *(_quality_tile(row, comparison.control, c) for c in quality_columns(comparison)),
        _inference_tile(row, comparison.control),
    ]
    return tag(
        "header",
        tag("h1", _stressed(sentence, row.label)),
        tag("div", *tiles, class_="tiles"),
        tag("p", *_setting(comparison, marks), class_="setting"),
    )


def _stressed(sentence: str, label: str) -> Markup:
    """Return the sentence with its beginning, up to the technique's name, in bold."""
    before, found, after = sentence.partition(label)
    if not found:
        return joined(sentence)
    return joined(tag("strong", before, tag("code", found)), after)


def _tile(head: str, value: Content, *below: Content, class_: str = "tile") -> Markup:
    lines = [tag("p", line, class_="below") for line in below if line]
    return tag("section", tag("h2", head), tag("p", value, class_="value"), *lines, class_=class_)


def _file_tile(row: Row, control: Row) -> Markup:
    path = row.best.packed_path
    if path is None:
        reason = why_unknown(row, _FILE.name).rstrip(".")
        return _tile("File to take", "none", f"There is no packed file: {reason}.")
    size = path.stat().st_size
    own = known(control, _FILE.name)
    beside = None
    if row is not control and own:
        beside = f"{ratio_text(size / own)} of the control's {own:,.0f}"
    name = tag("code", str(path), id="file-to-take", class_="path")
    return _tile(
        "File to take",
        f"{size:,} bytes",
        beside,
        joined(name, " ", copy_button("file-to-take", "the path of the file")),
        _which_seed(row),
        class_="tile wide",
    )


def _which_seed(row: Row) -> str | None:
    if len(row.runs) == 1:
        return None
    return f"Seed {row.best.planned.seed}, the best of {len(row.runs)} on validation."


def _quality_tile(row: Row, control: Row, column: Column) -> Markup:
    beside = None if row is control else f"control: {with_spread(control, column)}"
    verdict = None
    if column.name.startswith("test_") and row.verdict is not None:
        points = row.metric == "accuracy"
        verdict = f"{row.verdict.word} {row.verdict.interval_text(points)}"
    return _tile(_capital(column.head), with_spread(row, column), beside, verdict)


def _inference_tile(row: Row, control: Row) -> Markup:
    values = {column: known(row, column.name) for column in (_LATENCY, _ENERGY)}
    latency, power = values[_LATENCY], values[_ENERGY]
    if latency is None and power is None:
        return _tile("One inference", "unknown", why_unknown(row, _ENERGY.name))
    value = "latency unknown" if latency is None else f"{_LATENCY.written(latency)} ms"
    below = "energy unknown" if power is None else f"{_ENERGY.written(power)} nJ, modelled"
    ratios = [
        f"{column.head} {ratio_text(row.relative[column.name])}"
        for column in values
        if row is not control and values[column] is not None and column.name in row.relative
    ]
    beside = f"of the control: {', '.join(ratios)}" if ratios else None
    return _tile("One inference", value, below, beside)


def _setting(comparison: Comparison, marks: Sequence[Mark]) -> list[Content]:
    control = comparison.control
    seeds = ", ".join(str(run.planned.seed) for run in control.runs)
    rows = len(comparison.rows) - 1
    chosen = mark_of(comparison.recommend()[0], marks)
    techniques = {0: "no technique", 1: "1 technique"}.get(rows, f"{rows} techniques")
    return [
        "Task ",
        tag("code", comparison.task),
        f", {techniques} and the control ",
        tag("code", control.label),
        f", {'seed' if seeds_of(comparison) == 1 else 'seeds'} {seeds}. ",
        "The control is the same model without any technique, trained by the same code with "
        "the same seeds. ",
        f"The rule of the recommendation: the smallest file that loses at most "
        f"{comparison.tolerance:g} of the control's validation quality",
        f" and keeps the budget ({comparison.budget})" if comparison.budget else None,
        ". The test split has no say; it was read ",
        f"{read_times(comparison)} so far. ",
        f"In the tables and charts the one {chosen_word(comparison)} is number {chosen.number}.",
    ]


def copy_button(source: str, what: str) -> Markup:
    """Return a button that copies the text of the element with this id.

    Args:
        source: id of the element.
        what: is copied, in words, for screen readers.
    """
    return tag("button", "Copy", type="button", class_="copy", data_copy=source, aria_label=what)


def how_to_read(comparison: Comparison) -> Markup:
    """Return what each column means, the rule of the verdict and the model of energy."""
    head = [tag("th", name, scope="col") for name in ("column", "unit", "better", "source")]
    rows = [
        tag(
            "tr",
            tag("th", column.head, scope="row"),
            tag("td", column.unit),
            tag("td", column.better.removesuffix(" is better")),
            tag("td", column.source),
            tag("td", column.meaning, class_="prose"),
        )
        for column in (*quality_columns(comparison), *COSTS, TRAINING)
    ]
    table = tag(
        "table",
        caption("Columns of the tables and axes of the charts"),
        tag("thead", tag("tr", *head, tag("th", "what it is", scope="col"))),
        tag("tbody", *rows),
    )
    return tag(
        "details",
        tag(
            "summary", "How to read this: units, directions, what is measured and what is modelled"
        ),
        scrolling(table, "What the columns mean"),
        tag("p", RULE),
        tag(
            "p",
            "'Within noise' is undecided, not 'as good as': the interval under it says how large a "
            "difference may still be. A ratio such as 1/24 is of the control's number; x1.02 is a "
            "little more than the control. 'unknown' has its reason in a note, and is never 0.",
        ),
        tag("p", _energy_model()),
        class_="how",
    )


def _energy_model() -> str:
    levels = ", ".join(
        f"{cost:.3g} pJ per bit up to {size // 1024:,} KiB"
        for size, cost in energy.MEMORY_LEVELS_PJ_PER_BIT
    )
    return (
        "Energy model, 45 nm (Horowitz, ISSCC 2014): one float32 addition "
        f"{energy.FLOAT32_ADD_PJ:g} pJ, multiplication {energy.FLOAT32_MULTIPLY_PJ:g} pJ; integer "
        f"addition of b bits {energy.INTEGER_ADD_PJ_PER_BIT:g} b pJ, multiplication "
        f"{energy.INTEGER_MULTIPLY_PJ_PER_BIT2:.4g} b² + {energy.INTEGER_MULTIPLY_PJ_PER_BIT:.4g} "
        f"b pJ; one-bit product {energy.XNOR_PJ:g} pJ, our own assumption. Memory: {levels}, "
        f"beyond that {energy.DRAM_PJ_PER_BIT:.3g}. Each weight is read once per inference, each "
        "activation written once and read once."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
