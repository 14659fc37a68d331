import json
from dataclasses import replace

import pytest

from whit.comparison import DEFAULT, compare
from whit.core.budget import Budget
from whit.errors import SettingsError, SpecError, WhitError
from whit.rows import Row
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
    assert row["scorecard"]["torch_latency_ms"] > 0
    assert row["scorecard"]["latency_threads"] == 1
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


def test_runs_of_an_older_version_lack_only_what_is_new(table, monkeypatch):
    for row in table.rows:
        for run in row.runs:
            path = run.planned.folder / "result.json"
            stored = json.loads(path.read_text())
            del stored["scorecard"]["torch_latency_ms"]
            del stored["scorecard"]["reasons"]["torch_latency_ms"]
            path.write_text(json.dumps(stored))

    def lost(folder):
        raise RuntimeError("no model")

    monkeypatch.setattr("whit.run_queue.load_result", lost)
    again = compare(SPECS, "own.py:task", seeds=2)
    for row in again.rows:
        assert all(run.reused for run in row.runs)
        assert row.means["latency_ms"] > 0
        assert "torch_latency_ms" not in row.means
        assert "rebuilt in torch: RuntimeError: no model" in row.reasons["torch_latency_ms"]


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
    assert "plain " in text
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
    assert "nothing here is smaller by 5 % at this quality and keeps the budget" in sentence
    row, sentence = made_up.recommend(Budget("stored_bytes <= 50"))
    assert row is made_up.rows[2]
    assert "best validation" in sentence
    assert "0.8000 is 0.1500 below the control's 0.9500, more than the 0.01" in sentence
    row, _ = made_up.recommend(Budget("stored_bytes <= 5"))
    assert row is made_up.rows[2]  # the least beyond the limit
    row, sentence = made_up.recommend(Budget("stored_bytes <= 5"))
    assert "No technique keeps the budget" in sentence


def test_a_quality_that_is_no_number_is_never_recommended(made_up):
    control, small, tiny, _ = made_up.rows
    lost = fake(small)
    del lost.means["valid_accuracy"]
    lost.means["stored_bytes"] = 1
    table = replace(made_up, rows=(control, lost, tiny))
    row, sentence = table.recommend()
    assert row is control
    assert "no finite number" in sentence or "nothing here is smaller" in sentence
    assert lost.best in lost.runs


def test_the_distance_to_the_control_is_said(made_up):
    _, sentence = made_up.recommend()
    assert "0.9450 is 0.0050 below the control's 0.9500; at most 0.01 below" in sentence


def test_the_tolerance_decides(made_up):
    row, sentence = made_up.recommend(tolerance=0.2)
    assert row is made_up.rows[2]
    row, sentence = made_up.recommend(tolerance=0)
    assert row is made_up.rows[0]
    assert "no loss is allowed" in sentence
    assert replace(made_up, tolerance=0.2).recommend()[0] is made_up.rows[2]
    for wrong in (-0.1, 1.5, float("nan"), "1"):
        with pytest.raises(SettingsError, match="tolerance"):
            made_up.recommend(tolerance=wrong)


def test_a_file_hardly_smaller_is_no_reason_to_leave_the_control(made_up):
    near = fake(made_up.rows[1], valid_accuracy=0.95, stored_bytes=960)
    row, sentence = replace(made_up, rows=(made_up.rows[0], near)).recommend()
    assert row is made_up.rows[0]
    assert "nothing here is smaller by 5 % at this quality." in sentence


def test_the_control_alone_and_unpacked_rows_have_their_words(made_up):
    _, sentence = replace(made_up, rows=made_up.rows[:1]).recommend()
    assert "nothing to compare it with" in sentence
    unpacked = made_up.rows[3]
    row, sentence = replace(made_up, rows=(unpacked, unpacked)).recommend()
    assert row is unpacked
    assert "no packed file of it, nor of any other here: no operator for it." in sentence
    row, sentence = replace(made_up, rows=(unpacked, made_up.rows[2])).recommend()
    assert row is unpacked
    assert "lose more than 0.01" in sentence


REFUSING = """

class _Bad(whit.Hook):
    def __init__(self, model, plan):
        pass

    def after_epoch(self):
        return {}["missing"]


@technique
def bad() -> whit.Technique:
    return whit.Technique(hooks=(_Bad,))


def _refuse(run):
    from whit.errors import NotApplicable
    raise NotApplicable("there is nothing to do here")


@technique
def refusing() -> whit.Technique:
    return whit.Technique(train=_refuse)


def _unreadable():
    return {}["data"]


no_data = whit.Task("small", _unreadable, _build)
"""


@pytest.fixture
def refusing(own_folder):
    with (own_folder / "own.py").open("a") as file:
        file.write(REFUSING)
    return own_folder


def test_an_entry_that_refuses_is_a_row_and_the_others_go_on(refusing):
    states = []
    specs = ["own.py:refusing()", "own.py:bad()", "own.py:shrink()"]
    table = compare(specs, "own.py:task", seeds=2, progress=lambda step: states.append(step.state))
    assert states.count("failed") == 2
    assert [bool(row.failed) for row in table.rows] == [False, True, True, False]
    assert table.rows[1].failed == "there is nothing to do here"
    line = (refusing / "own.py").read_text().splitlines().index('        return {}["missing"]') + 1
    assert table.rows[2].failed == f"KeyError: 'missing' (line {line} of 'own.py', in after_epoch)"
    assert table.rows[3].verdict is not None
    assert [row["failed"] for row in table.as_dict()["rows"]][1] == "there is nothing to do here"
    json.dumps(table.as_dict())
    assert len((refusing / "whit-runs" / "results.jsonl").read_text().splitlines()) == 4
    text = str(table)
    assert text.count("not possible") == 2
    assert "there is nothing to do here" in text
    assert "not possible" in repr(table.rows[1])
    assert [row.label for row in table.pareto("valid_accuracy", "stored_bytes")]


def test_an_error_of_the_control_ends_everything(refusing):
    with pytest.raises(WhitError, match=r"cannot be loaded: KeyError: 'data' \(line \d+ of"):
        compare([], "own.py:no_data", seeds=1)


def test_an_error_in_our_own_code_is_not_hidden(refusing, monkeypatch):
    def wrong(*args, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("whit.runs.read_finished", wrong)
    with pytest.raises(ZeroDivisionError):
        compare(["own.py:shrink()"], "own.py:task", seeds=1)


def test_a_model_that_does_not_fit_its_data_is_said_in_words(own_folder):
    with (own_folder / "own.py").open("a") as file:
        file.write("\n\nmisfit = whit.Task('small', _load, lambda data: nn.Linear(7, 2))\n")
    with pytest.raises(WhitError, match="RuntimeError"):
        compare([], "own.py:misfit", seeds=1)


def test_reprs_are_short(table):
    assert len(repr(table)) < 300
    assert repr(table.rows[0]).startswith("Row('plain()', valid_accuracy=")
    assert repr(table.rows[0].runs[0]) == "Finished('plain()', seed=0, new)"


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
