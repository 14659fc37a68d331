"""Handwritten digits of 8 x 8 pixels, 1,797 of them; they ship with scikit-learn."""

from __future__ import annotations

from functools import cache

import torch

from whit.core.data import ImageData, Split
from whit.core.settings import Settings
from whit.core.task import Task
from whit.tasks.models import call_text, control_builder
from whit.tasks.sklearn_sets import load_bundled
from whit.tasks.splits import stratified_split

SIZES = (1077, 360, 360)


def digits(*, model: str = "mlp4", width: float = 1.0) -> Task:
    """Classify 8 x 8 images of digits, values 0..16; 1,077 train, 360 valid, 360 test.

    Args:
        model: control model: "mlp2", "mlp4", "mlp4_wide", "conv4" or "resnet8".
        width: multiplies its hidden sizes, > 0.
    """
    return Task(
        name=call_text(digits, model=model, width=width),
        load=load,
        build=control_builder(model, width),
        settings=Settings(epochs=40, batch_size=64, learning_rate=5e-3, weight_decay=0.2),
    )


@cache
def load() -> ImageData:
    """Return the images as uint8 [n, 1, 8, 8] in a fixed stratified split.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    bundled = load_bundled("digits")
    images = torch.from_numpy(bundled.images).to(torch.uint8).unsqueeze(1)
    target = torch.from_numpy(bundled.target).to(torch.int64)
    whole = Split((images,), target)
    train, valid, test = map(whole.subset, stratified_split(target, SIZES, seed=20240201))
    names = tuple(str(name) for name in bundled.target_names)
    return ImageData(train, valid, test, class_names=names, input_range=(0.0, 16.0))
