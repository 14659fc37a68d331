"""One run in its folder: two processes, a foreign folder, a damaged one."""

import json
import shutil
import subprocess
import sys
import threading

import pytest

from whit.comparison import compare
from whit.errors import WhitError
from whit.runs import alone_in, plan_runs, read_finished
from whit.spec_strings import parse_entry, task


def test_a_folder_of_another_run_is_refused(own_folder):
    table = compare([], "own.py:task", 2)
    first, second = (run.planned for run in table.rows[0].runs)
    shutil.rmtree(second.folder)
    shutil.copytree(first.folder, second.folder)
    with pytest.raises(WhitError, match=r"holds the result of another run .* with seed 0"):
        compare([], "own.py:task", 2)


def test_damaged_files_are_run_again(own_folder):
    (run,) = compare([], "own.py:task", 1).rows[0].runs
    plan = run.planned
    for name, content in (
        ("result.json", b"{"),
        ("result.json", json.dumps({"scorecard": {}}).encode()),
        ("test_correct.npy", b"\x93NUMPY"),
        ("model.whit", (plan.folder / "model.whit").read_bytes()[:400]),
        ("model.safetensors", (plan.folder / "model.safetensors").read_bytes()[:100]),
    ):
        (plan.folder / name).write_bytes(content)
        assert read_finished(plan) is None
        (again,) = compare([], "own.py:task", 1).rows[0].runs
        assert not again.reused
        assert again.columns["valid_accuracy"] == run.columns["valid_accuracy"]


def test_the_second_process_waits_and_takes_the_result(own_folder):
    entry = parse_entry("plain()")
    (plan,) = plan_runs([entry], task("own.py:task"), [0], {}, "whit-runs")
    waiting = threading.Event()
    code = (
        "from whit.comparison import compare\n"
        "def show(step):\n    print(step.state, flush=True)\n"
        "compare([], 'own.py:task', 1, progress=show)\n"
    )
    with alone_in(plan.folder, waiting.set):
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=own_folder
        )
        assert other.stdout.readline().strip() == "waiting"
        # What this process leaves in the folder is what the other one takes.
        (done,) = compare([], "own.py:task", 1, out="elsewhere").rows[0].runs
        for file in done.planned.folder.iterdir():
            if file.name != "lock":
                shutil.copy(file, plan.folder / file.name)
    assert other.stdout.read().split() == ["reused"]
    assert other.wait() == 0
    other.stdout.close()
    assert not waiting.is_set()


def test_a_lock_ends_with_its_process(own_folder, tmp_path):
    folder = tmp_path / "run"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom whit.runs import alone_in\n"
        "with alone_in(Path(sys.argv[1]), lambda: None):\n    os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)])
    with alone_in(folder, lambda: pytest.fail("waited for a dead process")) as waited:
        assert waited is False
