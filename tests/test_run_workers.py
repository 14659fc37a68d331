"""Worker processes: specs in, folders out, and the same results as in one process."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from whit.comparison import compare
from whit.errors import WhitError
from whit.spec_strings import task

TIMES = (
    "train_seconds",
    "train_peak_bytes",
    "latency_ms",
    "latency_iqr_ms",
    "torch_latency_ms",
)
NOISY = '''

class _Noise(whit.Hook):
    def __init__(self, model, plan):
        self.model, self.plan = model, plan

    @torch.no_grad()
    def after_step(self):
        print("a user's own print", flush=True)
        for weight in self.model.parameters():
            weight.add_(0.001 * torch.randn(weight.shape, generator=self.plan.generator))


@technique
def noisy() -> whit.Technique:
    """Noise, and talk."""
    return whit.Technique(hooks=(_Noise,))


@technique
def stopping() -> whit.Technique:
    """End the process in the middle of training."""
    def train(run):
        import os
        os._exit(7)
    return whit.Technique(train=train)


@technique
def bad() -> whit.Technique:
    """Fail in training."""
    def train(run):
        raise ValueError("wrong here")
    return whit.Technique(train=train)
'''


@pytest.fixture
def noisy_folder(own_folder):
    with (own_folder / "own.py").open("a") as file:
        file.write(NOISY)
    return own_folder


def test_two_jobs_equal_one(noisy_folder):
    # A second file beside the task's: its worker may or may not have loaded it before.
    (noisy_folder / "other.py").write_text((noisy_folder / "own.py").read_text())
    specs = ["other.py:shrink(rate=0.02)", "own.py:noisy()", "own.py:bad()"]
    one = compare(specs, "own.py:task", 2, out="one")
    steps = []
    two = compare(specs, "own.py:task", 2, out="two", jobs=2, progress=steps.append)
    assert [row.label for row in one.rows] == [row.label for row in two.rows]
    for left, right in zip(one.rows, two.rows, strict=True):
        assert left.failed == right.failed
        for a, b in zip(left.runs, right.runs, strict=True):
            assert a.planned.identity == b.planned.identity
            tensors = [load_file(run.planned.folder / "model.safetensors") for run in (a, b)]
            assert tensors[0].keys() == tensors[1].keys()
            assert all(np.array_equal(tensors[0][k], tensors[1][k]) for k in tensors[0])
            columns = [{k: v for k, v in r.columns.items() if k not in TIMES} for r in (a, b)]
            assert columns[0] == columns[1]
    assert "ValueError: wrong here" in two.rows[3].failed
    states = [step.state for step in steps]
    assert states.count("finished") == 6
    assert states.count("training") == 12
    assert max(step.ended for step in steps) in (7, 8)  # the bad one may be tried with both seeds

    again = compare(specs, "own.py:task", 2, out="one", jobs=2)
    assert all(run.reused for row in again.rows for run in row.runs)


def test_a_worker_that_ends_is_said(noisy_folder):
    compare([], "own.py:task", 1)
    with pytest.raises(WhitError, match=r"'own.py:stopping\(\)' with seed 0 ended with code 7"):
        compare(["own.py:stopping()"], "own.py:task", 1, jobs=2)
    store = noisy_folder / "whit-runs" / "results.jsonl"
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    assert [row["spec"] for row in rows] == ["plain()"]


def test_a_task_without_a_name_cannot_be_sent(own_folder):
    nameless = replace(task("own.py:task"), name="my own")
    with pytest.raises(WhitError, match="Worker processes make the task again from its name"):
        compare([], nameless, 1, jobs=2)


def test_a_worker_ends_with_its_parent(noisy_folder):
    """The parent is killed; its worker must not go on as an orphan."""
    code = (
        "from whit.comparison import compare\n"
        "compare([], 'own.py:task', [0, 1], settings={'epochs': 100_000}, jobs=2,"
        " progress=lambda step: print(step.state, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while parent.stdout.readline().strip() != "training":
        assert parent.poll() is None
    workers = _children(parent.pid)
    assert workers
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_start_costs_no_package_on_the_path(noisy_folder):
    """A worker that is given nothing ends at once."""
    done = subprocess.run(
        [sys.executable, "-m", "whit.run_workers"],
        input="",
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
