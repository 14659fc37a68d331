"""Counting the values that weights really take, whatever is said of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.parts.levels import MOST_VALUES
from whit.parts.surgery import WEIGHTED

CHOSEN = "values_are_chosen"  # an attribute that no module declares


@dataclass(frozen=True)
class LayerLevels:
    """How many values the weight of one layer really takes.

    Attributes:
        path: of the layer.
        weights: how many.
        levels: most different values in one output channel (channels may have own scales), None
            for more than 256.
        bits: that tell the levels apart: ceil(log2(levels)), 32 for None.
    """

    path: str
    weights: int
    levels: int | None
    bits: int

    def __str__(self) -> str:
        what = "real values" if self.levels is None else f"{self.levels} values a channel"
        return f"{self.path}: {self.weights:,} weights of {what}, {self.bits} bits"


def level_summary(model: nn.Module) -> list[LayerLevels]:
    """Count the values that the effective weights of linear and convolution layers take."""
    return [
        _layer_levels(path, layer.weight.detach())
        for path, layer in model.named_modules()
        if isinstance(layer, WEIGHTED)
    ]


def takes_few_values(weight: Tensor, k: int) -> bool:
    """Say whether each channel takes at most k values beside 0, as low-bit weights do.

    Real weights differ in magnitude from one another, the few that pruning leaves in a row too.

    Args:
        weight: [out, ...].
        k: values, >= 1.
    """
    magnitudes = kept = 0
    for row in weight.flatten(1):
        values = row[row != 0]
        if _distinct(values) > k:
            return False
        magnitudes += _distinct(values.abs())
        kept += len(values)
    return 2 * magnitudes <= kept


def mark_chosen(layer: nn.Module) -> None:
    """Note that a technique chose the few values of a layer's weight, for those that come after."""
    setattr(layer, CHOSEN, True)


def are_chosen(layer: nn.Module) -> bool:
    """Say whether a technique chose the few values of a layer's weight, or its planes of bits."""
    return hasattr(layer, CHOSEN) or hasattr(layer, "stored_as")


def most_levels(weight: Tensor) -> int:
    """Return the most different values in one entry of the first axis; exact up to 256.

    Channels are looked at one by one, since each may have a scale of its own.
    """
    return max((_distinct(row) for row in _rows(weight)), default=1)


def _layer_levels(path: str, weight: Tensor) -> LayerLevels:
    most = most_levels(weight)
    levels = most if most <= MOST_VALUES else None
    bits = 32 if levels is None else max(1, math.ceil(math.log2(most)))
    return LayerLevels(path, weight.numel(), levels, bits)


def _rows(weight: Tensor) -> Iterator[Tensor]:
    """Yield the output channels, up to the first that shows that the weights are real."""
    for row in weight.flatten(1):
        yield row
        if _distinct(row) > MOST_VALUES:
            return


def _distinct(row: Tensor) -> int:
    return len(torch.unique(row))
