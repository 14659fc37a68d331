import io
import re

import pytest
from rich.console import Console

from whit.checking import Check, Checked, check
from whit.core.settings import Settings
from whit.reporting.check_view import check_view

SPECS = ["binarized_network()", "one_cycle_pruning(sparsity=0.9)", "distillation(weight=0.5)"]


@pytest.fixture(scope="module")
def found():
    return check(SPECS, "digits")


def lines_of(found: Check, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(check_view(found), highlight=False)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_keeps_its_width_and_its_numbers(found, width):
    lines = lines_of(found, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for row in found.rows:
        assert f"{row.estimate.stored_bytes:,}" in text
    assert "…" not in text


def test_model_data_and_a_line_for_each_kind_of_change(found):
    text = "\n".join(line.rstrip() for line in lines_of(found, 120))
    assert "34,058 parameters, 136,232 bytes as float32" in text
    assert "[1, 8, 8] => [10], as the task expects" in text
    assert "1,077 train, 360 valid, 360 test samples of uint8, values 0 to 16" in text
    assert re.search(r"relu1, relu2, relu3 +ReLU +ReLU -> Sign", text)
    assert re.search(
        r"linear1, linear2, linear3, head +Linear +weight: BinaryWeight; .* 1 to 1.5 bit", text
    )
    assert re.search(r"linear2, linear3 +Linear +weight: Mask; 9\d( to 9\d)? % zeros", text)
    assert re.search(r"norm1, norm2, norm3 +BatchNorm1d +this kind is not covered", text)
    assert re.search(r"packs: [\d,]+ bytes.* operators: flatten, linear x4, threshold x3", text)
    assert "no layer is changed: only the training, or values, differ" in text
    assert "estimates" in text
    assert "The test split was not read" in text


def test_printing_a_check_gives_the_same_text(found):
    assert str(found).startswith("digits: before any training")


def test_refusals_and_names_in_brackets_are_printed_as_they_are(found):
    refused = Checked("own()", "own()", refused="It takes [bold]names[/bold] of 'x' only.")
    other = Check(
        "[red]", found.model, found.data, Settings(), (found.rows[0], refused), 4, 32, 1.0
    )
    text = "\n".join(lines_of(other, 100))
    assert "refused: It takes [bold]names[/bold] of 'x' only." in text
    assert "[red]: before any training" in text


def test_the_reason_of_the_control_is_not_said_twice(found):
    reason = "cannot pack module 'lstm', operator lstm.input: not on the list"
    rows = [
        Checked("plain()", "plain()", cannot_pack=reason),
        Checked("own()", "own()", cannot_pack=reason),
        Checked("own2()", "own2()", cannot_pack="cannot pack the model: another reason"),
    ]
    other = Check("t", found.model, found.data, Settings(), tuple(rows), 4, 32, 1.0)
    text = "\n".join(lines_of(other, 120))
    assert text.count("lstm.input") == 1
    assert "for the control's reason" in text
    assert "another reason" in text
    assert "no file" in text
