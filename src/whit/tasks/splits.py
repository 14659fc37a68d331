"""Fixed, stratified splits that are the same on every machine and with every version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whit.errors import DataError


def stratified_split(target: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Deal samples into parts of exact sizes, every class in proportion to the sizes.

    The samples of each class are shuffled and spread evenly over the interval 0..1, then the
    interval is cut; so each part holds its share of each class to within about one sample.

    Shapes: target int64 [samples] -> one int64 [size] for each size, ascending sample numbers.

    Args:
        target: class of each sample.
        sizes: samples of each part; they add up to all samples.
        seed: of the shuffle.

    Raises:
        DataError: the sizes do not add up.
    """
    if sum(sizes) != len(target):
        raise DataError(f"A split into {list(sizes)} samples was asked of {len(target)} samples.")
    # The stream of RandomState is frozen by NumPy's policy; those of newer generators may change.
    random = np.random.RandomState(seed)
    labels = target.numpy()
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + random.uniform()) / len(members)
    order = np.argsort(place, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [torch.from_numpy(np.sort(part)) for part in parts]
