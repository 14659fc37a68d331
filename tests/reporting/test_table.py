import io
from dataclasses import replace

import pytest
from rich.console import Console

from whit.comparison import Comparison, compare
from whit.reporting.layout import macs_text, name_lines, ratio_text, short, significant
from whit.reporting.table import card_view, comparison_view


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1710, "1.71k"),
        (33400, "33.4k"),
        (2.5e9, "2.5G"),
        (5.59e12, "5.59T"),
    ],
)
def test_counts_are_short(count, text):
    assert short(count) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "x1.00"),
        (1.3, "x1.30"),
        (0.5, "1/2.0"),
        (0.7, "1/1.43"),
        (0.25, "1/4.0"),
        (1.02, "x1.02"),
        (0.04, "1/25"),
    ],
)
def test_ratios_read_as_people_say_them(ratio, text):
    assert ratio_text(ratio) == text


def test_macs_are_one_width_a_line():
    assert macs_text({"w1a1": 25200, "w32a32": 64}) == "25.2k w1a1\n64 w32a32"
    assert macs_text({}) == "0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1853.4, "1,853"), (18.6, "18.60"), (1.604, "1.604"), (2_345_678.0, "2,346,000"), (0.0, "0")],
)
def test_numbers_have_four_digits_and_no_exponent(value, text):
    assert significant(value) == text


@pytest.mark.parametrize("width", [18, 24, 40])
def test_names_are_broken_between_words_only(width):
    label = "binarized_network + one_cycle_pruning(sparsity=0.5, x='a') @ epochs=3 [1]"
    lines = name_lines(label, width)
    assert all(len(line) <= width for line in lines)
    assert "".join(line.strip() for line in lines).replace(" ", "") == label.replace(" ", "")
    whole = " ".join(lines)
    assert "binarized_network" in whole
    assert "one_cycle_pruning(" in whole
    assert "sparsity=0.5" in whole


def test_a_word_longer_than_the_column_is_kept_whole_in_pieces():
    lines = name_lines("a" * 50, 20)
    assert "".join(line.strip() for line in lines) == "a" * 50


def shown(table: Comparison, width: int, control: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(comparison_view(table, control))
    return console.file.getvalue()


@pytest.fixture
def table(own_folder):
    return compare(["own.py:shrink(rate=0.02)"], "own.py:task", seeds=2)


@pytest.mark.parametrize("width", [60, 80, 112, 200])
def test_the_table_fits_and_says_what_is_left_out(table, width):
    text = shown(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert ("Left out" in text) == (width < 112)
    assert "…" not in text
    assert "()" not in text.split("Mean")[0]
    assert "points" in text.split("Mean")[0]
    words = " ".join(text.split())
    assert "Energy assumes hardware that skips multiplications by zero" in words or width < 112


def test_equal_reasons_share_one_footnote(table):
    first, second = table.rows
    columns = ("stored_bytes", "macs", "energy_nj", "latency_ms")
    means = {name: value for name, value in second.means.items() if name not in columns}
    reasons = dict.fromkeys(columns, "cannot pack module 'x'")
    for run in second.runs:
        run.columns["macs_by_width"] = None
    text = shown(replace(table, rows=(first, replace(second, means=means, reasons=reasons))), 112)
    assert text.count("cannot pack module 'x'") == 1
    assert text.count("? [1]") == 4


def test_a_card_says_a_reason_once():
    columns = {
        "macs": None,
        "stored_bytes": None,
        "reasons": {"macs": "why", "stored_bytes": "why"},
    }
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(card_view(columns))
    text = console.file.getvalue()
    assert text.count("unknown, see [1]") == 2
    assert text.count("why") == 1


def test_without_a_control_no_ratio_is_explained(table):
    text = shown(table, 112, control=False)
    assert "ratio" not in text
    assert "verdict" not in text
    assert "Recommended" not in text
