"""Weights from any finite set of values, trained by gradients on latent ones.

    w_q = s V[level of w / s],   dL/dw = s dL/dw_q + dL/ds ds/dw,   w <- clip(w, -limit, limit)

With {-1, 1} and the scale mean |w| these are the weights of XNOR-Net (Rastegari et al. 2016, arXiv
1603.05279), with {-1, 0, 1} nearly those of Ternary Weight Networks (Li and Liu 2016, arXiv
1605.04711), with {0, +-1, +-2, +-4} powers of two (Zhou et al. 2017, arXiv 1702.03044), and with
stochastic rounding those of BinaryConnect (Courbariaux et al. 2015, arXiv 1511.00363). Activations
stay real.

Shapes: any `nn.Linear` or `nn.Conv1d/2d/3d`; weights keep their shape.

Deviations from the papers: see the card `finite_set_weights.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.core.data import Data
from whit.core.options import nearest, require
from whit.core.procedure import WeightUse
from whit.core.technique import Technique, technique
from whit.errors import SpecError
from whit.parts.levels import (
    Levels,
    Rounding,
    Scale,
    add_levels,
    are_whole,
    check_values,
    latent_limit,
    spread_latent,
)
from whit.parts.masks import find_masks
from whit.parts.surgery import bake, weighted_layers
from whit.procedures.binary_networks import real_ends
from whit.procedures.latent_weights import ClipLatentWeights

End = Literal["levels", "real"]
ENDS = ("levels", "real")


def take_from_set(
    model: nn.Module,
    values: object = "ternary",
    *,
    scale: Scale | None = None,
    rounding: Rounding = "nearest",
    skip: Sequence[str] = (),
) -> nn.Module:
    """Let a model's weights take the values of a set, in place, and return it.

    Use it before or after the optimiser is made: latent weights stay the parameters that they were.
    `ClipLatentWeights(model, limit=latent_limit(model))` keeps them where they can still move.

    Args:
        model: any module with linear or convolution layers.
        values: see `whit.parts.levels.check_values`.
        scale: of the values, see `whit.parts.levels.Levels`; None for one a channel where the
            values are whole numbers, else one a layer. With "none" the latent weights are first
            spread over the values: as a network starts, most would round to the same one.
        rounding: "nearest" or "stochastic".
        skip: paths or child names of layers whose weights stay real.

    Raises:
        NoEffect: no layer is left.
        SpecError: an option is out of range, or weights are quantised or pruned already.
    """
    scale = suitable_scale(values, scale)
    Levels(values, scale, rounding)
    if find_masks(model):
        raise SpecError(
            "finite_set_weights comes after a pruning technique in the sum: levels would lose its "
            "zeros. Write finite_set_weights() first: 'finite_set_weights() + one_cycle_pruning()'."
        )
    layers = weighted_layers(model, skip)
    for path, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            raise SpecError(
                f"The weight of layer '{path}' is quantised already. Use one such technique."
            )
    for _, layer in layers:
        if scale == "none":
            spread_latent(layer.weight, torch.tensor(check_values(values)))
        add_levels(layer, Levels(values, scale, rounding))
    return model


def suitable_scale(values: object, scale: Scale | None) -> Scale:
    """Return the kind of scale with which a set is stored in as many bits as it has.

    Raises:
        SpecError: scales by channel for values that are no whole numbers: each channel would have
            values of its own in the file, which no code book holds.
    """
    whole = are_whole(check_values(values))
    if scale == "channel" and not whole:
        raise SpecError(
            f"values={values!r} are no whole numbers, and with scale='channel' every channel would "
            "have other values in the file. Use scale='layer', or write them as whole numbers: "
            "[-4, -1, 0, 1, 4] for [-1, -0.25, 0, 0.25, 1]."
        )
    return scale or ("channel" if whole else "layer")


@technique
def finite_set_weights(
    *,
    values: str | int | Sequence[float] = "ternary",
    scale: Scale | None = None,
    rounding: Rounding = "nearest",
    first: End = "levels",
    last: End = "levels",
) -> Technique:
    """Train with weights from a finite set of values; activations stay real.

    Args:
        values: "binary", "ternary", "powers_of_two", a number k of evenly spaced values, or the
            values in ascending order.
        scale: of the values: "none", "layer" or "channel"; None for "channel" where the values are
            whole numbers, else "layer".
        rounding: of latent weights in training: "nearest" or "stochastic".
        first: weights of the first layer, "levels" or "real".
        last: weights of the last layer, "levels" or "real".
    """
    Levels(values, suitable_scale(values, scale), rounding)
    for name, value in (("first", first), ("last", last)):
        require(value in ENDS, f"{name} was given {value!r}. {nearest(str(value), ENDS)}")

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        skip = real_ends(model, first, last)
        return take_from_set(model, values, scale=scale, rounding=rounding, skip=skip)

    return Technique(
        prepare_model=prepare,
        hooks=(lambda model, plan: ClipLatentWeights(model, plan, latent_limit(model)),),
        finish_model=lambda model, data: bake(model),
        weights=WeightUse(_levels(values) if first == last == "levels" else None),
    )


def _levels(values: object) -> int:
    return sum(value != 0 for value in check_values(values))
