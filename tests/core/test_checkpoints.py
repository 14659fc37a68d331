import subprocess
import sys

import pytest
import torch
from torch import nn

from whit.core.checkpoints import (
    load_model_state,
    model_state,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from whit.errors import SettingsError, WhitError

CPU = torch.device("cpu")

FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.errors import WhitError
from whit.tasks.toys import toy_classification

task = toy_classification()
limited = sys.argv[2] == "full"

def fill(progress):
    if limited and progress.epoch == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

conditions = Conditions(out=Path(sys.argv[1]), progress=fill)
try:
    trained = train(task, Technique(), task.settings.changed(epochs=4), conditions)
except WhitError as error:
    print(error)
    raise SystemExit(2)
torch.save(trained.model.state_dict(), sys.argv[3])
"""


def run(folder, disk, weights):
    return subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), disk, str(weights)],
        capture_output=True,
        text=True,
    )


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on(tmp_path):
    """A limit of the file's size stands for the full disk."""
    out, file = tmp_path / "run", tmp_path / "run" / "checkpoint-0.pt"
    ended = run(out, "full", tmp_path / "never.pt")
    assert ended.returncode == 2, ended.stderr
    assert f"'{file}' could not be written (File too large)" in ended.stdout
    assert "goes on from the epoch before" in ended.stdout and ended.stdout.count("\n") == 1
    assert [p.name for p in out.iterdir()] == ["checkpoint-0.pt"]
    assert torch.load(file, weights_only=True)["epoch"] == 2
    assert run(out, "free", tmp_path / "resumed.pt").returncode == 0
    assert run(tmp_path / "other", "free", tmp_path / "whole.pt").returncode == 0
    one, other = (torch.load(tmp_path / n, weights_only=True) for n in ("resumed.pt", "whole.pt"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_first_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WhitError, match="goes on; this training begins again"):
        write_checkpoint(tmp_path / "file" / "c.pt", {"identity": "a"})


def test_only_the_same_run_is_read(tmp_path):
    path = tmp_path / "checkpoint-0.pt"
    assert read_checkpoint(None, "a", CPU) == (None, "")
    assert read_checkpoint(path, "a", CPU) == (None, "")
    write_checkpoint(path, {"identity": "a", "epoch": 3})
    assert read_checkpoint(path, "a", CPU) == ({"identity": "a", "epoch": 3}, "")
    assert read_checkpoint(path, "b", CPU) == (None, "")
    torch.save([1], path)
    assert read_checkpoint(path, "a", CPU) == (None, "")


@pytest.mark.parametrize("keep", [0, 1, 100, 900, -1, -30])
def test_every_torn_file_is_told(keep, tmp_path):
    path = tmp_path / "checkpoint-0.pt"
    write_checkpoint(path, {"identity": "a", "tensor": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:keep])
    state, sentence = read_checkpoint(path, "a", CPU)
    assert state is None and str(path) in sentence and "began again" in sentence


def test_a_model_of_other_shapes_is_refused(tmp_path):
    saved = model_state(nn.Linear(2, 2))
    with pytest.raises(SettingsError, match="does not fit the model"):
        load_model_state(nn.Linear(3, 2), saved, tmp_path)
    saved["hidden"] = {"gone.buffer": torch.zeros(1)}
    with pytest.raises(SettingsError, match="does not fit the model"):
        load_model_state(nn.Linear(2, 2), saved, tmp_path)


def test_only_checkpoints_are_removed(tmp_path):
    for name in ("checkpoint-0.pt", "checkpoint-12.pt", "result.json", "mine.pt"):
        (tmp_path / name).touch()
    remove_checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.pt", "result.json"]
