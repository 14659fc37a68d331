"""Fixed, stratified splits that are the same on every machine and with every version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whit.errors import DataError

SHARE = 0.2
STRATA = 10


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


def fixed_parts(target: Tensor, held_out: int, seed: int) -> list[Tensor]:
    """Return sample numbers for training and, 20 % each, for one or two held-out parts.

    Classes keep their shares; numbers are dealt by tenths of their rank.

    Shapes: target int64 [samples], or float [samples, ...] -> int64 [size] a part.

    Args:
        target: of every sample.
        held_out: parts beside training, 0 to 2.
        seed: of the shuffle.

    Raises:
        DataError: fewer samples, or fewer samples of a class, than parts.
    """
    samples, parts = len(target), held_out + 1
    if samples < parts:
        raise DataError(
            f"There are {samples} samples for {parts} splits; at least one is needed for each."
        )
    strata = _strata(target)
    if not target.is_floating_point():
        rare = [(c, n) for c, n in enumerate(strata.bincount().tolist()) if 0 < n < parts]
        if rare:
            named = ", ".join(f"{number} of class {label}" for label, number in rare[:5])
            raise DataError(
                f"There are fewer samples of a class than the {parts} splits: {named}. Add samples "
                "of it, or leave the class out."
            )
    size = max(1, round(SHARE * samples))
    return stratified_split(strata, [samples - held_out * size, *[size] * held_out], seed)


def _strata(target: Tensor) -> Tensor:
    if not target.is_floating_point():
        return target
    values = target.reshape(len(target), -1)[:, 0]
    ranks = torch.empty(len(values), dtype=torch.int64)
    ranks[values.argsort(stable=True)] = torch.arange(len(values))
    return ranks * STRATA // len(values)
