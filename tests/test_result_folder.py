import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from whit.core.execution import execute
from whit.core.technique import Technique
from whit.errors import DataError
from whit.result_folder import load_result
from whit.spec_strings import spec
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
