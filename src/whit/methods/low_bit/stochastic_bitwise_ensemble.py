"""Stochastic bitwise ensembles: several networks of few-valued weights drawn from one real network.

Vogel, Schorn, Guntoro and Ascheid, "Efficient Stochastic Inference of Bitwise Deep Neural
Networks", 2016, arXiv 1611.06539. Only its abstract was read; training follows BinaryConnect
(Courbariaux, Bengio and David, 2015, arXiv 1511.00363).

    training    w_b drawn in every forward call with E[w_b] = w, gradient of w_b to w, w in [-1, 1]
    inference   y = 1/M sum_m f(x; w_b^(m)),   M networks drawn once

Shapes: any model of `nn.Linear` and `nn.Conv1d/2d/3d`; the members together give [M, batch, ...].

Deviations from the paper: see the card `stochastic_bitwise_ensemble.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from whit.core.data import Data
from whit.core.options import nearest, require
from whit.core.run import Run
from whit.core.technique import AfterTraining, Technique, technique, train_once
from whit.errors import NoEffect, NotApplicable, SpecError
from whit.measure.meter import forward_macs
from whit.parts.combine_members import Combine, Output
from whit.parts.group import Group
from whit.parts.level_draws import Coin, RandomCoin, RegisterCoin, draw_network
from whit.parts.levels import ROUNDINGS, SCALES, Levels, Rounding, Scale, add_levels, check_values
from whit.parts.linear_feedback_shift_register import TAPS, ShiftRegister
from whit.parts.norm_statistics import reestimate_norms
from whit.parts.surgery import weight_parametrizations, weighted_layers
from whit.procedures.latent_weights import ClipLatentWeights

_NORM_BATCH = 128


def stochastic_weights(
    model: nn.Module,
    values: object = "binary",
    *,
    scale: Scale = "layer",
    rounding: Rounding = "stochastic",
    skip: Sequence[str] = (),
) -> nn.Module:
    """Let a model's weights be drawn from a set of values in every training step, in place.

    Args:
        model: any module with linear or convolution layers.
        values: of the weights, as `parts.levels.check_values` takes them.
        scale: "none" (weights are the values themselves), "layer" or "channel".
        rounding: while training: "stochastic", or "nearest" (the deterministic variant).
        skip: paths or child names of layers whose weights stay real.

    Raises:
        NoEffect: no layer is left.
        SpecError: an option is out of range, or a weight is quantised or pruned already.
    """
    for path, layer in weighted_layers(model, skip):
        steps = weight_parametrizations(layer)
        if steps:
            raise SpecError(
                f"The weight of layer '{path}' has a {type(steps[0]).__name__} already. Write "
                "stochastic_bitwise_ensemble() first in the sum: 'stochastic_bitwise_ensemble() + "
                "one_cycle_pruning()'."
            )
        add_levels(layer, Levels(values, scale, rounding))
        if scale == "none":
            _spread(layer.parametrizations["weight"].original)  # type: ignore[union-attr, index]
    return model


def _spread(weight: Tensor) -> None:
    """Stretch fresh weights to [-1, 1]: drawn as they come, they would be all noise."""
    with torch.no_grad():
        largest = weight.abs().max()
        weight.div_(torch.where(largest > 0, largest, 1.0))


def coin(seed: int, member: int, *, register: int | None = None, antithetic: bool = False) -> Coin:
    """Return the chance of one member of an ensemble.

    Args:
        seed: of the ensemble, >= 0.
        member: its number, from 0.
        register: bits of the shift register (4, 8 or 16) that rounds as small hardware does; None
            for a generator.
        antithetic: members 2j and 2j + 1 use u and 1 - u.
    """
    number, mirrored = (member // 2, bool(member % 2)) if antithetic else (member, False)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    if register is None:
        return RandomCoin(generator, mirrored)
    period = (1 << register) - 1
    state = int(torch.randint(1, period + 1, (), generator=generator))
    return RegisterCoin(ShiftRegister(register, state), mirrored)


def draw_members(
    model: nn.Module,
    members: int,
    *,
    seed: int = 0,
    register: int | None = None,
    antithetic: bool = False,
) -> Group:
    """Draw networks from a trained one and return them as a group.

    Args:
        model: trained with `stochastic_weights`; it stays as it is.
        members: how many, >= 1.
        seed: of the draws; the same seed gives the same members, and more members continue them.
        register: see `coin`.
        antithetic: see `coin`.

    Raises:
        NoEffect: the model has no layer with levels.
        SpecError: an option is out of range.
    """
    _check_draws(members, seed, register)
    return Group(
        [
            draw_network(model, coin(seed, m, register=register, antithetic=antithetic))
            for m in range(members)
        ]
    )


def _check_draws(members: object, seed: object, register: object) -> None:
    whole = isinstance(members, int) and not isinstance(members, bool) and members >= 1
    require(whole, f"members was given {members!r}; expected a whole number >= 1.")
    whole = isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
    require(whole, f"seed was given {seed!r}; expected a whole number >= 0.")
    known = ", ".join(map(str, TAPS))
    require(
        register is None or register in TAPS,
        f"register was given {register!r}; expected the bits of a shift register ({known}), or "
        "None.",
    )


def _names(choice: str, name: str, known: tuple[str, ...]) -> None:
    require(choice in known, f"{name} was given {choice!r}. {nearest(str(choice), known)}")


@technique
def stochastic_bitwise_ensemble(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    members: int = 8,
    values: str | int | list[float] = "binary",
    scale: Scale = "layer",
    rounding: Rounding = "stochastic",
    output: Output = "logits",
    first: Literal["levels", "real"] = "levels",
    last: Literal["levels", "real"] = "levels",
    register: int | None = None,
    antithetic: bool = False,
    reestimate: int = 0,
    draw: int = 0,
) -> Technique:
    """Train with weights drawn by chance, then average the answers of several drawn networks.

    Args:
        members: networks that are drawn, >= 1; cost and bytes count them all.
        values: of the weights: "binary", "ternary", a number of levels, or a list.
        scale: of the weights: "none", "layer" or "channel".
        rounding: while training, "stochastic" or "nearest".
        output: what is averaged: "logits", "softmax" or "vote" (not packable).
        first: weights of the first layer, "levels" or "real".
        last: weights of the last layer, "levels" or "real".
        register: bits of the shift register (4, 8, 16) that rounds; None for a generator.
        antithetic: draw members in pairs, with u and 1 - u.
        reestimate: training samples on which each member's batch norms are estimated anew, >= 0.
        draw: seed of the draws, >= 0.
    """
    check_values(values)
    _names(scale, "scale", SCALES)
    _names(rounding, "rounding", ROUNDINGS)
    _names(first, "first", ("levels", "real"))
    _names(last, "last", ("levels", "real"))
    _check_draws(members, draw, register)
    combine = Combine(output)
    whole = isinstance(reestimate, int) and not isinstance(reestimate, bool) and reestimate >= 0
    require(whole, f"reestimate was given {reestimate!r}; expected a whole number >= 0.")

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        if output != "logits" and not data.class_names:
            raise NotApplicable(f"output={output!r} needs classes; use output='logits'.")
        paths = [path for path, _ in weighted_layers(model)]
        skip = paths[:1] * (first == "real") + paths[-1:] * (last == "real")
        if len(set(skip)) >= len(paths):
            raise NoEffect("first='real' and last='real' leave no layer with levels.")
        return stochastic_weights(
            model, values, scale=scale, rounding=rounding, skip=tuple(dict.fromkeys(skip))
        )

    def finish(model: nn.Module, data: Data) -> nn.Module:
        group = draw_members(model, members, seed=draw, register=register, antithetic=antithetic)
        for member in group.members:
            reestimate_norms(member, _batches(data, reestimate))
        return nn.Sequential(group, combine)

    def charge(run: Run, model: nn.Module) -> nn.Module:
        sample = run.data.train.batch(torch.zeros(1, dtype=torch.int64)).inputs
        with run.meter.training(model):
            run.meter.add_macs(members * reestimate * forward_macs(model, *sample))
        return model

    return Technique(
        prepare_model=prepare,
        hooks=(ClipLatentWeights,),
        train=AfterTraining(charge) if reestimate else train_once,
        finish_model=finish,
    )


def _batches(data: Data, samples: int) -> list[tuple[Tensor, ...]]:
    """Return the inputs of the first training samples, in batches of several."""
    count = min(samples, len(data.train))
    starts = range(0, count, _NORM_BATCH)
    rows = [torch.arange(start, min(start + _NORM_BATCH, count)) for start in starts]
    return [data.train.batch(part).inputs for part in rows if len(part) > 1]
