from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import whit
from whit.core.execution import Conditions, train
from whit.errors import DataError, TaskError
from whit.spec_strings import list_tasks
from whit.tasks import fashion_mnist


@pytest.fixture
def shared(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("fashion-mnist")


@pytest.mark.usefixtures("shared")
def test_the_real_files() -> None:
    data = fashion_mnist.load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [55_000, 5_000, 10_000]
    assert data.train.inputs[0].dtype == torch.uint8
    assert data.input_shape == (1, 28, 28) and data.input_range == (0.0, 255.0)
    assert data.class_names[0] == "T-shirt/top" and data.class_names[9] == "Ankle boot"
    assert data.train.target.bincount().tolist() == [5_500] * 10
    assert data.valid.target.bincount().tolist() == [500] * 10


@pytest.mark.usefixtures("shared")
def test_the_split_never_changes() -> None:
    # Results are compared over years: if the data or the split changed, old rows lie.
    assert fashion_mnist.load().checksum() == "95b2281d97186a60"


@pytest.mark.usefixtures("shared")
def test_it_is_augmented_by_shifts_of_one_pixel_and_flips() -> None:
    data = fashion_mnist.load()
    assert data.augment is not None
    images = torch.zeros(400, 1, 28, 28)
    images[:, :, 10, 5] = 1.0
    places = data.augment(images, torch.Generator().manual_seed(0))[:, 0].nonzero()
    assert set(places[:, 1].tolist()) == {9, 10, 11}
    assert set(places[:, 2].tolist()) == {4, 5, 6, 21, 22, 23}


def test_it_is_found_by_name_and_refuses_unknown_models() -> None:
    assert "fashion_mnist" in [item.name for item in list_tasks()]
    assert whit.task("fashion_mnist").name == "fashion_mnist"
    assert whit.task("fashion_mnist(width=0.5)").name == "fashion_mnist(width=0.5)"
    with pytest.raises(TaskError, match="Did you mean 'conv4'"):
        whit.task("fashion_mnist(model='conv5')")


def test_other_files_under_its_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    fashion_mnist.load.cache_clear()
    (tmp_path / "fashion-mnist").mkdir()
    for name in fashion_mnist.SHA256:
        (tmp_path / "fashion-mnist" / name).write_bytes(b"MNIST under another name")
    with pytest.raises(DataError, match="SHA-256"):
        fashion_mnist.load()


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_one_epoch_of_the_control_passes_85_percent_on_validation() -> None:
    task = whit.task("fashion_mnist")
    trained = train(task, whit.Technique(), task.settings.changed(epochs=1), Conditions(seed=1))
    assert trained.run.evaluate(trained.model) > 0.85
