import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from whit.core.execution import execute
from whit.core.technique import Technique
from whit.errors import DataError
from whit.packing.packer import pack
from whit.result_folder import _fill, load_result
from whit.spec_strings import spec
from whit.spec_strings import task as find_task
from whit.tasks.toys import toy_classification, toy_frames


def run(folder, text="plain()", task=None):
    task = task or toy_classification()
    return execute(task, spec(text), task.settings.changed(epochs=1), seed=5, out=folder)


@pytest.mark.parametrize(
    "text",
    ["plain()", "binarized_network()", "binarized_network() + one_cycle_pruning(sparsity=0.5)",
     "distillation(student_width=0.5)"],
)  # fmt: skip
def test_what_was_saved_comes_back_bit_for_bit(text, tmp_path):
    result = run(tmp_path, text)
    loaded = load_result(tmp_path)
    state, again = result.model.state_dict(), loaded.model.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[k], again[k]) for k in state)
    inputs = toy_classification().load().valid.inputs[0]
    assert torch.equal(loaded.model(inputs), result.model(inputs))
    assert not loaded.model.training
    assert (loaded.spec, loaded.task, loaded.seed) == (result.spec, result.task, 5)
    assert loaded.settings == result.settings and loaded.choices == result.choices
    assert loaded.history == result.history and len(loaded.history[0]["loss"]) == 1


def test_padded_convolutions_come_back(tmp_path):
    result = run(tmp_path, "binarized_network()", toy_frames())
    loaded = load_result(str(tmp_path))
    x = toy_frames().load().valid.inputs[0][:8]
    assert torch.allclose(loaded.model(x), result.model(x), atol=1e-6)


def test_changed_shapes_win(tmp_path):
    result = run(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["linear3.weight"] = tensors["linear3.weight"][:5].contiguous()
    for name in [n for n in tensors if n.startswith("norm3") and tensors[n].dim()]:
        tensors[name] = tensors[name][:5].contiguous()
    tensors["head.weight"] = tensors["head.weight"][:, :5].contiguous()
    save_file(tensors, file)
    loaded = load_result(tmp_path).model
    assert loaded.linear3.weight.shape == (5, 32) and loaded.norm3.running_var.shape == (5,)
    assert loaded(torch.zeros(2, 8)).shape == result.model(torch.zeros(2, 8)).shape


NARROWED = """
import torch
from torch import nn
import whit
from whit.core.technique import technique
from whit.tasks.digits import load


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3)
        self.norm1 = nn.BatchNorm2d(12)
        self.each = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.conv2 = nn.Conv2d(12, 10, 3)
        self.norm2 = nn.BatchNorm2d(10)
        self.relu = nn.ReLU()
        self.head = nn.Linear(10 * 4, 10)

    def forward(self, x):
        x = self.relu(self.norm1(self.conv1(x / 16)))
        x = nn.functional.max_pool2d(self.relu(self.norm2(self.conv2(self.each(x)))), 2)
        return self.head(x.flatten(1))


task = whit.Task("images", load, lambda data: Net(), settings=whit.Settings(epochs=2))


def kept(conv):
    size = conv.weight.detach().flatten(1).norm(dim=1)
    return (size > size.mean()).nonzero().flatten()


def choose(module, name, index, axis=0):
    tensor = getattr(module, name).detach().index_select(axis, index)
    wrap = nn.Parameter if name in module._parameters else torch.Tensor.clone
    setattr(module, name, wrap(tensor))


def narrow(model, data):
    for conv, norm in ((model.conv1, model.norm1), (model.conv2, model.norm2)):
        index = kept(conv)
        for name in ("weight", "bias"):
            choose(conv, name, index)
        for name in ("weight", "bias", "running_mean", "running_var"):
            choose(norm, name, index)
        conv.out_channels = norm.num_features = len(index)
        if conv is model.conv1:
            each = model.each
            for name in ("weight", "bias"):
                choose(each, name, index)
            each.in_channels = each.out_channels = each.groups = len(index)
            choose(model.conv2, "weight", index, axis=1)
            model.conv2.in_channels = len(index)
        else:
            positions = (index[:, None] * 4 + torch.arange(4)).flatten()
            choose(model.head, "weight", positions, axis=1)
            model.head.in_features = len(positions)
    return model


@technique
def narrowed() -> whit.Technique:
    \"\"\"Remove the channels of small filters, which only the trained weights tell.\"\"\"
    return whit.Technique(finish_model=narrow)
"""

IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from whit.result_folder import load_result
from whit.tasks.digits import load
model = load_result(sys.argv[1]).model
np.save(sys.argv[2], model(load().valid.inputs[0].float()).detach().numpy())
"""


def test_a_model_whose_channels_depend_on_its_weights_comes_back(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(NARROWED)
    monkeypatch.chdir(tmp_path)
    made = find_task("own.py:task")
    result = execute(made, spec("own.py:narrowed()"), seed=5, out=tmp_path / "run")
    loaded = load_result(tmp_path / "run")
    torch.manual_seed(0)
    untrained = made.build_model(made.load(), {})
    assert repr(loaded.model) == repr(result.model) != repr(untrained)
    # Untrained weights tell other channels: the stored tensors have decided.
    other = spec("own.py:narrowed()").finish_model(untrained, made.load())
    assert repr(other) != repr(result.model)
    inputs = made.load().valid.inputs[0].float()
    assert torch.equal(loaded.model(inputs), result.model(inputs))
    packed = pack(loaded.model, inputs[:2])
    assert packed.weight_bytes == pack(result.model, inputs[:2]).weight_bytes
    classes = packed.program(inputs.numpy()).argmax(1)
    assert np.array_equal(classes, result.model(inputs).argmax(1).numpy())

    answers = tmp_path / "answers.npy"
    subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, "run", str(answers)], check=True, timeout=300
    )
    assert np.array_equal(np.load(answers), result.model(inputs).detach().numpy())


def test_tied_weights_of_other_shapes_stay_tied():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    stored = {f"{n}.{k}": torch.ones(2, 2)[: 2 if k == "weight" else 1] for n in "ab"
              for k in ("weight", "bias")}  # fmt: skip
    stored = {k: t.reshape(-1) if k.endswith("bias") else t for k, t in stored.items()}
    _fill(model, stored, Path("run"))
    assert model["a"].weight is model["b"].weight and model["a"].in_features == 2
    assert isinstance(model["a"].bias, torch.nn.Parameter)
    assert model["a"].bias is not model["b"].bias


def test_the_stored_kind_of_number_wins():
    model = torch.nn.Linear(2, 2)
    stored = {k: v.detach().half() for k, v in model.state_dict().items()}
    _fill(model, stored, Path("run"))
    assert model.weight.dtype == torch.float16


def test_a_result_without_a_history_loads(tmp_path):
    run(tmp_path)
    row = json.loads((tmp_path / "result.json").read_text())
    del row["history"]
    (tmp_path / "result.json").write_text(json.dumps(row))
    assert load_result(tmp_path).history == []


def test_a_copied_model_is_rebuilt_from_the_choices_of_the_original(tmp_path):
    task = toy_classification()
    technique = Technique(train=lambda r: copy.deepcopy(r.fit(r.build(width=0.5))))
    result = execute(task, technique, task.settings.changed(epochs=1), out=tmp_path)
    loaded = load_result(tmp_path)
    assert loaded.choices == {"width": 0.5}
    inputs = task.load().valid.inputs[0]
    assert torch.equal(loaded.model(inputs), result.model(inputs))


def test_loading_leaves_the_random_state_alone(tmp_path):
    run(tmp_path)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    load_result(tmp_path)
    assert torch.equal(torch.rand(2), expected)


def test_folders_that_hold_no_result(tmp_path):
    with pytest.raises(DataError, match="no result.json"):
        load_result(tmp_path)
    (tmp_path / "result.json").write_text("{ half")
    with pytest.raises(DataError, match="cannot be read"):
        load_result(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "3"])
def test_a_row_that_lacks_its_parts_is_refused(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError):
        load_result(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_weights_that_cannot_be_read_are_refused(damage, tmp_path):
    run(tmp_path)
    file = tmp_path / "model.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError):
        load_result(tmp_path)


def test_a_model_that_no_longer_fits_is_refused(tmp_path):
    run(tmp_path)
    row = json.loads((tmp_path / "result.json").read_text())
    row["task"] = "toy_tagging"
    (tmp_path / "result.json").write_text(json.dumps(row))
    with pytest.raises(DataError, match="does not fit"):
        load_result(tmp_path)


def test_a_composed_model_cannot_be_rebuilt(tmp_path):
    task = toy_classification()
    technique = Technique(train=lambda r: r.fit(torch.nn.Sequential(r.build())))
    execute(task, technique, task.settings.changed(epochs=1), out=tmp_path)
    with pytest.raises(DataError, match="model.whit"):
        load_result(tmp_path)
