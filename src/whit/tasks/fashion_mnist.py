"""Fashion-MNIST: articles of clothing of 28 x 28 pixels, 60,000 to learn from and 10,000 to test.

Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747.
"""

from __future__ import annotations

from functools import cache

from whit.core.data import ImageData
from whit.core.settings import Settings
from whit.core.task import Task
from whit.tasks.augmentation import in_turn, random_flips, random_shifts
from whit.tasks.idx import load_idx_set
from whit.tasks.models import call_text, control_builder
from whit.tasks.splits import stratified_split

# The authors' repository; a fixed commit, so the address does not depend on a branch.
BASE_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
)
SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
SIZES = (55_000, 5_000)
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(*, model: str = "conv4", width: float = 1.0) -> Task:
    """Classify 28 x 28 images of clothing, values 0..255; 55,000 train, 5,000 valid, 10,000 test.

    Args:
        model: control model: "mlp2", "mlp4", "mlp4_wide", "conv4" or "resnet8".
        width: multiplies its channels and hidden sizes, > 0.
    """
    return Task(
        name=call_text(fashion_mnist, model=model, width=width),
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
    known, test = load_idx_set("fashion-mnist", SHA256, BASE_URL)
    train, valid = stratified_split(known.target, SIZES, seed=20240205)
    return ImageData(
        known.subset(train),
        known.subset(valid),
        test,
        class_names=CLASS_NAMES,
        augment=in_turn(random_shifts(1), random_flips()),
        input_range=(0.0, 255.0),
    )
