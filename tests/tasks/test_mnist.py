from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import whit
from whit.core.execution import Conditions, train
from whit.core.fit import predict
from whit.core.task import accuracy
from whit.errors import DataError
from whit.tasks import mnist


@pytest.fixture
def shared(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("mnist")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    mnist.load.cache_clear()
    (tmp_path / "mnist").mkdir()
    yield tmp_path / "mnist"
    mnist.load.cache_clear()


@pytest.mark.usefixtures("shared")
def test_the_real_files() -> None:
    data = mnist.load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [55_000, 5_000, 10_000]
    assert data.train.inputs[0].dtype == torch.uint8
    assert data.input_shape == (1, 28, 28) and data.input_range == (0.0, 255.0)
    share = data.valid.target.bincount() / data.train.target.bincount()
    assert (share - 5 / 55).abs().max() < 0.001
    assert data.checksum() == "ccf98fccf4474b86"
    assert mnist.mnist().name == "mnist"
    assert mnist.mnist(model="mlp4").name == "mnist(model='mlp4')"


@pytest.mark.usefixtures("shared")
def test_the_residual_network_takes_its_images() -> None:
    task = mnist.mnist(model="resnet8", width=0.5)
    model = task.build_model(task.load(), {})
    assert model.stem.weight.shape == (8, 1, 3, 3)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_missing_file_names_the_variable(folder: Path) -> None:
    with pytest.raises(DataError, match="WHIT_DATA"):
        mnist.load()


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, shared: Path, cut: int) -> None:
    for name in mnist.SHA256:
        (folder / name).write_bytes((shared / name).read_bytes()[:cut])
    with pytest.raises(DataError, match="corrupt"):
        mnist.load()


def test_garbage_is_refused(folder: Path) -> None:
    for name in mnist.SHA256:
        (folder / name).write_bytes(b"not a data set")
    with pytest.raises(DataError, match="SHA-256"):
        mnist.load()


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_one_epoch_of_the_control_passes_97_percent_on_validation() -> None:
    task = whit.task("mnist")
    trained = train(task, whit.Technique(), task.settings.changed(epochs=1), Conditions(seed=1))
    valid = trained.run.data.valid
    assert accuracy(predict(trained.model, valid, task, whit.Device().torch), valid.target) > 0.97
