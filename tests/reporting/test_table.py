import pytest

from whit.reporting.table import macs_text, ratio_text, short


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1710, "1.71k"), (33400, "33.4k"), (2.5e9, "2.5G")]
)
def test_counts_are_short(count, text):
    assert short(count) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "x1.00"), (1.3, "x1.30"), (0.5, "x0.50"), (0.25, "1/4.0"), (0.04, "1/25")],
)
def test_ratios_read_as_people_say_them(ratio, text):
    assert ratio_text(ratio) == text


def test_macs_are_one_width_a_line():
    assert macs_text({"w1a1": 25200, "w32a32": 64}) == "25.2k w1a1\n64 w32a32"
    assert macs_text({}) == "0"
