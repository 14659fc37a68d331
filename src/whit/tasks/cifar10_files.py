"""The three forms in which the batches of CIFAR-10 come: records, lossless grids, an archive.

A batch is 10,000 images of 32 x 32 pixels in three colours. In the binary form each image is a
record: its label as one byte, then 3,072 bytes, one plane for each colour. In the grid form the
images are the tiles of one lossless WebP picture, 100 a row, and the labels are in a file of NumPy.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whit.core.data import Split
from whit.errors import DataError, MissingExtra
from whit.tasks.idx import check_labels

CLASSES = 10
IMAGES = 10_000
SIDE = 32
CHANNELS = 3
TILES = 100
RECORD_BYTES = 1 + CHANNELS * SIDE * SIDE
LABEL_COUNTS = {"train": 50_000, "test": 10_000}


def read_records(path: Path) -> Split:
    """Read a batch of records.

    Shapes: images uint8 [10000, 3, 32, 32], labels int64 [10000].

    Raises:
        DataError: the file cannot be read, has another length, or a label is above 9.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"The file '{path}' cannot be read ({error.strerror}).") from None
    return parse_records(raw, path)


def parse_records(raw: bytes, path: Path) -> Split:
    """Return the images and labels of a batch of records in memory.

    Shapes: images uint8 [10000, 3, 32, 32], labels int64 [10000].

    Args:
        raw: content of the file.
        path: where it came from, for messages.

    Raises:
        DataError: another length, or a label above 9.
    """
    if len(raw) != IMAGES * RECORD_BYTES:
        raise DataError(
            f"'{path}' has {len(raw)} bytes; a batch of CIFAR-10 has {IMAGES * RECORD_BYTES} "
            f"({IMAGES} records of {RECORD_BYTES}). It is truncated or another file: get it again."
        )
    records = np.frombuffer(raw, dtype=np.uint8).reshape(IMAGES, RECORD_BYTES)
    images = records[:, 1:].reshape(IMAGES, CHANNELS, SIDE, SIDE)
    return labelled(torch.tensor(images), torch.tensor(records[:, 0]), path)


def labelled(images: Tensor, labels: Tensor, path: Path) -> Split:
    """Return images with their labels as int64.

    Args:
        images: uint8 [n, ...].
        labels: uint8 [n].
        path: where the labels came from, for messages.

    Raises:
        DataError: a label is above 9.
    """
    check_labels(labels, CLASSES, path)
    return Split((images,), labels.to(torch.int64))


def read_grid(path: Path) -> Tensor:
    """Decode a batch of images that are the tiles of one lossless WebP picture.

    Shapes: -> uint8 [10000, 3, 32, 32].

    Raises:
        DataError: no WebP, a truncated one, or a picture of another size or mode.
        MissingExtra: pillow is not installed.
    """
    try:
        pillow = import_module("PIL.Image")
    except ImportError:
        raise MissingExtra("train", "pillow") from None
    side = TILES * SIDE
    try:
        with pillow.open(path, formats=["WEBP"]) as picture:
            if picture.size != (side, side) or picture.mode != "RGB":
                raise DataError(
                    f"'{path}' is a picture of {picture.width} x {picture.height} pixels in mode "
                    f"{picture.mode}; expected {side} x {side} in mode RGB. It is another file: "
                    "get it again."
                )
            pixels = np.asarray(picture)
    except (OSError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(
            f"'{path}' cannot be decoded as a WebP picture ({error}). It is truncated, corrupt or "
            "another file: get it again."
        ) from None
    tiles = pixels.reshape(TILES, SIDE, TILES, SIDE, CHANNELS)
    images = np.ascontiguousarray(tiles.transpose(0, 2, 4, 1, 3))
    return torch.from_numpy(images.reshape(IMAGES, CHANNELS, SIDE, SIDE))


def read_labels(path: Path) -> dict[str, Tensor]:
    """Read the labels that belong to the grids.

    Shapes: -> "train" uint8 [50000] in the order of the batches, "test" uint8 [10000].

    Raises:
        DataError: no file of NumPy arrays, or an array is missing, of another shape or type.
    """
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in LABEL_COUNTS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"'{path}' is no .npz file with the arrays 'train' and 'test' ({error}). It is "
            "truncated, corrupt or another file: get it again."
        ) from None
    for name, count in LABEL_COUNTS.items():
        if found[name].shape != (count,) or found[name].dtype != np.uint8:
            raise DataError(
                f"'{path}' holds '{name}' as {found[name].dtype} {list(found[name].shape)}; "
                f"expected uint8 [{count}]. It is another file: get it again."
            )
    return {name: torch.tensor(values) for name, values in found.items()}


def read_archive(path: Path, members: Sequence[str]) -> list[Split]:
    """Read batches of records from a .tar.gz file, in memory: nothing is unpacked to the disk.

    Args:
        path: of the archive.
        members: the files to read, by their full names in it; all others are left alone.

    Raises:
        DataError: no such archive, a truncated one, or a member is missing or no batch.
    """
    batches = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name not in members:
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                raw = content.read(IMAGES * RECORD_BYTES + 1) if content else b""
                batches[member.name] = parse_records(raw, path / member.name)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"'{path}' is not a complete .tar.gz archive ({error}). Remove it and get it again."
        ) from None
    missing = [name for name in members if name not in batches]
    if missing:
        raise DataError(
            f"The archive '{path}' has no '{missing[0]}'. It is another file: remove it and get "
            "the binary version of CIFAR-10."
        )
    return [batches[name] for name in members]
