"""Neurons that fire -1, 0 or +1 by chance, and their fixed counterpart.

Alemdar, Leroy, Prost-Boucle and Petrot, "Ternary Neural Networks for Resource-Efficient AI
Applications", IJCNN 2017, arXiv 1609.00222.

    rho = tanh(x)  (or x clipped to [-1, 1])
    training     n = sign(rho) with probability |rho|, else 0, so that E[n] = rho
    evaluation   n = +1 where rho > 1/2, -1 where rho < -1/2, else 0
    backward     dn/drho = 1
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from whit.errors import SpecError
from whit.parts.straight_through import straight_through

Squash = Literal["tanh", "hardtanh"]
SQUASHES = ("tanh", "hardtanh")
# Where a squashing function reaches 1/2: there the firing of the evaluation mode begins.
FIRES_FROM = {"tanh": math.atanh(0.5), "hardtanh": 0.5}


def firing_probabilities(rho: Tensor) -> Tensor:
    """Return how likely a neuron fires -1, 0 and +1 in training.

    Shapes: rho any, in [-1, 1] -> [3, *rho.shape]; sums to 1 over the first axis.
    """
    return torch.stack([(-rho).clamp_min(0), 1 - rho.abs(), rho.clamp_min(0)])


def stochastic_fire(rho: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return -1, 0 or +1 with mean rho, with the gradient straight through.

    It is floor(rho + u) of the paper, drawn so that rho = -1, 0 and 1 are exact in floating point.

    Shapes: any -> the same.

    Args:
        rho: in [-1, 1].
        generator: of the random numbers; None for torch's own.
    """
    chance = torch.rand(rho.shape, generator=generator, device=rho.device, dtype=rho.dtype)
    return straight_through(rho, torch.where(chance < rho.abs(), rho.sign(), 0.0))


class StochasticFire(nn.Module):
    """Ternary activation: squashes, then fires by chance in training, by thresholds otherwise.

    Args:
        squash: "tanh", or "hardtanh", which only clips to [-1, 1].

    Shapes: any -> the same, values -1, 0, +1.

    Raises:
        SpecError: another squashing function.
    """

    def __init__(self, squash: Squash = "tanh") -> None:
        """Check and keep the squashing function."""
        super().__init__()
        if squash not in SQUASHES:
            raise SpecError(f"squash was given {squash!r}. Known: {', '.join(SQUASHES)}.")
        self.squash = squash

    def firing_rate(self, x: Tensor) -> Tensor:
        """Return rho, the mean of what fires in training."""
        return torch.tanh(x) if self.squash == "tanh" else torch.clamp(x, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fire."""
        rho = self.firing_rate(x)
        if self.training:
            return stochastic_fire(rho)
        # Halves round to even, that is to 0: the thresholds are strict.
        return straight_through(rho, torch.round(rho))

    def extra_repr(self) -> str:
        """Show the squashing function."""
        return f"squash={self.squash!r}"


class TernaryInput(nn.Module):
    """Quantiser of a network's input; no gradient.

    Args:
        kind: "ternary" (-1 below -threshold, +1 above it), "binary" (1 above the threshold, else 0)
            or "integer" (32 steps a unit, from -127 to 127).
        threshold: of "ternary" (>= 0) and "binary", in units of the normalised input.

    Shapes: any -> the same, whole numbers.

    Raises:
        SpecError: an option is out of range.
    """

    kinds = ("ternary", "binary", "integer")
    steps_per_unit = 32.0

    def __init__(self, kind: str = "ternary", threshold: float = 0.5) -> None:
        """Check and keep the options."""
        super().__init__()
        if kind not in self.kinds:
            raise SpecError(f"kind was given {kind!r}. Known: {', '.join(self.kinds)}.")
        if not math.isfinite(threshold) or (kind == "ternary" and threshold <= 0):
            raise SpecError(f"threshold was given {threshold!r}; expected a finite number above 0.")
        self.kind = kind
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantised input."""
        if self.kind == "binary":
            return (x > self.threshold).to(x.dtype)
        if self.kind == "ternary":
            return torch.clamp(torch.round(x * (0.5 / self.threshold)), -1, 1)
        return torch.clamp(torch.round(x * self.steps_per_unit), -127, 127)

    def extra_repr(self) -> str:
        """Show the options."""
        shown = "" if self.kind == "integer" else f", threshold={self.threshold:g}"
        return f"{self.kind!r}{shown}"
