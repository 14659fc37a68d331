"""The IDX format of MNIST and its relatives: a header of big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from whit.core.data import Split
from whit.errors import DataError
from whit.tasks.data_folder import data_file

UINT8 = 0x08
CLASSES = 10


def load_idx_set(folder: str, sha256: Mapping[str, str], base_url: str) -> tuple[Split, Split]:
    """Return the training part and the test part of MNIST or of a set with the same files.

    Shapes: images uint8 [n, 1, 28, 28], labels int64 [n].

    Args:
        folder: folder of the data set, for example "mnist".
        sha256: checksum of each of the four files by name.
        base_url: where missing files are downloaded from, ends with "/".

    Raises:
        DataError: a file is missing, corrupt, or cannot be downloaded.
        MissingExtra: a download is needed and pooch is not installed.
    """
    paths = {name: data_file(folder, name, sha256[name], base_url) for name in sha256}
    known, test = (
        read_idx_split(paths[f"{part}-images-idx3-ubyte.gz"], paths[f"{part}-labels-idx1-ubyte.gz"])
        for part in ("train", "t10k")
    )
    return known, test


def read_idx_split(images_path: Path, labels_path: Path) -> Split:
    """Read images of one channel with their labels 0..9.

    Shapes: images uint8 [n, 1, height, width], labels int64 [n].

    Raises:
        DataError: a file is malformed, their counts differ, or a label is above 9.
    """
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise DataError(
            f"'{images_path}' holds {len(images)} images and '{labels_path}' {len(labels)} labels; "
            "they do not belong together, or one is corrupt. Get both again."
        )
    check_labels(labels, CLASSES, labels_path)
    return Split((images.unsqueeze(1),), labels.to(torch.int64))


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Check that labels from a file are below the number of classes.

    Raises:
        DataError: one is not; it names the file and the sample.
    """
    wrong = (labels >= classes).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"'{path}' gives sample {first} the label {int(labels[first])}; expected 0 to "
            f"{classes - 1}. It is another file, or it is corrupt: get it again."
        )


def read_idx(path: Path, axes: int) -> Tensor:
    """Read a gzip-compressed IDX file of bytes.

    Shapes: -> uint8, as many axes as asked for.

    Args:
        path: of the file.
        axes: expected number of axes, 1 (labels) or 3 (images).

    Raises:
        DataError: no gzip or a truncated one, a wrong magic number, or a wrong length.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"The file '{path}' is not a complete gzip file ({error}). Get it again."
        ) from None
    magic = bytes((0, 0, UINT8, axes))
    if raw[:4] != magic or len(raw) < 4 + 4 * axes:
        raise DataError(
            f"The file '{path}' begins with {raw[:4].hex() or 'nothing'}, expected {magic.hex()} "
            f"(an IDX file of bytes with {axes} axes). It is another file, or it is corrupt."
        )
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    values = len(raw) - 4 - 4 * axes
    if values != math.prod(shape):
        raise DataError(
            f"The file '{path}' holds {values} values, and its header says {list(shape)}, which is "
            f"{math.prod(shape)}. It is truncated or corrupt."
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * axes).view(shape)
