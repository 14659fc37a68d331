"""Fisher's iris flowers: 150 of three kinds, four lengths each; they ship with scikit-learn."""

from __future__ import annotations

from functools import cache

import torch

from whit.core.data import Split, VectorData
from whit.core.settings import Settings
from whit.core.task import Task
from whit.tasks.models import call_text, control_builder
from whit.tasks.sklearn_sets import load_bundled
from whit.tasks.splits import stratified_split

SIZES = (90, 30, 30)


def iris(*, model: str = "mlp4", width: float = 1.0) -> Task:
    """Classify iris flowers by four lengths in centimetres; 90 train, 30 valid, 30 test.

    Args:
        model: control model: "mlp2", "mlp4" or "mlp4_wide".
        width: multiplies its hidden sizes, > 0.
    """
    return Task(
        name=call_text(iris, model=model, width=width),
        load=load,
        build=control_builder(model, width),
        settings=Settings(epochs=40, batch_size=15, learning_rate=5e-3, weight_decay=0.2),
    )


@cache
def load() -> VectorData:
    """Return the flowers as float32 [n, 4] in a fixed stratified split.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    bundled = load_bundled("iris")
    lengths = torch.from_numpy(bundled.data).to(torch.float32)
    target = torch.from_numpy(bundled.target).to(torch.int64)
    whole = Split((lengths,), target)
    train, valid, test = map(whole.subset, stratified_split(target, SIZES, seed=20240202))
    return VectorData(
        train, valid, test, class_names=tuple(str(name) for name in bundled.target_names)
    )
