import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import whit
from whit.core.data import Split
from whit.core.execution import Conditions, train
from whit.errors import DataError, MissingExtra
from whit.tasks import cifar10, cifar10_files
from whit.tasks.cifar10_files import read_archive, read_grid, read_labels, read_records

# Of the files of the binary version, as its authors' page and others publish them.
PUBLISHED_MD5 = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


@pytest.fixture(scope="module")
def grids(shared_data: Callable[[str], Path]) -> list[Split]:
    """The six batches, decoded once for all tests here."""
    return cifar10._grids(shared_data("cifar-10"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    cifar10.load.cache_clear()
    yield tmp_path
    cifar10.load.cache_clear()


def as_records(batch: Split) -> bytes:
    pixels = batch.inputs[0].flatten(1)
    return torch.cat([batch.target.to(torch.uint8).unsqueeze(1), pixels], 1).numpy().tobytes()


def a_batch(first: int = 0) -> bytes:
    """Records whose label and pixels follow from their number."""
    count = cifar10_files.IMAGES
    records = np.zeros((count, 3073), np.uint8)
    records[:, 0] = (np.arange(count) + first) % 10
    records[:, 1:] = (np.arange(count)[:, None] + np.arange(3072) // 7 + first) % 251
    return records.tobytes()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 20 images, for speed."""
    monkeypatch.setattr(cifar10_files, "IMAGES", 20)


def test_the_grids_rebuild_the_published_files(grids: list[Split]) -> None:
    for (name, md5), batch in zip(PUBLISHED_MD5.items(), grids, strict=True):
        records = as_records(batch)
        assert hashlib.md5(records).hexdigest() == md5
        # The checksums that are asked of .bin files are of the same files.
        assert hashlib.sha256(records).hexdigest() == cifar10.RECORDS_SHA256[name]


def test_the_class_names_are_those_of_the_data_set(shared_data: Callable[[str], Path]) -> None:
    names = (shared_data("cifar-10") / "batches.meta.txt").read_text().split()
    assert tuple(names) == cifar10.CLASS_NAMES


@pytest.fixture
def loaded(grids: list[Split], monkeypatch: pytest.MonkeyPatch) -> Iterator[whit.ImageData]:
    monkeypatch.setattr(cifar10, "_grids", lambda folder: grids)
    cifar10.load.cache_clear()
    yield cifar10.load()
    cifar10.load.cache_clear()


def test_the_split(loaded: whit.ImageData) -> None:
    assert [len(p) for p in (loaded.train, loaded.valid, loaded.test)] == [45_000, 5_000, 10_000]
    assert loaded.train.inputs[0].dtype == torch.uint8
    assert loaded.input_shape == (3, 32, 32) and loaded.input_range == (0.0, 255.0)
    assert loaded.train.target.bincount().tolist() == [4_500] * 10
    assert loaded.valid.target.bincount().tolist() == [500] * 10
    # Results are compared over years: if the data or the split changed, old rows lie.
    assert loaded.checksum() == "f14a649d0df3d305"
    assert cifar10.load() is loaded


def test_it_is_augmented_by_shifts_of_three_pixels_and_flips(loaded: whit.ImageData) -> None:
    assert loaded.augment is not None
    images = torch.full((600, 3, 32, 32), 50.0)
    images[:, :, 10, 8] = 1.0
    moved = loaded.augment(images, torch.Generator().manual_seed(0))
    places = (moved[:, 0] == 1.0).nonzero()
    assert set(places[:, 1].tolist()) == set(range(7, 14))
    assert set(places[:, 2].tolist()) == {*range(5, 12), *range(20, 27)}
    assert set(moved.unique().tolist()) == {1.0, 50.0, 118.0}


def test_its_control_is_the_residual_network(loaded: whit.ImageData) -> None:
    task = whit.task("cifar10(width=0.5)")
    assert task.name == "cifar10(width=0.5)" and whit.task("cifar10").name == "cifar10"
    model = task.build_model(loaded, {})
    assert model.stem.weight.shape == (8, 3, 3, 3)
    assert model(loaded.valid.inputs[0][:2].float()).shape == (2, 10)


# The three forms; small forgeries stand for the real files, with checksums of their own.


@pytest.fixture
def forged(small: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    batches = {name: a_batch(number) for number, name in enumerate(PUBLISHED_MD5)}
    sums = {name: hashlib.sha256(raw).hexdigest() for name, raw in batches.items()}
    monkeypatch.setattr(cifar10, "RECORDS_SHA256", sums)
    return batches


def archive_of(batches: dict[str, bytes], folder: str = "cifar-10-batches-bin") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, raw in {"batches.meta": b"text", **batches}.items():
            member = tarfile.TarInfo(f"{folder}/{name}.bin")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar-10", "archive"])
def test_records_are_read_from_either_folder_and_from_the_archive(
    root: Path, forged: dict[str, bytes], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if folder == "archive":
        raw = archive_of(forged)
        monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", hashlib.sha256(raw).hexdigest())
        forged, folder = {"cifar-10-binary": raw}, "cifar-10"
    (root / folder).mkdir()
    for name, raw in forged.items():
        suffix = ".tar.gz" if name == "cifar-10-binary" else ".bin"
        (root / folder / f"{name}{suffix}").write_bytes(raw)
    before = sorted(root.rglob("*"))
    batches = cifar10._batches()
    assert [int(batch.target[0]) for batch in batches] == [0, 1, 2, 3, 4, 5]
    assert [as_records(batch) for batch in batches] == [a_batch(k) for k in range(6)]
    assert sorted(root.rglob("*")) == before, "reading must not write"


def test_one_missing_batch_is_named(root: Path, forged: dict[str, bytes]) -> None:
    (root / "cifar-10").mkdir()
    for name in list(forged)[1:]:
        (root / "cifar-10" / f"{name}.bin").write_bytes(forged[name])
    with pytest.raises(DataError, match=r"data_batch_1\.bin' cannot be read"):
        cifar10.load()


def test_no_file_at_all_names_the_variable_and_the_forms(root: Path) -> None:
    with pytest.raises(DataError, match=r"WHIT_DATA says.*six \.bin files"):
        cifar10.load()


@pytest.mark.parametrize("suffix", ["bin", "webp"])
def test_another_file_under_its_name_is_refused(root: Path, suffix: str) -> None:
    (root / "cifar-10").mkdir()
    for name in [*PUBLISHED_MD5, "labels"]:
        (root / "cifar-10" / f"{name}.{suffix}").write_bytes(b"another file")
    (root / "cifar-10" / "labels.npz").write_bytes(b"another file")
    with pytest.raises(DataError, match="SHA-256"):
        cifar10.load()


def test_a_truncated_grid_is_refused(root: Path, shared_data: Callable[[str], Path]) -> None:
    source = shared_data("cifar-10")
    (root / "cifar-10").mkdir()
    (root / "cifar-10" / "labels.npz").write_bytes((source / "labels.npz").read_bytes())
    (root / "cifar-10" / "data_batch_1.webp").write_bytes(
        (source / "data_batch_1.webp").read_bytes()[:-1]
    )
    with pytest.raises(DataError, match="data_batch_1.*corrupt"):
        cifar10.load()


# What the readers say of files that passed no checksum before.


@pytest.mark.parametrize("length", [0, 3073, 30_730_000 - 1, 30_730_000 + 1])
def test_records_of_a_wrong_length_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(length))
    with pytest.raises(DataError, match=f"has {length} bytes; .* 30730000"):
        read_records(path)


@pytest.mark.usefixtures("small")
def test_labels_above_nine_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    raw = bytearray(a_batch())
    raw[3073 * 17] = 10
    path.write_bytes(raw)
    with pytest.raises(DataError, match="sample 17 the label 10; expected 0 to 9"):
        read_records(path)


def test_records_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_records(tmp_path)


def test_a_grid_is_cut_into_tiles_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_files, "TILES", 2)
    monkeypatch.setattr(cifar10_files, "IMAGES", 4)
    images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3), np.uint8)
    picture = np.block([[[images[0]], [images[1]]], [[images[2]], [images[3]]]])
    Image.fromarray(picture).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_grid(tmp_path / "a.webp").numpy(), images.transpose(0, 3, 1, 2))


def picture(kind: str, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7 if mode == "L" else (7,) * len(mode)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "cannot be decoded as a WebP"),
        (lambda: b"RIFF\x00\x00\x00\x00WEBP", "cannot be decoded as a WebP"),
        (lambda: picture("JPEG"), "cannot be decoded as a WebP"),
        (lambda: picture("WEBP")[:-40], "cannot be decoded as a WebP"),
        (lambda: picture("WEBP", (64, 32)), "is a picture of 64 x 32 pixels"),
        (lambda: picture("WEBP", mode="RGBA"), "mode RGBA; expected 64 x 64 in mode RGB"),
    ],
    ids=["empty", "header", "jpeg", "truncated", "size", "mode"],
)
def test_a_grid_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes], message: str
) -> None:
    monkeypatch.setattr(cifar10_files, "TILES", 2)
    path = tmp_path / "a.webp"
    path.write_bytes(content())
    with pytest.raises(DataError, match=message):
        read_grid(path)


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match="pillow"):
        read_grid(tmp_path / "a.webp")


def arrays(**values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()


TRAIN, TEST = np.zeros(50_000, np.uint8), np.zeros(10_000, np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .npz file"),
        (b"plain text", "is no .npz file"),
        (arrays(train=TRAIN, test=TEST)[:-30], "is no .npz file"),
        (arrays(train=TRAIN), "is no .npz file.*test"),
        (arrays(train=TRAIN, test=np.array([None])), "is no .npz file"),
        (arrays(train=TRAIN[1:], test=TEST), r"'train' as uint8 \[49999\]; expected uint8"),
        (arrays(train=TRAIN, test=TEST.astype(float)), r"'test' as float64 \[10000\]"),
    ],
    ids=["empty", "text", "truncated", "missing", "pickle", "short", "float"],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(path)


MEMBER = "cifar-10-batches-bin/data_batch_1.bin"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "not a complete .tar.gz"),
        (lambda: b"plain text", "not a complete .tar.gz"),
        (lambda: archive_of({"data_batch_1": a_batch()})[:1500], "not a complete .tar.gz"),
        (lambda: archive_of({"data_batch_2": b""}), f"has no '{MEMBER}'"),
        (lambda: archive_of({"data_batch_1": a_batch()}, "elsewhere"), f"has no '{MEMBER}'"),
        (lambda: archive_of({"data_batch_1": b"short"}), "has 5 bytes"),
        (lambda: archive_of({"data_batch_1": a_batch() + b"+"}), "has 61461 bytes"),
    ],
    ids=["empty", "text", "truncated", "missing", "folder", "short", "long"],
)
def test_an_archive_that_is_none_is_refused(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content())
    with pytest.raises(DataError, match=message):
        read_archive(path, [MEMBER])


def test_links_and_paths_of_an_archive_are_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo(MEMBER)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        outside = tarfile.TarInfo("../outside.bin")
        outside.size = 4
        archive.addfile(outside, io.BytesIO(b"evil"))
    path = tmp_path / "folder" / "a.tar.gz"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="has 0 bytes"):
        read_archive(path, [MEMBER])
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(path.parent) == ["a.tar.gz"]


@pytest.mark.slow
def test_one_epoch_of_the_control_passes_45_percent_on_validation(loaded: whit.ImageData) -> None:
    task = whit.task("cifar10")
    trained = train(task, whit.Technique(), task.settings.changed(epochs=1), Conditions(seed=1))
    assert trained.run.evaluate(trained.model) > 0.45
