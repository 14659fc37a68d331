"""INSTA-BNN: binary activations whose threshold depends on each input.

Lee, Kim, Park and Kim, "INSTA-BNN: Binary Neural Network with INSTAnce-aware Threshold", 2022,
arXiv 2204.07439.

    y = +1 where x >= T_nc, else -1,   T_nc = a_c q_nc + b_c,   q_nc = mean of x^3 over the map

One threshold for each sample n and channel c follows that sample's own statistics; a and b are
learnt. Weights are binary as in `binarized_network`. Where a is 0 the threshold is static, and the
packer folds it into an integer threshold.

Shapes: any model whose activations are modules on maps [batch, channels, *map].
What of this is our reconstruction: see the card `insta_bnn.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.core.data import Data
from whit.core.options import check_flag, nearest, require
from whit.core.procedure import WeightUse
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable
from whit.parts.activation_maps import ActivationMap, activation_maps
from whit.parts.binary_layers import (
    ACTIVATIONS,
    PADDINGS,
    BinaryWeight,
    Padding,
    layers_to_binarize,
    pad_binary_inputs,
    padding_readers,
    sign_activations,
)
from whit.parts.instance_thresholds import (
    InstancePReLU,
    InstanceThreshold,
    Statistic,
    check_instance_options,
)
from whit.parts.levels import SCALES, Scale
from whit.parts.straight_through import Gradient, Sign, check_sign
from whit.parts.surgery import bake, swap_modules
from whit.procedures.binary_networks import Ends, check_choice, check_ends, real_ends
from whit.procedures.latent_weights import ClipLatentWeights

MOST_NAMED = 3
REDUCTION = 16


@dataclass(frozen=True)
class Instance:
    """How thresholds follow their input, and which do.

    Attributes:
        statistic: of a map: "cubic", "mean", "variance" or "mean_variance".
        plus: let a channel's threshold see the statistics of the others (INSTA-Th+).
        reduction: hidden units of `plus` are channels / reduction, at least 8; >= 1.
        detach: statistics get no gradient.
        prelu: put an `InstancePReLU` before each of these signs.
        smallest_map: values of a map below which an activation becomes a plain sign, >= 2; few
            values give noisy statistics.
        activations: paths of the activations to treat; empty for all whose map is large enough.
        window: the gradient passes where |x - T| <= window, > 0.
        gradient: "ste" or "approxsign".

    Raises:
        SpecError: an option is out of range.
    """

    statistic: Statistic = "cubic"
    plus: bool = False
    reduction: int = REDUCTION
    detach: bool = False
    prelu: bool = False
    smallest_map: int = 9
    activations: tuple[str, ...] = ()
    window: float = 1.0
    gradient: Gradient = "ste"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_instance_options(self.statistic, self.reduction)
        check_sign(self.window, self.gradient)
        for name in ("plus", "detach", "prelu"):
            check_flag(name, getattr(self, name))
        require(
            self.plus or self.reduction == REDUCTION,
            f"reduction={self.reduction!r} has no effect without plus=True: leave it out.",
        )
        least = self.smallest_map
        require(
            isinstance(least, int) and not isinstance(least, bool) and least >= 2,
            f"smallest_map was given {least!r}; expected a whole number of values, 2 or more "
            "(one value is its own mean).",
        )
        check_paths(self.activations)

    def made(self, channels: int) -> nn.Module:
        """Return the module that takes the place of one activation."""
        threshold = InstanceThreshold(
            channels,
            self.statistic,
            self.plus,
            self.reduction,
            self.detach,
            self.window,
            self.gradient,
        )
        if not self.prelu:
            return threshold
        # The cubic moment is for the sign; a shift asks where the values lie.
        return nn.Sequential(InstancePReLU(channels, detach=self.detach), threshold)


def check_paths(activations: object) -> None:
    """Refuse anything but a list or tuple of paths.

    Raises:
        SpecError: it is something else.
    """
    paths = activations if isinstance(activations, list | tuple) else [None]
    require(
        all(isinstance(path, str) for path in paths),
        f"activations was given {activations!r}; expected a list of paths, ['relu1'].",
    )


def instance_binarize(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    *,
    how: Instance = Instance(),
    scale: Scale = "channel",
    padding: Padding = "minus_one",
    skip: Sequence[str] = (),
) -> nn.Module:
    """Make a model binary, in place, with instance-aware thresholds; return it.

    Other activations, on vectors and small maps, become plain signs.

    Args:
        model: its activations on maps are modules (calls of functions have no place for learnt
            thresholds and become plain signs).
        example: what the model is called with, or a tuple of its inputs; says how large maps are.
        how: the thresholds, and which activations get one.
        scale: of the weights: "none", "layer" or "channel".
        padding: what convolutions with binary input pad with: "minus_one", "plus_one" or "zero".
        skip: paths or child names of layers whose weights stay real.

    Raises:
        NotApplicable: no activation works on a map that is large enough, or one that was named
            does not.
        NoEffect: no layer to make binary.
        SpecError: an option is out of range, or the weights are quantised already.
    """
    check_choice("scale", scale, SCALES)
    check_choice("padding", padding, tuple(PADDINGS))
    layers = layers_to_binarize(model, "insta_bnn", skip)
    inputs = example if isinstance(example, tuple) else (example,)
    channels = _chosen(activation_maps(model, ACTIVATIONS, inputs), how)
    readers = padding_readers(model, PADDINGS[padding], inputs)
    swap_modules(model, lambda m: id(m) in channels, lambda m: how.made(channels[id(m)]))
    sign_activations(model, Sign(how.window, how.gradient))
    pad_binary_inputs(model, PADDINGS[padding], readers)
    for _, layer in layers:
        parametrize.register_parametrization(layer, "weight", BinaryWeight(scale))
    return model


def _chosen(found: Sequence[ActivationMap], how: Instance) -> dict[int, int]:
    """Return the channels of each activation to treat, by `id` of its module."""
    named = {one.path: one for one in found}
    for path in how.activations:
        require(path in named, f"activations names '{path}'. {nearest(path, named)}")
    wanted = [one for one in found if not how.activations or one.path in how.activations]
    reasons = {one.path: one.unfit(how.smallest_map) for one in wanted}
    refused = [f"'{path}' {reason}" for path, reason in reasons.items() if reason]
    if len(refused) == len(wanted) or (how.activations and refused):
        more = len(refused) - MOST_NAMED
        said = "; ".join(refused[:MOST_NAMED]) or "the model has no activation modules"
        said += f"; and {more} more" if more > 0 else ""
        smaller = any(not one.unfit(2) for one in wanted if reasons[one.path])
        raise NotApplicable(
            f"insta_bnn needs activation modules on maps [batch, channels, height, width]: {said}. "
            f"Use binarized_network{', or a smaller smallest_map' * smaller}."
        )
    return {id(one.module): one.shapes[0][0] for one in wanted if not reasons[one.path]}


@technique
def insta_bnn(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    statistic: Statistic = "cubic",
    plus: bool = False,
    reduction: int = REDUCTION,
    detach: bool = False,
    prelu: bool = False,
    smallest_map: int = 9,
    activations: Sequence[str] = (),
    window: float = 1.0,
    gradient: Gradient = "ste",
    scale: Scale = "channel",
    padding: Padding = "minus_one",
    first: Ends = "binary",
    last: Ends = "binary",
) -> Technique:
    """Train a binary network whose thresholds follow the statistics of each sample.

    Args:
        statistic: of a map: "cubic" (mean of x^3), "mean", "variance" or "mean_variance".
        plus: let a channel's threshold see the statistics of the others.
        reduction: hidden units of `plus` are channels / reduction, at least 8; >= 1.
        detach: statistics get no gradient.
        prelu: put a shifted PReLU, with shifts that follow the sample, before each of these signs.
        smallest_map: values of a map below which an activation becomes a plain sign, >= 2.
        activations: paths of the activations to treat; empty for all whose map is large enough.
        window: the gradient passes where |x - T| <= window, > 0.
        gradient: of the sign, "ste" or "approxsign".
        scale: of the weights: "none", "layer" or "channel".
        padding: of convolutions with binary input: "minus_one", "plus_one" or "zero".
        first: weights of the first layer, "binary" (its input stays real) or "real".
        last: weights of the last layer, "binary" or "real".
    """
    check_paths(activations)
    how = Instance(
        statistic=statistic,
        plus=plus,
        reduction=reduction,
        detach=detach,
        prelu=prelu,
        smallest_map=smallest_map,
        activations=tuple(activations),
        window=window,
        gradient=gradient,
    )
    check_ends(first, last)
    check_choice("scale", scale, SCALES)
    check_choice("padding", padding, tuple(PADDINGS))

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        skip = real_ends(model, first, last)
        example = data.train.batch(torch.arange(min(2, len(data.train)))).inputs
        return instance_binarize(model, example, how=how, scale=scale, padding=padding, skip=skip)

    return Technique(
        prepare_model=prepare,
        hooks=(ClipLatentWeights,),
        finish_model=lambda model, data: bake(model),
        # The matrices of `plus` are real.
        weights=WeightUse(2 if first == last == "binary" and not plus else None),
    )
