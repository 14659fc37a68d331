import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from whit.core.result import Result
from whit.core.settings import Settings
from whit.errors import WhitError


def result(model, **options):
    return Result(
        model=model, scorecard=None, spec="plain()", provenance={"torch": "x"},
        task="toy_classification", seed=0, settings=Settings(), choices={}, **options,
    )  # fmt: skip


def test_tensors_are_written_as_they_are(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    result(model).save(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(stored[k], v) for k, v in model.state_dict().items())
    row = json.loads((tmp_path / "result.json").read_text())
    assert row["shapes"]["0.weight"] == [4, 3, 3, 3]
    assert row["scorecard"] is None and row["settings"] == Settings().as_dict()
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "result.json"}


def test_tied_weights_can_be_written(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    result(model).save(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {"0.weight", "1.weight"}


def test_right_and_wrong_answers_are_written(tmp_path):
    right = np.array([1, 0, 1], dtype=np.uint8)
    result(nn.Linear(1, 1), test_correct=right).save(tmp_path)
    assert np.load(tmp_path / "test_correct.npy", allow_pickle=False).tolist() == [1, 0, 1]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WhitError, match="could not be written"):
        result(nn.Linear(1, 1)).save(tmp_path / "file" / "x")


FULL_DISK = """
import resource, sys
import torch
from torch import nn
from whit.core.result import Result
from whit.core.settings import Settings
from whit.errors import WhitError
torch.manual_seed(1)
model = nn.Linear(100, 100)
result = Result(model=model, scorecard=None, spec="plain()", provenance={}, task="digits", seed=1,
                settings=Settings())
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
try:
    result.save(sys.argv[1])
except WhitError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_earlier_result_whole(tmp_path):
    """A limit of the file's size stands for the full disk."""
    right = np.array([1, 0, 1], dtype=np.uint8)
    result(nn.Linear(3, 2), test_correct=right).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert f"could not be written to '{tmp_path}' (File too large)" in ended.stdout
    assert "goes on from the last checkpoint" in ended.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_parts_that_a_new_result_lacks_go(tmp_path):
    right = np.array([1, 0, 1], dtype=np.uint8)
    result(nn.Linear(3, 2), test_correct=right).save(tmp_path)
    result(nn.Linear(3, 2)).save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "result.json"}


def test_the_history_is_written(tmp_path):
    history = [{"fit": 0, "epochs": 1, "loss": [0.5], "valid": [None], "seconds": [1.0],
                "warnings": []}]  # fmt: skip
    result(nn.Linear(1, 1), history=history).save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["history"] == history
