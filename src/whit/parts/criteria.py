"""Pruning criteria: stateless scores per weight; the lowest are pruned first.

Names and formulas after the library of the authors of one-cycle pruning (fasterai); w0 is the
weight when pruning started.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Criterion = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def magnitude(weight: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
    """Return |w|."""
    return weight.abs()


def movement(weight: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
    """Return |w - w0|."""
    return (weight - start).abs()


def magnitude_increase(weight: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
    """Return |w| - |w0|."""
    return weight.abs() - start.abs()


def movement_magnitude(weight: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
    """Return |w (w - w0)|."""
    return (weight * (weight - start)).abs()


def random(weight: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform numbers: the control for every other criterion."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "movement": movement,
    "magnitude_increase": magnitude_increase,
    "movement_magnitude": movement_magnitude,
    "random": random,
}
