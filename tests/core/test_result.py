import json

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
