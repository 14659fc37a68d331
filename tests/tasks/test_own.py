"""`own(model='my_file.py:Net', data='arrays.npz')`: nothing of whit to write."""

import subprocess
import sys

import numpy as np
import pytest

import whit
from whit.core.execution import identity_of
from whit.core.technique import Technique
from whit.errors import DataError, SpecError, TaskError, WhitError
from whit.measure.provenance import code_digest

NET = """
import torch
from torch import nn
from sizes import HIDDEN

class Net(nn.Module):
    def __init__(self, width=1.0):
        super().__init__()
        self.first = nn.Linear(4, int(HIDDEN * width))
        self.last = nn.Linear(int(HIDDEN * width), 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

model = Net()
"""
TEXT = "own(model='net.py:Net', data='arrays.npz')"


def points(count=60, seed=0):
    inputs = np.random.RandomState(seed).randn(count, 4).astype("float32")
    return inputs, np.where(inputs[:, 0] > 0, "up", "down")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "sizes.py").write_text("HIDDEN = 8\n")
    inputs, target = points()
    np.savez(tmp_path / "arrays.npz", inputs=inputs, target=target)
    yield tmp_path
    sys.modules.pop("sizes", None)


def test_the_name_parses_back(folder):
    task = whit.task(TEXT)
    assert task.name == TEXT and whit.task(task.name).name == TEXT
    data = task.checked_data()
    assert data.class_names == ("down", "up")
    assert [len(p) for p in (data.train, data.valid, data.test)] == [36, 12, 12]
    assert task.build_model(data, {"width": 0.5}).first.out_features == 4


def test_a_result_is_loaded_from_its_folder(folder):
    task = whit.task(TEXT)
    whit.execute(task, settings=task.settings.changed(epochs=1), out=folder / "run")
    loaded = whit.load_result(folder / "run")
    assert loaded.task == TEXT and loaded.model.first.out_features == 8


@pytest.mark.slow
def test_the_command_runs_from_a_clean_folder(folder):
    command = [sys.executable, "-m", "whit", "compare", TEXT, "plain()", "--seeds", "1"]
    done = subprocess.run([*command, "--epochs", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "plain" in done.stdout


def test_splits_may_be_given(folder):
    arrays = {}
    for seed, split in enumerate(("train", "valid", "test")):
        arrays[f"inputs_{split}"], arrays[f"target_{split}"] = points(20 + seed, seed)
    np.savez_compressed("arrays.npz", **arrays, class_names=["up", "down"])
    data = whit.task(TEXT).load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [20, 21, 22]
    assert data.class_names == ("up", "down")
    assert np.array_equal(data.valid.inputs[0].numpy(), arrays["inputs_valid"])


DIGEST = f"""
import whit
from whit.measure.provenance import code_digest
task = whit.task({TEXT!r})
print(code_digest(task.build), task.checked_data().checksum())
"""


def identity():
    task = whit.task(TEXT)
    checksum = task.checked_data().checksum()
    return identity_of(task, Technique(), task.settings, 0, whit.Device(), checksum)


def test_identity_sees_the_model_what_it_imports_and_the_arrays(folder):
    first, task = identity(), whit.task(TEXT)
    done = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True)
    expected = f"{code_digest(task.build)} {task.checked_data().checksum()}"
    assert done.stdout.strip() == expected, f"another process sees another run: {done.stderr}"
    (folder / "bystander.py").write_text("x = 1\n")
    assert identity() == first
    (folder / "net.py").write_text(NET.replace("torch.relu", "torch.tanh"))
    second = identity()
    assert second != first
    (folder / "sizes.py").write_text("HIDDEN = 9\n")
    third = identity()
    assert third not in (first, second)
    np.savez("arrays.npz", inputs=points(60, 3)[0], target=points(60, 3)[1])
    assert identity() not in (first, second, third)


def test_models_of_a_package(folder):
    (folder / "my_nets").mkdir()
    (folder / "my_nets" / "__init__.py").write_text("")
    (folder / "my_nets" / "wide.py").write_text(NET.replace("from sizes", "from .sizes"))
    (folder / "my_nets" / "sizes.py").write_text("HIDDEN = 6\n")
    task = whit.task("own(model='my_nets.wide:Net', data='arrays.npz')")
    assert task.build_model(task.load(), {}).first.out_features == 6


BAD = {
    "no colon": ("own(model='net.py', data='arrays.npz')", "expected 'my_file.py:Name'"),
    "no text": ("own(model=3, data='arrays.npz')", "given as 3"),
    "no name": ("own(model='net.py:Nett', data='arrays.npz')", "Did you mean 'Net'"),
    "no file": ("own(model='nett.py:Net', data='arrays.npz')", "no file 'nett.py'"),
    "instance": ("own(model='net.py:model', data='arrays.npz')", "where a factory is expected"),
    "no arrays": ("own(model='net.py:Net', data='none.npz')", "no file 'none.npz'"),
    "data is no text": ("own(model='net.py:Net', data=1)", "given as 1"),
    "missing": ("own(model='net.py:Net')", "missing a required .*'data'"),
    "no npz": ("own(model='net.py:Net', data='net.py')", "no .npz file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_references(folder, case):
    text, message = BAD[case]
    with pytest.raises(WhitError, match=message):
        whit.task(text)


def test_a_task_needs_no_arrays(own_folder):
    np.savez("arrays.npz", inputs=np.ones((2, 2)), target=np.ones(2))
    with pytest.raises(TaskError, match="is a task and needs no arrays.*whit compare own.py:task"):
        whit.task("own(model='own.py:task', data='arrays.npz')")


def test_a_model_given_as_a_task_leads_here(folder):
    for name in ("Net", "model"):
        with pytest.raises(TaskError, match=rf"own\(model='net.py:{name}', data='arrays.npz'\)"):
            whit.task(f"net.py:{name}")


FILES = {
    "unknown key": ({"inputs": [[1.0]], "targets": [1]}, "holds 'targets'. Did you mean 'target"),
    "no target": ({"inputs": [[1.0]]}, "lacks 'target'"),
    "no target of a split": (
        {"inputs": [[1.0]], "target": [1], "inputs_valid": [[1.0]]},
        "lacks 'target_valid'",
    ),
    "both": (
        {"inputs": [[1.0]], "target": [1], "inputs_train": [[1.0]], "target_train": [1]},
        "either inputs or inputs_train",
    ),
    "nothing": ({"class_names": ["a"]}, "either inputs or inputs_train"),
    "objects": ({"inputs": np.array([{}, []], dtype=object), "target": [0, 1]}, "Python objects"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_array_files(folder, case):
    arrays, message = FILES[case]
    np.savez("arrays.npz", **arrays)
    with pytest.raises(DataError, match=message):
        whit.task(TEXT)


def test_truncated_and_corrupt_files(folder):
    content = (folder / "arrays.npz").read_bytes()
    (folder / "arrays.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated"):
        whit.task(TEXT)
    middle = len(content) // 4
    (folder / "arrays.npz").write_bytes(content[:middle] + b"\0\xff" * 9 + content[middle + 18 :])
    with pytest.raises(DataError, match="cannot be read as arrays"):
        whit.task(TEXT)
    np.save("single.npy", np.ones(3))
    with pytest.raises(DataError, match="no .npz file"):
        whit.task("own(model='net.py:Net', data='single.npy')")


def test_an_unknown_option_is_named(folder):
    with pytest.raises(SpecError, match="no option 'epochs'"):
        whit.task("own(model='net.py:Net', data='arrays.npz', epochs=3)")
