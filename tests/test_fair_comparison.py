"""Settings of one entry, second controls, tuned learning rates: what makes a comparison fair."""

import json

import pytest

from whit.comparison import compare
from whit.errors import SettingsError
from whit.spec_strings import parse_entry
from whit.tuning import Trial, Tuned, choose, tuning_entries, with_rate

SHRINK = "own.py:shrink(rate=0.02)"


def test_a_row_with_its_own_settings_is_judged_against_the_control_with_these(own_folder):
    table = compare([f"{SHRINK} @ epochs=3"], "own.py:task", seeds=2, second_controls=True)
    plain, shrunk, second = table.rows
    assert second.label == "plain() @ epochs=3"
    assert (shrunk.control, second.control) == ("plain() @ epochs=3", "plain()")
    (note,) = shrunk.notes
    assert note.startswith("second control: judged against 'plain() @ epochs=3'")
    assert shrunk.relative["train_macs"] == pytest.approx(1)
    assert "unequal compute: other settings" in second.notes[0]
    differences = [
        a.columns["test_accuracy"] - b.columns["test_accuracy"]
        for a, b in zip(shrunk.runs, second.runs, strict=True)
    ]
    assert shrunk.verdict.difference == pytest.approx(sum(differences) / 2)
    assert plain.control == ""


def test_without_a_second_control_it_is_marked(own_folder):
    table = compare([f"{SHRINK} @ epochs=3"], "own.py:task", seeds=1)
    (note,) = table.rows[1].notes
    assert note.startswith("unequal compute: other settings than the control; 1.50 times")
    assert table.rows[1].control == "plain()"


@pytest.fixture
def tuned(own_folder):
    table = compare([SHRINK], "own.py:task", seeds=2, tune=True)
    return own_folder, table


def test_every_entry_gets_the_same_grid_and_the_best_on_validation(tuned):
    _, table = tuned
    assert len(table.tuned) == 2
    for row in table.rows:
        found = table.tuned[row.spec]
        rates = sorted(trial.learning_rate for trial in found.trials)
        assert rates == [0.000667, 0.002, 0.006]
        assert max(t.valid for t in found.trials) == next(
            t.valid for t in found.trials if t.learning_rate == found.learning_rate
        )
        assert all(run.planned.settings.learning_rate == found.learning_rate for run in row.runs)
        assert any(note.startswith("tuned: learning_rate=") for note in row.notes)
        assert not any("unequal" in note for note in row.notes)


def test_trials_are_charged_and_the_chosen_one_is_not_trained_twice(tuned):
    folder, table = tuned
    for row in table.rows:
        alone = sum(run.columns["train_macs"] for run in row.runs) / len(row.runs)
        assert row.means["train_macs"] == pytest.approx(3 * alone)
        chosen = row.runs[0].planned.folder
        assert json.loads((chosen / "trial.json").read_text())["valid"] == pytest.approx(
            row.runs[0].columns["valid_accuracy"]
        )
    assert not list(folder.rglob("checkpoint-*.pt"))


def test_trials_do_not_read_the_test_split(tuned):
    folder, table = tuned
    assert table.test_reads == 4  # two entries, two seeds
    trials = list(folder.rglob("trial.json"))
    assert len(trials) == 6
    assert sum((trial.parent / "result.json").exists() for trial in trials) == 2


def test_a_repeated_tuning_trains_nothing(tuned):
    states = []
    again = compare(
        [SHRINK], "own.py:task", 2, tune=True, progress=lambda step: states.append(step.state)
    )
    assert set(states) == {"reused"}
    assert [row.means["train_macs"] for row in again.rows] == [
        row.means["train_macs"] for row in tuned[1].rows
    ]


def test_an_entry_with_its_own_rate_keeps_it():
    entry = parse_entry("plain() @ learning_rate=0.1")
    assert tuning_entries(entry, 0.02) == [entry]
    assert [
        e.settings_changes["learning_rate"] for e in tuning_entries(parse_entry("plain()"), 0.3)
    ] == [
        0.3,
        0.1,
        0.9,
    ]


def test_the_text_of_a_tuned_entry_parses_back():
    entry = with_rate(parse_entry("one_cycle_pruning(sparsity=0.5) @ epochs=3"), 0.01)
    again = parse_entry(entry.text)
    assert again.settings_changes == {"epochs": 3, "learning_rate": 0.01}
    assert again.text == entry.text


class _Plan:
    def __init__(self, rate):
        self.settings = type("S", (), {"learning_rate": rate})


def test_ties_go_to_the_first_rate_and_failures_are_said():
    plans = [_Plan(0.1), _Plan(0.03), _Plan(0.3)]
    found = choose(plans, [Trial(0.1, 0.9, 10, 1.0), Trial(0.03, 0.9, 20, 2.0), "diverged"])
    assert found == Tuned(0.1, found.trials, {0.3: "diverged"})
    assert (found.train_macs, found.train_seconds) == (20, 2.0)
    assert "0.3 failed (diverged)" in found.note()
    assert choose(plans, ["a", "b", "c"]) is None
    nan = choose(plans, [Trial(0.1, float("nan"), 1, 1), Trial(0.03, 0.1, 1, 1), "x"])
    assert nan.learning_rate == 0.03


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, 100_000])
def test_a_bad_number_of_jobs(own_folder, jobs):
    with pytest.raises(SettingsError, match="jobs was given"):
        compare([], "own.py:task", 1, jobs=jobs)
    assert not (own_folder / "whit-runs").exists()
