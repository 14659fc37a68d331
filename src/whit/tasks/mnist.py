"""MNIST: handwritten digits of 28 x 28 pixels, 60,000 to learn from and 10,000 to test."""

from __future__ import annotations

from functools import cache

from whit.core.data import ImageData
from whit.core.settings import Settings
from whit.core.task import Task
from whit.tasks.augmentation import random_affine
from whit.tasks.idx import load_idx_set
from whit.tasks.models import call_text, control_builder
from whit.tasks.splits import stratified_split

BASE_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
SIZES = (55_000, 5_000)


def mnist(*, model: str = "conv4", width: float = 1.0) -> Task:
    """Classify 28 x 28 images of digits, values 0..255; 55,000 train, 5,000 valid, 10,000 test.

    Args:
        model: control model: "mlp2", "mlp4", "mlp4_wide", "conv4" or "resnet8".
        width: multiplies its channels and hidden sizes, > 0.
    """
    return Task(
        name=call_text(mnist, model=model, width=width),
        load=load,
        build=control_builder(model, width),
        settings=Settings(epochs=8, batch_size=128, learning_rate=4e-3, weight_decay=0.02),
    )


@cache
def load() -> ImageData:
    """Return the images as uint8 [n, 1, 28, 28]; validation is a fixed stratified part of train.

    Raises:
        DataError: a file is missing, corrupt, or cannot be downloaded.
        MissingExtra: a download is needed and pooch is not installed.
    """
    known, test = load_idx_set("mnist", SHA256, BASE_URL)
    train, valid = stratified_split(known.target, SIZES, seed=20240203)
    return ImageData(
        known.subset(train),
        known.subset(valid),
        test,
        class_names=tuple("0123456789"),
        augment=random_affine(degrees=10.0, scale=0.1, pixels=2.0),
        input_range=(0.0, 255.0),
    )
