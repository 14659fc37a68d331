import json
from dataclasses import replace

import pytest

from whit.comparison import DEFAULT, Row, compare
from whit.core.budget import Budget
from whit.errors import SettingsError, SpecError, WhitError
from whit.runs import folder_name, seed_list
from whit.spec_strings import spec

SPECS = ["own.py:shrink(rate=0.02)", "plain() @ epochs=3"]


@pytest.fixture
def table(own_folder):
    return compare(SPECS, "own.py:task", seeds=2)


def test_the_control_is_added_and_comes_first(table):
    assert [row.label for row in table.rows] == ["plain()", *SPECS]
    assert table.control.verdict is None
    assert all(row.verdict is not None for row in table.rows[1:])


def test_aggregates_are_mean_and_sample_deviation(table):
    row = table.rows[1]
    a, b = (run.columns["valid_accuracy"] for run in row.runs)
    assert row.means["valid_accuracy"] == pytest.approx((a + b) / 2)
    assert row.spreads["valid_accuracy"] == pytest.approx(abs(a - b) / 2**0.5)
    assert row.relative["stored_bytes"] == pytest.approx(
        row.means["stored_bytes"] / table.control.means["stored_bytes"]
    )


def test_unequal_compute_is_flagged(table):
    assert table.rows[1].notes == ()
    (note,) = table.rows[2].notes
    assert "unequal compute" in note
    assert "1.50 times" in note


def test_every_run_is_one_complete_line(table, own_folder):
    lines = (own_folder / "whit-runs" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 6
    row = json.loads(lines[0])
    assert {"task", "spec", "seed", "settings", "scorecard", "provenance", "identity"} <= set(row)
    assert row["scorecard"]["latency_ms"] > 0
    assert table.test_reads == 6


def test_finished_runs_are_reused_until_something_changes(table, own_folder):
    store = own_folder / "whit-runs" / "results.jsonl"
    again = compare(SPECS, "own.py:task", seeds=2)
    assert all(run.reused for row in again.rows for run in row.runs)
    assert [row.means["valid_accuracy"] for row in again.rows] == [
        row.means["valid_accuracy"] for row in table.rows
    ]
    assert len(store.read_text().splitlines()) == 6

    forced = compare(["plain()"], "own.py:task", seeds=[0], again=True)
    assert not forced.rows[0].runs[0].reused
    assert len(store.read_text().splitlines()) == 7

    source = (own_folder / "own.py").read_text()
    (own_folder / "own.py").write_text(source + "\n# changed\n")
    changed = compare(["plain()"], "own.py:task", seeds=[0])
    assert not changed.rows[0].runs[0].reused


def test_a_damaged_result_is_run_again(table):
    run = table.rows[0].runs[0]
    (run.planned.folder / "result.json").write_text("{")
    again = compare([], "own.py:task", seeds=2)
    assert [run.reused for run in again.rows[0].runs] == [False, True]


def test_an_interrupted_comparison_keeps_what_it_finished(own_folder):
    def interrupt(step):
        if step.run == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([], "own.py:task", seeds=2, progress=interrupt)
    assert len((own_folder / "whit-runs" / "results.jsonl").read_text().splitlines()) == 1
    states = []
    compare([], "own.py:task", seeds=2, progress=lambda step: states.append(step.state))
    assert states == ["reused", "started", "training", "training", "finished"]


def test_the_table_is_narrow_and_has_no_empty_cell(table):
    text = str(table)
    assert max(map(len, text.splitlines())) <= 112
    assert "plain()" in text
    assert "within noise" in text
    assert "Recommended" in text
    assert "95 %" in text


def fake(row: Row, **means) -> Row:
    return replace(row, means={**row.means, **means}, relative={}, reasons={})


@pytest.fixture
def made_up(table):
    """Control, a small good one, a tiny bad one, one without a file."""
    control = fake(table.rows[0], valid_accuracy=0.95, stored_bytes=1000, latency_ms=1.0)
    small = fake(table.rows[1], valid_accuracy=0.945, stored_bytes=100, latency_ms=2.0)
    tiny = fake(table.rows[2], valid_accuracy=0.80, stored_bytes=10, latency_ms=3.0)
    unpacked = fake(table.rows[2], valid_accuracy=0.99)
    for column in ("stored_bytes", "latency_ms"):
        del unpacked.means[column]
    unpacked = replace(unpacked, reasons={"stored_bytes": "no operator for it"})
    return replace(table, rows=(control, small, tiny, unpacked))


def test_the_front_has_no_beaten_and_no_unpacked_row(made_up):
    front = made_up.pareto("valid_accuracy", "stored_bytes")
    assert [row.means["stored_bytes"] for row in front] == [10, 100, 1000]
    assert [r.means["latency_ms"] for r in made_up.pareto("valid_accuracy", "latency_ms")] == [1.0]


@pytest.mark.parametrize(
    ("quality", "cost", "message"),
    [
        ("test_accuracy", "stored_bytes", "valid_accuracy"),
        ("valid_accuracy", "stored_byte", "stored_bytes"),
    ],
)
def test_the_front_is_drawn_on_validation_only(made_up, quality, cost, message):
    with pytest.raises(SpecError, match=message):
        made_up.pareto(quality, cost)


def test_the_smallest_good_file_is_recommended(made_up):
    row, sentence = made_up.recommend()
    assert row is made_up.rows[1]
    assert "smallest file" in sentence
    assert "0.01" in sentence


def test_a_budget_narrows_the_recommendation(made_up):
    row, sentence = made_up.recommend(Budget("latency_ms <= 1.5"))
    assert row is made_up.rows[0]
    row, sentence = made_up.recommend(Budget("stored_bytes <= 50"))
    assert row is made_up.rows[2]
    assert "best validation" in sentence
    row, sentence = made_up.recommend(Budget("stored_bytes <= 5"))
    assert "No technique keeps the budget" in sentence


def test_an_unpacked_row_says_why_in_the_table(made_up):
    text = str(made_up)
    assert "no operator for it" in " ".join(text.split())


@pytest.mark.parametrize("seeds", [0, -1, [], [-1], [1, 1], [0.5], "3", True, 1.5])
def test_bad_seeds_are_refused_before_anything_is_trained(own_folder, seeds):
    with pytest.raises(SettingsError):
        compare([], "own.py:task", seeds=seeds)
    assert not (own_folder / "whit-runs").exists()


def test_bad_input_is_found_before_anything_is_trained(own_folder):
    for changes in (
        {"specs": ["plan()"]},
        {"task": "own.py:tusk"},
        {"settings": {"epoch": 3}},
        {"budget": "stored_bytes"},
    ):
        with pytest.raises(WhitError):
            compare(**{"specs": [], "task": "own.py:task", **changes})
    assert not (own_folder / "whit-runs").exists()


def test_several_processes_are_refused(own_folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="one process"):
        compare([], "own.py:task")


def test_seed_list():
    assert seed_list(3) == [0, 1, 2]
    assert seed_list([5, 2]) == [5, 2]


def test_the_default_selection_parses():
    assert len(DEFAULT) == 5
    assert all(spec(text) for text in DEFAULT)


@pytest.mark.parametrize(
    ("task", "name"),
    [("digits", "digits"), ("a/b.py:task", "a_b.py_task"), ("m(x='y')", "m_x=_y"), ("..", "task")],
)
def test_folder_names(task, name):
    assert folder_name(task) == name
