"""The few values that a trained weight holds already, told from real weights that are few.

    layer      w = s V[j]     values of the whole layer, in a code book or times one scale
    channel    w = step_c k   whole multiples of a step of each output channel: signs, bit layers

Real weights that pruning left are few too, but they differ in magnitude from one another and are no
multiples of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whit.packing.integer_grid import integer_grid
from whit.parts.levels import MOST_VALUES, nearest_level


@dataclass(frozen=True)
class OwnLevels:
    """Values, the place of each weight among them, and the scales that multiply them.

    Attributes:
        values: float64 [k], sorted, k from 2 to 256.
        index: uint8, the shape of the weight.
        scale: > 0.
        channel_scale: float64 [out], or None.
    """

    values: Tensor
    index: Tensor
    scale: float
    channel_scale: Tensor | None = None


def distinct(values: Tensor) -> Tensor:
    """Return the different values, sorted."""
    found: Tensor = values.unique()  # type: ignore[no-untyped-call]
    return found


def own_levels(weight: Tensor, chosen: bool = False, planes: bool = False) -> OwnLevels | None:
    """Return the few values that a weight holds already, or None where there are not 2 to 256.

    Scales of channels are taken only where they explain the values with fewer levels.

    Args:
        weight: [out, ...], finite.
        chosen: it is known that the values were chosen, so that few weights may hold many of them.
        planes: they are stored as planes of bits, so that only multiples of a step will do.
    """
    weight = weight.detach().double()
    largest = float(weight.abs().max())
    if not largest > 0:
        return None
    by_layer = _of_layer(weight, largest, chosen)
    by_channel = _of_channels(weight, chosen)
    if planes:
        return by_channel
    if by_layer is None or by_channel is None:
        return by_layer or by_channel
    return by_channel if len(by_channel.values) < len(by_layer.values) else by_layer


def _of_layer(weight: Tensor, largest: float, chosen: bool) -> OwnLevels | None:
    values = distinct(weight / largest)
    if not 2 <= len(values) <= MOST_VALUES:
        return None
    magnitudes = len(distinct(weight[weight != 0].abs()))
    if not chosen and 2 * magnitudes > int((weight != 0).sum()):
        return None
    return OwnLevels(values, nearest_level(weight / largest, values).to(torch.uint8), largest)


def _of_channels(weight: Tensor, chosen: bool) -> OwnLevels | None:
    rows = weight.flatten(1)
    found = _whole_steps(rows)
    if found is None:
        return None
    whole, steps = found
    values = distinct(whole)
    # One weight of a channel is a multiple of itself; the others are evidence, and the less of it
    # the finer the steps are.
    least = 2 if float(whole.abs().max()) < MOST_VALUES / 2 else 4
    used = rows != 0
    if not chosen and int(used.sum()) < least * int(used.any(1).sum()):
        return None
    if not 2 <= len(values) <= MOST_VALUES:
        return None
    return OwnLevels(
        values, nearest_level(whole, values).to(torch.uint8).reshape(weight.shape), 1.0, steps
    )


def _whole_steps(rows: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return whole numbers [out, in] and a step for each channel that give the weights exactly."""
    steps = rows.abs().max(1).values
    steps = torch.where(steps > 0, steps, steps.max())  # a channel of zeros takes any step
    whole = rows / steps.unsqueeze(1)
    if torch.equal(whole, whole.round()):
        return whole, steps
    singles = rows.float()
    grid = integer_grid(singles.numpy()) if torch.equal(singles.double(), rows) else None
    if grid is None:
        return None
    whole = torch.from_numpy(grid[0]).double()
    scales = torch.from_numpy(grid[1]).double()
    steps = torch.ones(len(rows), dtype=torch.float64) * (scales if len(scales) else 1.0)
    # A channel that holds multiples of 2 only is taken for one of steps twice as large; its other
    # levels would then lie beyond those of the set. Halves are exact.
    peaks = whole.abs().max(1).values
    finer = torch.where(peaks > 0, (peaks.max() / peaks.clamp_min(1)).log2().floor().exp2(), 1.0)
    return whole * finer.unsqueeze(1), steps / finer
