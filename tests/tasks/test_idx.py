import gzip
import struct
from pathlib import Path

import pytest
import torch

from whit.errors import DataError
from whit.tasks.idx import read_idx, read_idx_split


def compressed(content):
    """Compress without the time of day, which would make the names of tests differ by process."""
    return gzip.compress(content, mtime=0)


def idx(values: bytes, *shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + values


def test_a_small_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(compressed(idx(bytes(range(12)), 3, 2, 2)))
    assert read_idx(path, axes=3).tolist() == torch.arange(12).view(3, 2, 2).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"plain text", "not a complete gzip"),
        (compressed(idx(bytes(4), 4))[:-6], "not a complete gzip"),
        (compressed(b""), "begins with nothing"),
        (compressed(b"\x00\x00\x0d\x01" + bytes(8)), "begins with 00000d01"),
        (compressed(idx(bytes(4), 2, 2)), "begins with 00000802"),
        (compressed(idx(bytes(4), 4)[:6]), "begins with"),
        (compressed(idx(bytes(3), 4)), "holds 3 values"),
        (compressed(idx(bytes(5), 4)), "holds 5 values"),
        (compressed(idx(b"", 2**32 - 1)), "holds 0 values"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, axes=1)


def written(folder: Path, images: int, labels: bytes) -> tuple[Path, Path]:
    pixels = bytes(range(4 * images))
    (folder / "images.gz").write_bytes(compressed(idx(pixels, images, 2, 2)))
    (folder / "labels.gz").write_bytes(compressed(idx(labels, len(labels))))
    return folder / "images.gz", folder / "labels.gz"


def test_images_and_labels_become_a_split(tmp_path: Path) -> None:
    split = read_idx_split(*written(tmp_path, 3, bytes((9, 0, 4))))
    assert split.inputs[0].dtype == torch.uint8
    assert split.inputs[0].tolist() == torch.arange(12).view(3, 1, 2, 2).tolist()
    assert split.target.dtype == torch.int64 and split.target.tolist() == [9, 0, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (bytes((1, 2)), "3 images and .* 2 labels"),
        (bytes((1, 10, 2)), "sample 1 the label 10; expected 0 to 9"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx_split(*written(tmp_path, 3, labels))
