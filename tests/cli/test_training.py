import json

import numpy as np
import pytest

from whit.runtime import load


def test_run_prints_a_card_and_its_folder(whit, own_folder):
    result = whit("run", "own.py:task", "own.py:shrink(rate=0.02)", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert "stored_bytes" in result.stdout
    assert "seed 0 saved: whit-runs" in result.stdout
    assert "[1/1] own.py:shrink(rate=0.02) seed 0: started" in result.stderr
    again = whit("run", "own.py:task", "own.py:shrink(rate=0.02)", "--epochs", 1)
    assert "seed 0 reused" in again.stdout


def test_run_as_json_holds_settings_and_seeds(whit, own_folder):
    words = ["--epochs", 1, "--learning-rate", 0.01, "--batch-size", 16, "--optimizer", "sgd"]
    result = whit("run", "own.py:task", *words, "--seeds", 2, "--seed", 7, "--json")
    found = json.loads(result.stdout)
    assert found["seeds"] == [7, 8]
    settings = found["runs"][0]["settings"]
    assert (settings["epochs"], settings["batch_size"], settings["optimizer"]) == (1, 16, "sgd")


def test_run_says_which_limits_are_broken(whit, own_folder):
    result = whit("run", "own.py:task", "--epochs", 1, "--budget", "stored_bytes <= 1 B")
    assert result.exit_code == 0
    assert "stored_bytes <= 1 is broken" in result.stdout


def test_model_and_width_reach_the_task(whit, own_folder):
    result = whit("run", "own.py:sized", "--width", 0.5, "--json")
    found = json.loads(result.stdout)
    assert found["runs"][0]["task"] == "own.py:sized(width=0.5)"
    assert found["means"]["params"] == 6 * 8 + 8 + 8 * 2 + 2


def test_compare_saves_what_predict_can_use(whit, finished):
    program = load(finished / "task.whit")
    inputs = np.load(finished / "task-inputs.npy")
    assert inputs.shape == (8, 6)
    assert program(inputs).shape == (8, 2)
    assert program.labels == ("low", "high")
    assert program.info["task"] == "own.py:task"


def test_compare_as_json(whit, finished):
    found = json.loads(whit("compare", "own.py:task", "plain()", "--seeds", 1, "--json").stdout)
    assert found["recommended"] == "plain()"
    assert [row["reused"] for row in found["rows"]] == [1]
    assert found["files"] == ["task.whit", "task-inputs.npy"]


def test_save_to_another_folder(whit, finished):
    result = whit("compare", "own.py:task", "plain()", "--seeds", 1, "--save-to", "deep/er")
    assert result.exit_code == 0
    assert (finished / "deep" / "er" / "task.whit").exists()


def test_an_interrupt_ends_with_130_and_one_line(whit, own_folder, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("whit.comparison.run_entries", interrupted)
    result = whit("run", "own.py:task")
    assert result.exit_code == 130
    assert "Finished runs are kept" in result.stderr


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_table_of_a_run_has_no_verdict(whit, own_folder, seeds):
    result = whit("run", "own.py:task", "--epochs", 1, "--seeds", seeds)
    assert "Recommended" not in result.stdout
    assert "Verdict" not in result.stdout


def test_a_replaced_file_is_named_and_a_copy_is_kept(whit, finished):
    copy = finished / "whit-runs" / "own.py_task" / "recommended.whit"
    assert copy.read_bytes() == (finished / "task.whit").read_bytes()
    size = copy.stat().st_size
    again = whit("compare", "own.py:task", "plain()", "--seeds", 1)
    assert "replaces" not in again.stdout
    words = ["compare", "own.py:task", "plain()", "--seeds", 1, "--seed", 1]
    result = whit(*words)
    assert f"This replaces task.whit (plain(), {size:,} bytes)." in " ".join(result.stdout.split())
    (finished / "task.whit").write_bytes(b"mine")
    found = json.loads(whit(*words, "--json").stdout)
    assert found["replaced"] == ["task.whit (no .whit file that can be read, 4 bytes)"]


FAILING = """

class _Bad(whit.Hook):
    def __init__(self, model, plan):
        raise ValueError("wrong here")


@technique
def bad() -> whit.Technique:
    return whit.Technique(hooks=(_Bad,))
"""


def test_an_own_technique_that_fails_ends_with_2_unless_others_work(whit, own_folder):
    with (own_folder / "own.py").open("a") as file:
        file.write(FAILING)
    some = whit("compare", "own.py:task", "own.py:bad()", "own.py:shrink()", "--seeds", 1)
    assert some.exit_code == 0, some.stderr
    assert "not possible" in some.stdout
    assert "ValueError: wrong here" in some.stdout
    none = whit("compare", "own.py:task", "own.py:bad()", "--seeds", 1)
    assert none.exit_code == 2
    assert "No technique but the control could be carried out" in none.stderr
    assert "Recommended: plain()" in none.stdout
    alone = whit("run", "own.py:task", "own.py:bad()")
    assert alone.exit_code == 2
    assert "ValueError: wrong here (line" in alone.stderr
    assert "of 'own.py', in __init__)" in alone.stderr
    assert len(alone.stderr.split("whit: ")[1].strip().splitlines()) == 1


def test_the_tolerance_reaches_the_recommendation(whit, own_folder):
    words = ["compare", "own.py:task", "one_cycle_pruning(sparsity=0.9)", "--seeds", 1]
    loose = json.loads(whit(*words, "--tolerance", 1, "--json").stdout)
    assert loose["recommended"].startswith("one_cycle_pruning")
    assert "at most 1 below" in loose["recommendation"]
