"""Networks of few-valued weights, drawn by chance from the real weights behind them.

    f = (w / s - V[j]) / (V[j + 1] - V[j]),   V[j] <= w / s < V[j + 1]

The upper level is taken with probability f, else the lower one, so that the mean over many draws is
w, where w / s lies within the values. The chance comes from a generator (u < f), or from a shift
register of k bits as on hardware (r <= round(f (2^k - 1))).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.errors import NoEffect, SpecError
from whit.parts.levels import Levels, eight_bits, fit_scale, leveled_layers
from whit.parts.linear_feedback_shift_register import ShiftRegister
from whit.parts.masks import latent_weight
from whit.parts.surgery import bake, weight_parametrizations

MOST_NETWORKS = 1 << 16


class Coin(Protocol):
    """Says where the upper of two neighbouring levels is taken."""

    def upper(self, share: Tensor) -> Tensor:
        """Return bool of the shape of `share`, True with these probabilities."""


class RandomCoin:
    """Tosses by a generator.

    Args:
        generator: of the random numbers.
        mirrored: uses 1 - u for u, the other half of an antithetic pair.
    """

    def __init__(self, generator: torch.Generator, mirrored: bool = False) -> None:
        """Keep the generator."""
        self._generator, self._mirrored = generator, mirrored

    def upper(self, share: Tensor) -> Tensor:
        """Return True with probability `share`; exact at 0 and 1."""
        chance = torch.rand(share.shape, generator=self._generator, dtype=share.dtype)
        return chance >= 1 - share if self._mirrored else chance < share


class RegisterCoin:
    """Tosses by a shift register, one state for each weight.

    Args:
        register: gives the states.
        mirrored: uses 2^k - r for r, the other half of an antithetic pair.
    """

    def __init__(self, register: ShiftRegister, mirrored: bool = False) -> None:
        """Keep the register."""
        self._register, self._mirrored = register, mirrored

    def upper(self, share: Tensor) -> Tensor:
        """Return `r <= round(share (2^k - 1))`; exact at 0 and 1."""
        period = self._register.period
        states = self._register.draw(share.numel()).reshape(share.shape)
        states = period + 1 - states if self._mirrored else states
        return states <= register_threshold(share, period)


def register_threshold(share: Tensor, period: int) -> Tensor:
    """Return the states up to which a register takes the upper level: round(share * period)."""
    return (share.double() * period).round().to(torch.int64)


def neighbours(x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower neighbour of each x among the values, and the share of the upper one.

    Shapes: x any, values sorted [k] -> index int64 in 0..k-2 and share in [0, 1], shapes of x.
    """
    inside = x.clamp(values[0], values[-1]).contiguous()  # weights may be channels-last
    lower = torch.bucketize(inside, values, right=True).sub_(1).clamp_(0, len(values) - 2)
    low, high = values[lower], values[lower + 1]
    return lower, (inside - low) / (high - low)


def scaled_latent(layer: nn.Module, levels: Levels) -> tuple[Tensor, Tensor]:
    """Return a layer's latent weight in units of its scale, and the scale; no gradient."""
    weight = latent_weight(layer).detach()
    values = levels.values.to(weight.dtype)
    if levels.scale == "none":
        return weight, weight.new_ones(())
    scale = eight_bits(fit_scale(weight, values, levels.scale == "channel"))
    return weight / torch.where(scale > 0, scale, 1.0), scale


def drawn_weight(layer: nn.Module, levels: Levels, coin: Coin) -> Tensor:
    """Return one drawn weight of a layer, its scale included."""
    scaled, scale = scaled_latent(layer, levels)
    values = levels.values.to(scaled.dtype)
    lower, share = neighbours(scaled, values)
    upper = coin.upper(share.cpu()).to(lower.device)
    return torch.where(scaled.isnan(), scaled, values[lower + upper] * scale)


class _Drawn(nn.Module):
    """Stands where the levels were, and gives the drawn weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.drawn = weight

    def forward(self, weight: Tensor) -> Tensor:
        return self.drawn


def draw_network(model: nn.Module, coin: Coin) -> nn.Module:
    """Return a network with drawn weights: a baked copy in evaluation mode.

    Parametrisations behind the levels, such as masks, still apply.

    Args:
        model: with `Levels` on some of its layers; it stays as it is.
        coin: tosses for all its layers, in their order.

    Raises:
        NoEffect: no layer has levels.
    """
    member = copy.deepcopy(model).eval()
    layers = leveled_layers(member)
    if not layers:
        raise NoEffect(
            "The model has no layer whose weight carries parts.levels.Levels, so there is nothing "
            "to draw."
        )
    for _, layer in layers:
        steps = weight_parametrizations(layer)
        place = next(k for k, step in enumerate(steps) if isinstance(step, Levels))
        weight = drawn_weight(layer, cast(Levels, steps[place]), coin)
        assert parametrize.is_parametrized(layer, "weight")
        chain = cast(nn.ModuleDict, layer.parametrizations)["weight"]
        cast(nn.ModuleList, chain)[place] = _Drawn(weight)
    return bake(member).eval()


def all_networks(latent: Tensor, values: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Yield every weight that can be drawn, with its probability: an oracle for small layers.

    Args:
        latent: real weights, in units of their scale.
        values: sorted [k].

    Raises:
        SpecError: there are more than 65,536 of them.
    """
    lower, share = neighbours(latent.double().flatten(), values.double())
    open_places = ((share > 0) & (share < 1)).nonzero().flatten().tolist()
    if 1 << len(open_places) > MOST_NETWORKS:
        raise SpecError(
            f"{len(open_places)} weights can be drawn either way, which gives 2^{len(open_places)} "
            "networks; at most 16 such weights can be enumerated."
        )
    for tosses in itertools.product((0, 1), repeat=len(open_places)):
        upper = (share >= 1).long()
        chance = 1.0
        for place, toss in zip(open_places, tosses, strict=True):
            upper[place] = toss
            chance *= float(share[place]) if toss else 1 - float(share[place])
        yield values.double()[lower + upper].reshape(latent.shape), chance
