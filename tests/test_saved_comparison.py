"""A comparison is read back from its record, and says which rows are stale."""

import json
import shutil
from dataclasses import replace

import pytest

from whit.comparison import compare
from whit.errors import DataError
from whit.rows import Row
from whit.saved_comparison import load_comparison, save_comparison

SPECS = ["own.py:shrink(rate=0.02)", "own.py:shrink(rate=0.03) @ epochs=1"]


@pytest.fixture
def saved(own_folder):
    table = compare(SPECS, "own.py:task", 2, budget="stored_bytes <= 1 MB", tune=True)
    table = replace(table, tolerance=0.02)
    save_comparison(table)
    return own_folder, table


def content(row: Row) -> dict:
    return {k: v for k, v in row.as_dict().items() if k != "reused"}


def test_it_comes_back_whole(saved):
    _, table = saved
    again = load_comparison("whit-runs", "own.py:task")
    assert [content(row) for row in again.rows] == [content(row) for row in table.rows]
    assert again.recommend() == (
        again.rows[table.rows.index(table.recommend()[0])],
        table.recommend()[1],
    )
    assert (str(again.budget), again.tolerance) == (str(table.budget), 0.02)
    assert (again.test_reads, again.tuned) == (table.test_reads, table.tuned)
    assert not any(row.stale for row in again.rows)


def test_rows_are_stale_when_the_code_has_changed(saved):
    folder, table = saved
    with (folder / "own.py").open("a") as file:
        file.write("\n# changed\n")
    again = load_comparison("whit-runs", "own.py:task")
    assert all(row.stale for row in again.rows)
    (folder / "own.py").unlink()
    again = load_comparison("whit-runs", "own.py:task")
    assert all(row.stale for row in again.rows)
    assert [row.means for row in again.rows] == [row.means for row in table.rows]


def test_a_moved_store_is_read(saved):
    folder, table = saved
    (folder / "whit-runs").rename(folder / "moved")
    again = load_comparison("moved", "own.py:task")
    assert [row.means for row in again.rows] == [row.means for row in table.rows]
    assert again.test_reads == table.test_reads


def test_a_lost_run_is_said(saved):
    _, table = saved
    shutil.rmtree(table.rows[1].runs[0].planned.folder)
    again = load_comparison("whit-runs", "own.py:task")
    assert "gone or damaged" in again.rows[1].failed
    shutil.rmtree(table.rows[0].runs[0].planned.folder)
    with pytest.raises(DataError, match="runs of the control"):
        load_comparison("whit-runs", "own.py:task")


def test_a_missing_or_damaged_record(saved):
    folder, _ = saved
    with pytest.raises(DataError, match="no comparison of 'digits'"):
        load_comparison("whit-runs", "digits")
    record = folder / "whit-runs" / "own.py_task" / "comparison.json"
    for text in (
        "",
        "{",
        "[]",
        json.dumps({"tuned": {}}),
        json.dumps({"tuned": {}, "rows": [], "task": "x"}),
    ):
        record.write_text(text)
        with pytest.raises(DataError):
            load_comparison("whit-runs", "own.py:task")
