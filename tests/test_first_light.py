"""The main job in small: real digits, a real packed file, and the same answers without torch."""

import numpy as np
import pytest

import whit
from whit.core.fit import predict


@pytest.fixture(scope="module")
def digits_results():
    task = whit.task("digits")
    settings = task.settings.changed(epochs=12)
    specs = ("plain()", "binarized_network()", "binarized_network() + one_cycle_pruning()")
    return task, {s: whit.execute(task, whit.spec(s), settings, seed=7) for s in specs}


def test_binarized_file_is_a_twelfth_of_the_control(digits_results):
    _, results = digits_results
    control, binary = (results[s].packed for s in ("plain()", "binarized_network()"))
    assert len(binary.to_bytes()) * 12 <= len(control.to_bytes())


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(
    "spec", ["binarized_network()", "binarized_network() + one_cycle_pruning()"]
)
def test_classes_are_identical_between_torch_and_the_packed_file(
    digits_results, tmp_path, spec, backend
):
    task, results = digits_results
    result = results[spec]
    path = result.packed.save(tmp_path / "m.whit")
    test = task.load().test
    torch_classes = predict(result.model, test, task, whit.Device().torch).argmax(-1).numpy()
    program = whit.runtime.load(path, backend=backend)
    packed_classes = program(test.inputs[0].numpy()).argmax(-1)
    assert len(torch_classes) >= 300
    assert np.array_equal(torch_classes, packed_classes)


def test_stored_bytes_are_those_of_the_file(digits_results, tmp_path):
    _, results = digits_results
    for result in results.values():
        path = result.packed.save(tmp_path / "m.whit")
        assert path.stat().st_size == result.scorecard.stored_bytes


def test_binary_digits_network_is_at_most_a_kilobyte():
    task = whit.task("digits")
    binary = whit.spec("binarized_network()")

    from torch import nn

    from whit.core.task import Task
    from whit.parts.normalise import Normalise

    def build(data):
        return nn.Sequential(
            Normalise(8.0, 8.0),
            nn.Flatten(),
            nn.Linear(64, 32, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )

    small = Task("digits_64_32_10", task.load, build, settings=task.settings.changed(epochs=4))
    result = whit.execute(small, binary, seed=0)
    assert result.scorecard.stored_bytes <= 1024
    assert result.scorecard.packed_agreement == 1.0
