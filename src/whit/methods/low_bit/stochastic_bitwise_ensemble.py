"""Stochastic bitwise ensembles: several networks of few-valued weights drawn from one real network.

Vogel, Schorn, Guntoro and Ascheid, "Efficient Stochastic Inference of Bitwise Deep Neural
Networks", 2016, arXiv 1611.06539. Only its abstract was read; training follows BinaryConnect
(Courbariaux, Bengio and David, 2015, arXiv 1511.00363).

    training    w_b drawn in every forward call with E[w_b] = w, gradient of w_b to w
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
from whit.core.hook import Hook, Plan
from whit.core.options import check_flag, nearest, require
from whit.core.procedure import AfterTraining, WeightUse, train_once
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NoEffect, NotApplicable, SpecError
from whit.measure.meter import forward_macs
from whit.parts.combine_members import Combine, Output
from whit.parts.group import Group
from whit.parts.level_draws import Coin, RandomCoin, RegisterCoin, draw_network
from whit.parts.levels import (
    ROUNDINGS,
    SCALES,
    Levels,
    Rounding,
    Scale,
    add_levels,
    check_values,
    latent_limit,
    spread_latent,
)
from whit.parts.linear_feedback_shift_register import TAPS, ShiftRegister
from whit.parts.masks import Mask
from whit.parts.norm_statistics import reestimate_norms
from whit.parts.stochastic_firing import StochasticFire
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
    if any(isinstance(module, StochasticFire) for module in model.modules()):
        raise SpecError(
            "ternary_network makes one network of fixed weights, from which no members can be "
            "drawn. Use the two in separate runs."
        )
    for path, layer in weighted_layers(model, skip):
        _require_real(path, layer)
        if scale == "none":
            _spread(layer.weight, torch.tensor(check_values(values)))
        add_levels(layer, Levels(values, scale, rounding))
    return model


def _require_real(path: str, layer: nn.Module) -> None:
    for step in weight_parametrizations(layer):
        if isinstance(step, Mask):
            raise SpecError(
                f"The weight of layer '{path}' is pruned already. Write "
                "stochastic_bitwise_ensemble() first in the sum: 'stochastic_bitwise_ensemble() + "
                "one_cycle_pruning()'."
            )
        raise SpecError(
            f"The weight of layer '{path}' has a {type(step).__name__} already. One technique of a "
            "sum can choose the weights' values."
        )


def _spread(weight: Tensor, values: Tensor) -> None:
    """Spread fresh weights over the values and keep them in their range, where the mean is w."""
    spread_latent(weight, values)
    with torch.no_grad():
        weight.clamp_(float(values[0]), float(values[-1]))


def coin(seed: int, member: int, *, register: int | None = None, antithetic: bool = False) -> Coin:
    """Return the chance of one member of an ensemble.

    Args:
        seed: of the ensemble, >= 0.
        member: its number, from 0.
        register: bits of the shift register (4, 8 or 16) that rounds as small hardware does; None
            for a generator. Each member, or antithetic pair, starts in a state of its own, so there
            are no more of them than states: 15, 255 or 65,535.
        antithetic: members 2j and 2j + 1 use u and 1 - u.

    Raises:
        SpecError: an option is out of range.
    """
    _check_whole("member", member, 0)
    _check_draws(member + 1, seed, register, antithetic)
    number, mirrored = (member // 2, bool(member % 2)) if antithetic else (member, False)
    if register is None:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        return RandomCoin(generator, mirrored)
    # Without repetition: two members that start in the same state would be the same network.
    states = (1 << register) - 1
    order = torch.randperm(states, generator=torch.Generator().manual_seed(seed))
    return RegisterCoin(ShiftRegister(register, 1 + int(order[number])), mirrored)


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
    _check_draws(members, seed, register, antithetic)
    return Group(
        [
            draw_network(model, coin(seed, m, register=register, antithetic=antithetic))
            for m in range(members)
        ]
    )


def _check_whole(name: str, value: object, least: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(whole, f"{name} was given {value!r}; expected a whole number >= {least}.")


def _check_draws(
    members: int, seed: int, register: int | None, antithetic: bool, seed_name: str = "seed"
) -> None:
    _check_whole("members", members, 1)
    _check_whole(seed_name, seed, 0)
    check_flag("antithetic", antithetic)
    if register is None:
        return
    known = ", ".join(map(str, TAPS))
    require(
        not isinstance(register, bool) and register in TAPS,
        f"register was given {register!r}; expected the bits of a shift register ({known}), or "
        "None.",
    )
    most = ((1 << register) - 1) * (2 if antithetic else 1)
    require(
        members <= most,
        f"{members} members were asked of a shift register of {register} bits, which has "
        f"{(1 << register) - 1} states to start in: at most {most:,} members differ. Use a wider "
        "register, or register=None.",
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
    _check_draws(members, draw, register, antithetic, "draw")
    combine = Combine(output)
    _check_whole("reestimate", reestimate, 0)

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
        first_sample = run.data.train.batch(torch.zeros(1, dtype=torch.int64)).inputs
        sample = [x.to(run.device.torch) for x in first_sample]
        count = sum(map(len, _rows(run.data, reestimate)))
        with run.meter.training(model):
            run.meter.add_macs(members * count * forward_macs(model, *sample))
        return model

    return Technique(
        prepare_model=prepare,
        hooks=(_clip,),
        train=AfterTraining(charge) if reestimate else train_once,
        finish_model=finish,
        weights=WeightUse(draws=True),
    )


def _clip(model: nn.Module, plan: Plan) -> Hook:
    return ClipLatentWeights(model, plan, latent_limit(model))


def _batches(data: Data, samples: int) -> list[tuple[Tensor, ...]]:
    """Return the inputs of the first training samples, in batches of several."""
    return [data.train.batch(rows).inputs for rows in _rows(data, samples)]


def _rows(data: Data, samples: int) -> list[Tensor]:
    """Return the numbers of those samples, batch by batch."""
    count = min(samples, len(data.train))
    starts = range(0, count, _NORM_BATCH)
    rows = [torch.arange(start, min(start + _NORM_BATCH, count)) for start in starts]
    return [part for part in rows if len(part) > 1]
