import math

import pytest

from whit.reporting.page_axes import axis_of


@pytest.mark.parametrize(
    ("values", "log"),
    [((100, 900), False), ((100, 1001), True), ((0, 1001), False), ((-5, 1001), False)],
)
def test_logarithms_where_values_span_more_than_a_decade(values, log):
    assert axis_of(values, wide=True).log == log
    assert not axis_of(values).log


@pytest.mark.parametrize(
    "values", [(0.95, 0.98), (5.0,), (0.0,), (-2.0, 3.0), (5152.0, 135560.0), (1e-3, 1e9), (0, 1e9)]
)
@pytest.mark.parametrize("wide", [False, True])
def test_the_axis_holds_all_values_and_has_a_few_ticks(values, wide):
    axis = axis_of(values, wide=wide)
    assert all(axis.has(value) for value in values)
    assert all(axis.has(tick) or math.isclose(axis.place(tick), axis.low) for tick in axis.ticks)
    assert 1 <= len(axis.ticks) <= 8
    assert len(set(axis.texts)) == len(axis.texts)


def test_epochs_are_whole():
    axis = axis_of([1, 2, 3], whole=True)
    assert axis.ticks == (1, 2, 3)
    assert axis.texts == ("1", "2", "3")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.951, 0.989), {"0.96", "0.97", "0.98"}),
        ((5200, 130_000), {"10k", "20k", "50k", "100k"}),
        ((-3.0, 2.0), {"-3", "-2", "0", "2"}),
        ((0.018, 0.5), {"0.02", "0.05", "0.1"}),
    ],
)
def test_ticks_read_as_people_write_numbers(values, texts):
    assert texts <= set(axis_of(values, wide=True).texts)
