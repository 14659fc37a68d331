"""Breast cancer, Wisconsin: 569 cell samples of 30 measurements; they ship with scikit-learn."""

from __future__ import annotations

from functools import cache

import torch

from whit.core.data import Split, VectorData
from whit.core.settings import Settings
from whit.core.task import Task
from whit.tasks.models import call_text, control_builder
from whit.tasks.sklearn_sets import load_bundled
from whit.tasks.splits import stratified_split

SIZES = (341, 114, 114)


def breast_cancer(*, model: str = "mlp4", width: float = 1.0) -> Task:
    """Tell malignant from benign cells by 30 measurements; 341 train, 114 valid, 114 test.

    Args:
        model: control model: "mlp2", "mlp4" or "mlp4_wide".
        width: multiplies its hidden sizes, > 0.
    """
    return Task(
        name=call_text(breast_cancer, model=model, width=width),
        load=load,
        build=control_builder(model, width),
        settings=Settings(epochs=40, batch_size=32, learning_rate=5e-3, weight_decay=0.2),
    )


@cache
def load() -> VectorData:
    """Return the measurements as float32 [n, 30] in a fixed stratified split.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    bundled = load_bundled("breast_cancer")
    measured = torch.from_numpy(bundled.data).to(torch.float32)
    target = torch.from_numpy(bundled.target).to(torch.int64)
    whole = Split((measured,), target)
    train, valid, test = map(whole.subset, stratified_split(target, SIZES, seed=20240204))
    return VectorData(
        train,
        valid,
        test,
        class_names=tuple(str(name) for name in bundled.target_names),
        feature_names=tuple(str(name) for name in bundled.feature_names),
    )
