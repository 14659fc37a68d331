import json
import multiprocessing
import subprocess
import sys

import pytest

from whit.errors import WhitError
from whit.measure.store import Store


def test_rows_come_back_in_order(tmp_path):
    store = Store(tmp_path / "new" / "results.jsonl")
    assert store.rows() == []
    for number in range(3):
        store.append({"number": number})
    assert [row["number"] for row in store.rows()] == [0, 1, 2]


def test_a_truncated_last_line_is_skipped_and_ended(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    store.append({"number": 0})
    with store.path.open("a") as file:
        file.write('{"number": 1, "tex')
    assert [row["number"] for row in store.rows()] == [0]
    store.append({"number": 2})
    assert [row["number"] for row in store.rows()] == [0, 2]


def test_numbers_that_json_lacks_become_null(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    store.append({"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads(store.path.read_text()) == {"a": None, "b": [None, 1.5]}


def test_test_reads_are_counted_by_task(tmp_path):
    store = Store(tmp_path / "results.jsonl")
    for task, identity in (("digits", "a"), ("iris", "b"), ("digits", "c"), ("digits", "c")):
        store.append({"task": task, "identity": identity, "provenance": {"time": "noon"}})
    assert store.test_reads() == {"digits": 2, "iris": 1}, "the last is the same run, timed again"


def test_an_unwritable_folder_is_said_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WhitError, match="cannot be written"):
        Store(tmp_path / "file" / "results.jsonl").append({})


def _append_many(path, writer, count=50):
    for number in range(count):
        Store(path).append({"writer": writer, "number": number, "filler": "x" * 5000})


def test_several_writers_never_mix_lines(tmp_path):
    path = tmp_path / "results.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = Store(path).rows()
    assert sorted((row["writer"], row["number"]) for row in rows) == [
        (w, n) for w in range(3) for n in range(50)
    ]
    assert len(path.read_text().splitlines()) == 150


def test_two_processes_that_append_200_times_lose_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(path, w, 200)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    rows = Store(path).rows()
    for writer in range(2):
        mine = [row["number"] for row in rows if row["writer"] == writer]
        assert mine == list(range(200)), "all there, each writer's in its order"
    assert len(rows) == 400


FULL_DISK = """
import resource, sys
from whit.errors import WhitError
from whit.measure.store import Store
store = Store(sys.argv[1])
store.append({"number": 1})
size = store.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
try:
    store.append({"number": 2, "filler": "x" * 100})
except WhitError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.path.stat().st_size == size
store.append({"number": 3})
"""


def test_a_full_disk_leaves_the_lines_as_they_were(tmp_path):
    """A limit of the file's size stands for the full disk: a part of the line is written."""
    path = tmp_path / "results.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert f"could not be added to '{path}' (File too large)" in ended.stdout
    assert "repeat the command" in ended.stdout
    assert [row["number"] for row in Store(path).rows()] == [1, 3]
    assert len(path.read_text().splitlines()) == 2


def test_a_device_that_is_always_full_is_said():
    with pytest.raises(WhitError, match="/dev/full.*No space left"):
        Store("/dev/full").append({"number": 1})
