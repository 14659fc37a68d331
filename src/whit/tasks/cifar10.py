"""CIFAR-10: small photographs in ten classes, 50,000 to learn from and 10,000 to test.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". The data are read from
whichever of these is found first; all give the same tensors, bit for bit:
1. the six files of the binary version, in a folder `cifar-10-batches-bin` or `cifar-10`;
2. the six lossless WebP grids and `labels.npz`, in a folder `cifar-10`;
3. the archive of the binary version, in a folder `cifar-10`, or downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from whit.core.data import ImageData, Split
from whit.core.settings import Settings
from whit.core.task import Task
from whit.errors import DataError
from whit.tasks.augmentation import in_turn, random_flips, random_shifts
from whit.tasks.cifar10_files import labelled, read_archive, read_grid, read_labels, read_records
from whit.tasks.data_folder import data_file, local_folders, verified
from whit.tasks.models import call_text, control_builder
from whit.tasks.splits import stratified_split

FOLDER = "cifar-10"
BINARY_FOLDER = "cifar-10-batches-bin"
BASE_URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
RECORDS_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
GRIDS_SHA256 = {
    "data_batch_1": "352ff1501f0c55a2fc75f292868131a7ba6272dfbabf961e64012d53d6910989",
    "data_batch_2": "a1c5a2b2a495f952e767d64fb447745a57f8583874d29cdffb2c89d49a7734f3",
    "data_batch_3": "91ad0d5dec494a1cf25fffac577cbbf3ba14359748245e9c734761b6f7d047b1",
    "data_batch_4": "79afcd7d258f704beb94a593887195a0a09316c4e2eb3501f08fb44924ba688c",
    "data_batch_5": "d08cc604775bbb2d064288ecce31cf7590759ba15330d1eb0dd1f4a8f05e7243",
    "test_batch": "ff9de491fc23a41297e1e58c42a552efb04f949758a185cc7541e5a51cf1c35f",
}
LABELS = "labels.npz"
LABELS_SHA256 = "100457827cb30b2869dbdce3761c5279714820de9a8c6fa4d0dcc7cbc3037527"
SIZES = (45_000, 5_000)
MEAN_BRIGHTNESS = 118.0
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def cifar10(*, model: str = "resnet8", width: float = 1.0) -> Task:
    """Classify 32 x 32 colour photographs, values 0..255; 45,000 train, 5,000 valid, 10,000 test.

    Args:
        model: control model: "mlp2", "mlp4", "mlp4_wide", "conv4" or "resnet8".
        width: multiplies its channels and hidden sizes, > 0.
    """
    return Task(
        name=call_text(cifar10, model=model, width=width),
        load=load,
        build=control_builder(model, width),
        settings=Settings(epochs=12, batch_size=128, learning_rate=4e-3, weight_decay=0.05),
    )


@cache
def load() -> ImageData:
    """Return the images as uint8 [n, 3, 32, 32]; validation is a fixed stratified part of train.

    Raises:
        DataError: a file is missing, corrupt, or cannot be downloaded.
        MissingExtra: a download is needed and pooch is not installed, or the files are WebP grids
            and pillow is not installed.
    """
    *known, test = _batches()
    images = torch.cat([batch.inputs[0] for batch in known])
    whole = Split((images,), torch.cat([batch.target for batch in known]))
    train, valid = stratified_split(whole.target, SIZES, seed=20240206)
    return ImageData(
        whole.subset(train),
        whole.subset(valid),
        test,
        class_names=CLASS_NAMES,
        augment=in_turn(random_shifts(3, background=MEAN_BRIGHTNESS), random_flips()),
        input_range=(0.0, 255.0),
    )


def _batches() -> Sequence[Split]:
    """Return the five batches to learn from, then the one to test."""
    for root in local_folders():
        for folder in (root / BINARY_FOLDER, root / FOLDER):
            if any((folder / f"{name}.bin").is_file() for name in RECORDS_SHA256):
                return _records(folder)
        if any((root / FOLDER / f"{name}.webp").is_file() for name in GRIDS_SHA256):
            return _grids(root / FOLDER)
    try:
        archive = data_file(FOLDER, ARCHIVE, ARCHIVE_SHA256, BASE_URL)
    except DataError as error:
        raise DataError(
            f"{error} The six .bin files of the archive serve as well, in a folder "
            f"'{BINARY_FOLDER}' or '{FOLDER}'."
        ) from None
    return read_archive(archive, [f"{BINARY_FOLDER}/{name}.bin" for name in RECORDS_SHA256])


def _records(folder: Path) -> list[Split]:
    return [
        read_records(verified(folder / f"{name}.bin", sha256))
        for name, sha256 in RECORDS_SHA256.items()
    ]


def _grids(folder: Path) -> list[Split]:
    path = verified(folder / LABELS, LABELS_SHA256)
    labels = read_labels(path)
    images = [
        read_grid(verified(folder / f"{name}.webp", sha256))
        for name, sha256 in GRIDS_SHA256.items()
    ]
    batch_labels = [*labels["train"].chunk(len(images) - 1), labels["test"]]
    return [labelled(*pair, path) for pair in zip(images, batch_labels, strict=True)]
