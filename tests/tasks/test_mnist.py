import gzip
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import whit
from whit.core.execution import Conditions, train
from whit.core.fit import predict
from whit.core.task import accuracy
from whit.errors import DataError, MissingExtra
from whit.tasks import data_folder, mnist
from whit.tasks.idx import read_idx

ROOT = os.environ.get("WHIT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHARED = Path(ROOT) / "mnist"
LABELS = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def shared() -> None:
    if not SHARED.is_dir():
        message = f"the MNIST files are not in {SHARED}; WHIT_DATA may name another folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    mnist.load.cache_clear()
    (tmp_path / "mnist").mkdir()
    yield tmp_path / "mnist"
    mnist.load.cache_clear()


def idx(values: bytes, *shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + values


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


def test_a_missing_file_names_the_variable(folder: Path) -> None:
    with pytest.raises(DataError, match="WHIT_DATA"):
        mnist.load()


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, cut: int) -> None:
    for name in mnist.SHA256:
        (folder / name).write_bytes((SHARED / name).read_bytes()[:cut])
    with pytest.raises(DataError, match="corrupt"):
        mnist.load()


def test_garbage_is_refused(folder: Path) -> None:
    for name in mnist.SHA256:
        (folder / name).write_bytes(b"not a data set")
    with pytest.raises(DataError, match="SHA-256"):
        mnist.load()


def test_a_small_idx_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx(bytes(range(12)), 3, 2, 2)))
    assert read_idx(path, axes=3).tolist() == torch.arange(12).view(3, 2, 2).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"plain text", "not a complete gzip"),
        (gzip.compress(idx(bytes(4), 4))[:-6], "not a complete gzip"),
        (gzip.compress(b""), "begins with nothing"),
        (gzip.compress(b"\x00\x00\x0d\x01" + bytes(8)), "begins with 00000d01"),
        (gzip.compress(idx(bytes(4), 2, 2)), "begins with 00000802"),
        (gzip.compress(idx(bytes(4), 4)[:6]), "begins with"),
        (gzip.compress(idx(bytes(3), 4)), "holds 3 values"),
        (gzip.compress(idx(bytes(5), 4)), "holds 5 values"),
        (gzip.compress(idx(b"", 2**32 - 1)), "holds 0 values"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, axes=1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHIT_DATA", raising=False)
    monkeypatch.setattr(data_folder, "_shared_folders", lambda: iter(()))


def fake_pooch(cache: Path, retrieve: Callable[..., None]) -> SimpleNamespace:
    return SimpleNamespace(os_cache=lambda name: cache / name, retrieve=retrieve)


@pytest.mark.usefixtures("alone")
def test_a_download_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def retrieve(url: str, **options: object) -> None:
        asked.update(options, url=url)

    monkeypatch.setitem(sys.modules, "pooch", fake_pooch(tmp_path, retrieve))
    path = data_folder.data_file("mnist", LABELS, "ab" * 32, "https://example.org/")
    assert path == tmp_path / "whit" / "mnist" / LABELS
    assert asked["url"] == f"https://example.org/{LABELS}"
    assert asked["known_hash"] == "sha256:" + "ab" * 32


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("error", [OSError("no route"), ValueError("hash"), OSError()])
def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def retrieve(url: str, **options: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "pooch", fake_pooch(tmp_path, retrieve))
    with pytest.raises(DataError, match="Set WHIT_DATA to a folder"):
        data_folder.data_file("mnist", LABELS, "ab" * 32, "https://example.org/")


@pytest.mark.usefixtures("alone")
def test_without_pooch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtra, match="pooch"):
        data_folder.data_file("mnist", LABELS, "ab" * 32, "https://example.org/")


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_one_epoch_of_the_control_passes_97_percent_on_validation() -> None:
    task = whit.task("mnist")
    trained = train(task, whit.Technique(), task.settings.changed(epochs=1), Conditions(seed=1))
    valid = trained.run.data.valid
    assert accuracy(predict(trained.model, valid, task, whit.Device().torch), valid.target) > 0.97
