"""BinaryDenseNet: a dense network whose 3 x 3 convolutions are binary, trained from scratch.

Bethge, Yang, Bornstein and Meinel, "Training Competitive Binary Neural Networks from Scratch",
2018, arXiv 1812.01965, and "Back to Simplicity: How to Train Accurate BNNs from Scratch?", 2019,
arXiv 1906.08637.

    stem         H >= 50: conv 7x7/2, batch norm, ReLU, max-pool 3x3/2;  smaller: conv 3x3
    dense layer  y = [x, conv3x3(b(norm(x)))]: k new channels behind those that came in
    transition   norm, max-pool 2x2, ReLU, real conv 1x1 to 32 round(floor(C / reduction) / 32)
    end          norm, ReLU, global mean, real linear layer

Weights and activations of the dense layers are +1 and -1, the stem, the 1x1 convolutions and the
last layer are real. Concatenation keeps what a layer of one bit would lose.

Shapes: [batch, channels, height, width] -> [batch, classes]; or, where a task asks for an image of
the input's size, -> [batch, outputs, height, width].

Deviations from the papers: see the card `binary_densenet.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.core.data import Data
from whit.core.options import is_number, require
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable, SpecError
from whit.parts.binary_layers import Padding
from whit.parts.dense_network import Architecture, BinaryDenseNet, Head, Transitions
from whit.parts.levels import Scale
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Gradient, Sign
from whit.parts.surgery import bake
from whit.procedures.binary_networks import check_choice
from whit.procedures.latent_weights import ClipLatentWeights

Variant = Literal["small", "28", "37", "37_dilated", "45"]
# Below, an image is as small as the 8 x 8 digits.
MANY_PIXELS = 400

VARIANTS = {
    "28": Architecture((6, 6, 6, 5), (2.7, 2.7, 2.2)),
    "37": Architecture((6, 8, 12, 6), (3.3, 3.3, 4.0)),
    "37_dilated": Architecture((6, 8, 12, 6), (3.3, 3.3, 4.0), dilations=(1, 1, 2, 4)),
    "45": Architecture((6, 12, 14, 8), (2.7, 3.3, 4.0)),
}


def small_architecture(pixels: int) -> Architecture:
    """Return sizes for small images; ours, not the papers'.

    Args:
        pixels: of one image; below 400 (8 x 8 digits) there are two small blocks.
    """
    if pixels < MANY_PIXELS:
        return Architecture((2, 2), (2.0,), growth=8, filters=16, multiple=8)
    return Architecture((3, 3, 3), (2.0, 2.0), growth=24, filters=24, multiple=8)


@technique
def binary_densenet(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    variant: Variant = "small",
    layers: Sequence[int] | None = None,
    growth: int | None = None,
    filters: int | None = None,
    reduction: float | None = None,
    window: float = 1.3,
    clip: float = 1.3,
    gradient: Gradient = "ste",
    padding: Padding = "plus_one",
    scale: Scale = "none",
    bottleneck: int = 0,
    transitions: Transitions = "real",
) -> Technique:
    """Put a BinaryDenseNet in the place of an image task's model, and train it from scratch.

    Args:
        variant: "28", "37", "37_dilated" or "45" of the papers (made for 224 x 224 pixels), or
            "small" for small images.
        layers: dense layers of each block; None for the variant's. With other layers than the
            variant's, each transition divides the channels by `reduction`, or by 2.
        growth: new channels of a dense layer; None for the variant's.
        filters: channels of the stem; None for the variant's.
        reduction: divisor of the channels in every transition, >= 1; None for the variant's.
        window: a sign's gradient passes where |x| <= window, > 0.
        clip: latent weights stay within [-clip, clip], > 0.
        gradient: of a sign, "ste" or "approxsign".
        padding: of binary convolutions, "plus_one", "minus_one" or "zero" (not binary).
        scale: of binary weights, "none", "layer" or "channel"; batch norm undoes it.
        bottleneck: 0, or a binary convolution 1x1 to bottleneck * growth channels comes first.
        transitions: "real", or "binary" convolutions 1x1.
    """
    check_choice("variant", variant, ("small", *VARIANTS))
    require(is_number(clip) and clip > 0, f"clip was given {clip!r}; expected a finite number > 0.")

    _check_blocks(layers, reduction)

    def plan(pixels: int) -> Architecture:
        base = small_architecture(pixels) if variant == "small" else VARIANTS[variant]
        blocks = base.layers if layers is None else tuple(layers)
        divisors = base.reductions
        if reduction is not None or len(blocks) != len(base.layers):
            divisors = (2.0 if reduction is None else reduction,) * (len(blocks) - 1)
        return replace(
            base,
            layers=blocks,
            reductions=divisors,
            dilations=base.dilations if len(blocks) == len(base.layers) else (),
            growth=base.growth if growth is None else growth,
            filters=base.filters if filters is None else filters,
            window=window,
            gradient=gradient,
            padding=padding,
            scale=scale,
            bottleneck=bottleneck,
            transitions=transitions,
        )

    plan(MANY_PIXELS)  # options out of range are said at the call

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        _refuse_changed(model)
        outputs, head = _outputs(model, data)
        channels, rows, columns = data.input_shape
        own = [module for module in model.modules() if isinstance(module, Normalise)]
        return BinaryDenseNet(
            plan(rows * columns), channels, outputs, (rows, columns), head, own[0] if own else None
        )

    return Technique(
        prepare_model=prepare,
        hooks=(lambda model, plan: ClipLatentWeights(model, plan, clip),),
        finish_model=lambda model, data: bake(model),
    )


def _check_blocks(layers: object, reduction: float | None) -> None:
    require(
        layers is None or isinstance(layers, list | tuple),
        f"layers was given {layers!r}; expected a list of numbers, [4, 4, 4].",
    )
    require(
        reduction is None or (is_number(reduction) and reduction >= 1),
        f"reduction was given {reduction!r}; expected a finite number, 1 or more.",
    )
    if isinstance(layers, list | tuple) and len(layers) == 1:
        require(
            reduction is None,
            f"reduction={reduction!r} has no effect with one block, layers={list(layers)}: "
            "transitions lie between blocks. Leave it out.",
        )


def _refuse_changed(model: nn.Module) -> None:
    changed = any(parametrize.is_parametrized(m) or isinstance(m, Sign) for m in model.modules())
    if changed:
        raise SpecError(
            "binary_densenet puts a network of its own in the place of the model, and what comes "
            "before it in the sum would be lost. Write it first: 'binary_densenet() + "
            "one_cycle_pruning()'."
        )


def _outputs(model: nn.Module, data: Data) -> tuple[int, Head]:
    """Return how many outputs a task asks for, and whether of an image or of each of its places.

    Raises:
        NotApplicable: the samples are no images, or the outputs are neither.
    """
    shape = data.input_shape
    batch = data.train.batch(torch.arange(min(2, len(data.train)))).inputs
    if len(batch) != 1 or len(shape) != 3 or batch[0].dtype == torch.int64:
        raise NotApplicable(
            "binary_densenet is a network for images [channels, height, width]; the samples of "
            f"this task are {list(shape)}, {len(batch)} input{'s' * (len(batch) > 1)}."
        )
    with torch.no_grad():
        found = tuple(model.eval()(*batch).shape[1:])
    if found == (data.output_size,):
        return data.output_size, "classes"
    if len(found) == 3 and found[1:] == shape[1:]:
        return found[0], "image"
    raise NotApplicable(
        f"binary_densenet gives one vector of {data.output_size} scores for an image, or an image "
        f"of the same size; the model of this task gives {list(found)} for each sample."
    )
