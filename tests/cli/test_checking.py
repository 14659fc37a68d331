import json

import pytest
import typer
from typer.testing import CliRunner

from whit.cli.checking import check


@pytest.fixture
def run(own_folder):
    """Call the command alone, in a folder with a user's file `own.py`."""
    app = typer.Typer()
    app.command("check")(check)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_an_own_task_with_two_techniques(run):
    result = run("own.py:task", "binarized_network", "own.py:shrink(rate=0.02)")
    assert result.exit_code == 0, result.stderr
    assert "own.py:task: before any training" in result.stdout
    assert "128 train, 64 valid, 64 test samples" in result.stdout
    assert "weight: BinaryWeight" in result.stdout
    assert "own.py:shrink(rate=0.02)" in result.stdout
    assert not result.stderr


def test_json_with_options_of_the_task(run):
    result = run("own.py:sized", "plain()", "--width", 0.5, "--json")
    found = json.loads(result.stdout)
    assert found["task"] == "own.py:sized(width=0.5)"
    assert found["model"]["params"] == 6 * 8 + 8 + 8 * 2 + 2
    assert [row["label"] for row in found["rows"]] == ["plain()"]
    assert found["rows"][0]["estimate"]["stored_bytes"] > found["model"]["float32_bytes"]


def test_the_techniques_of_compare_by_default(run):
    from whit.comparison import DEFAULT

    found = json.loads(run("toy_classification", "--json").stdout)
    assert [row["label"] for row in found["rows"]] == ["plain()", *DEFAULT]


def test_only_refusals_end_with_code_2_after_the_text(run):
    result = run("toy_regression", "distillation()")
    assert result.exit_code == 2
    assert "refused: distillation needs one set of class scores" in " ".join(result.stdout.split())
    assert result.stderr.startswith("whit: No technique but the control can be carried out.")
    assert run("toy_regression", "distillation()", "binarized_network()").exit_code == 0


@pytest.mark.parametrize("words", [["no_task"], ["own.py"], ["own.py:task", "binarised()"]])
def test_bad_input_is_one_paragraph(run, words):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("whit: ")
    assert result.stdout == ""
