"""Binarized neural networks: weights and activations of +1 and -1.

Courbariaux, Hubara, Soudry, El-Yaniv and Bengio, "Binarized Neural Networks", 2016, arXiv
1602.02830.

    weight      w_b = scale * b(w),  b(x) = +1 if x >= 0 else -1   (so b(0) = +1)
    activation  a   = b(x),          da/dx = 1 where |x| <= window, else 0
    latent      w  <- clip(w, -1, 1) after each step; its gradient is that of w_b

A dot product of n such values is n - 2 popcount(w xor a); batch norm and sign fold into one integer
threshold a channel when the network is packed.

Shapes: any `nn.Linear` or `nn.Conv1d/2d/3d`; weights keep their shape.

Deviations from the paper: see the card `binarized_network.md`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.core.data import Data
from whit.core.hook import Hook, Plan
from whit.core.options import is_number, nearest, require
from whit.core.technique import Technique, technique
from whit.errors import NoEffect, SpecError
from whit.parts.activation_functions import RELU_LIKE, require_uses
from whit.parts.functional_activations import Replacement, swap_functional_activations
from whit.parts.masks import find_masks, latent_weight
from whit.parts.straight_through import Sign, straight_through_sign
from whit.parts.surgery import bake, swap_modules, weight_parametrizations, weighted_layers

Scale = Literal["none", "layer", "channel"]
Padding = Literal["minus_one", "plus_one", "zero"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONSTANT_PADS: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConstantPad1d,
    2: nn.ConstantPad2d,
    3: nn.ConstantPad3d,
}
SCALES = ("none", "layer", "channel")
PADDINGS = {"minus_one": -1.0, "plus_one": 1.0}
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Tanh,
    nn.Sigmoid,
)


class BinaryWeight(nn.Module):
    """Parametrisation w -> scale * b(w).

    Args:
        scale: "none" (+1 and -1), "layer" (mean |w| of the tensor), "channel" (mean |w| per output
            channel, as in XNOR-Net); means are rounded to 8 significant bits.
    """

    def __init__(self, scale: Scale = "channel") -> None:
        """Keep the kind of scale."""
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return binary weights; the gradient passes straight to the latent ones."""
        signs = straight_through_sign(weight, math.inf)
        if self.scale == "none":
            return signs
        if self.scale == "layer":
            return signs * _eight_bits(weight.abs().mean())
        mean = _eight_bits(weight.abs().flatten(1).mean(1))
        return signs * mean.reshape(-1, *[1] * (weight.dim() - 1))


def _eight_bits(scale: Tensor) -> Tensor:
    """Round to 8 significant bits, with the gradient of the unrounded scale.

    Sums of up to 2^16 such terms are exact in float32 in any order, so the packed network, which
    sums integers and scales once, gives the same bits as this one.
    """
    return scale.detach().to(torch.bfloat16).to(scale.dtype) + (scale - scale.detach())


def binarize(  # noqa: PLR0913 - the options of one technique, all by name
    model: nn.Module,
    *,
    weights: bool = True,
    activations: bool = True,
    scale: Scale = "channel",
    window: float = 1.0,
    padding: Padding = "minus_one",
    skip: Sequence[str] = (),
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> nn.Module:
    """Make a model's weights and activations binary, in place, and return it.

    Use it before the optimiser is made, or after: latent weights stay the parameters that they
    were.

    Args:
        model: any module with linear or convolution layers and activations.
        weights: put `BinaryWeight` on the layers.
        activations: swap activation modules (ReLU and the like) for `Sign`, and so calls of
            `torch.relu` and its likes in a `forward` of your own; calls of tanh and sigmoid, which
            are mostly gates or outputs, stay.
        scale: of the weights, see `BinaryWeight`.
        window: the activation's gradient passes where |x| <= window, > 0.
        padding: what convolutions with binary input pad with; "zero" is not binary and packs
            larger.
        skip: paths or child names of layers whose weights stay real.
        example: what the model is called with, or a tuple of its inputs. A model without
            activation modules is run on it once, to see that it calls activation functions.

    Raises:
        NoEffect: there is nothing to make binary.
        SpecError: an option is out of range, or the weights are binary or pruned already.
        WhitError: the model fails on the example.
    """
    _check_options(scale, window, padding)
    require(weights or activations, "weights and activations are both False: nothing would change.")
    layers = weighted_layers(model, skip)
    if find_masks(model):
        raise SpecError(
            "binarized_network comes after a pruning technique in the sum: the sign of a pruned "
            "weight is +1, so its zeros would be lost. Write binarized_network() first: "
            "'binarized_network() + one_cycle_pruning()'."
        )
    for path, layer in layers if weights else []:
        if parametrize.is_parametrized(layer, "weight"):
            raise SpecError(f"The weight of layer '{path}' is quantised already; binarize it once.")
    if activations and not _has_activation_modules(model):
        if example is None:
            raise NoEffect(
                "The model has no activation module (torch.nn.ReLU and the like). Where its "
                "forward calls torch.relu or the like, give an example of its input, example=x, so "
                "that this can be seen; else use activations=False."
            )
        require_uses(model, example if isinstance(example, tuple) else (example,), RELU_LIKE)
    if weights:
        for _, layer in layers:
            parametrize.register_parametrization(layer, "weight", BinaryWeight(scale))
    if activations:
        swap_modules(model, lambda m: isinstance(m, ACTIVATIONS), lambda _: Sign(window))
        calls = Replacement(Sign(window), in_place=_sign_in_place)
        swap_functional_activations(model, dict.fromkeys(RELU_LIKE, calls))
        if padding != "zero":
            _pad_binary_inputs(model, PADDINGS[padding])
    return model


def _has_activation_modules(model: nn.Module) -> bool:
    return any(isinstance(module, ACTIVATIONS) for module in model.modules())


def _sign_in_place(x: Tensor) -> None:
    # Operators that the packer recognises as a sign; a copy into x it does not.
    x.ge_(0).mul_(2).sub_(1)


def _check_options(scale: str, window: float, padding: str) -> None:
    require(scale in SCALES, f"scale was given {scale!r}. {nearest(str(scale), SCALES)}")
    known = (*PADDINGS, "zero")
    require(padding in known, f"padding was given {padding!r}. {nearest(str(padding), known)}")
    require(
        is_number(window) and window > 0, f"window was given {window!r}; expected a number > 0."
    )


def _pad_binary_inputs(model: nn.Module, value: float) -> None:
    """Let every zero-padding convolution but the first, whose input is real, pad with +1 or -1."""
    first = weighted_layers(model)[0][1]

    def matches(module: nn.Module) -> bool:
        return (
            isinstance(module, CONVOLUTIONS)
            and module is not first
            and module.padding_mode == "zeros"
            and any(_both_sides(module))
        )

    def padded(module: nn.Module) -> nn.Module:
        assert isinstance(module, CONVOLUTIONS)
        kind = CONSTANT_PADS[len(module.kernel_size)]
        pad = kind(tuple(_both_sides(module)), value)
        module.padding = (0,) * len(module.kernel_size)
        return nn.Sequential(OrderedDict(pad=pad, conv=module))

    swap_modules(model, matches, padded)


def _both_sides(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Return what a convolution pads, last axis first, as `torch.nn.functional.pad` takes it."""
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [(total // 2, total - total // 2) for total in whole]
    elif isinstance(conv.padding, str):
        sides = []
    else:
        sides = [(int(p), int(p)) for p in conv.padding]
    return [amount for pair in reversed(sides) for amount in pair]


def binary_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose weight carries `BinaryWeight`."""
    return [
        layer
        for layer in model.modules()
        if any(isinstance(p, BinaryWeight) for p in weight_parametrizations(layer))
    ]


class ClipLatentWeights(Hook):
    """Keeps latent weights within [-1, 1] and free of weight decay.

    Decay would pull them to 0, where they flip with the noise.

    Args:
        model: after `binarize`.
        plan: of the run; its optimiser's groups are split so that latent weights are not decayed.
            None, in one's own loop, leaves the optimiser alone.
    """

    def __init__(self, model: nn.Module, plan: Plan | None = None) -> None:
        """Collect the latent weights and take them out of weight decay."""
        self.latent = [latent_weight(layer) for layer in binary_layers(model)]
        if plan is not None:
            _exempt_from_decay(plan, self.latent)

    def after_step(self) -> None:
        """Clip."""
        for weight in self.latent:
            weight.data.clamp_(-1, 1)


def _exempt_from_decay(plan: Plan, weights: Sequence[Tensor]) -> None:
    exempt = {id(w) for w in weights}
    for group in list(plan.optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in exempt]
        if not moved or not group.get("weight_decay"):
            continue
        group["params"] = [p for p in group["params"] if id(p) not in exempt]
        plan.optimizer.add_param_group({**group, "params": moved, "weight_decay": 0.0})


@technique
def binarized_network(
    *,
    weights: bool = True,
    activations: bool = True,
    scale: Scale = "channel",
    window: float = 1.0,
    padding: Padding = "minus_one",
    first: Literal["binary", "real"] = "binary",
    last: Literal["binary", "real"] = "binary",
) -> Technique:
    """Train with weights and activations of +1 and -1.

    Args:
        weights: binary weights.
        activations: binary activations.
        scale: of the weights: "none", "layer" or "channel".
        window: the activation's gradient passes where |x| <= window, > 0.
        padding: of convolutions with binary input: "minus_one", "plus_one" or "zero".
        first: weights of the first layer, "binary" (its input stays real, as in the paper) or
            "real".
        last: weights of the last layer, "binary" or "real".
    """
    _check_options(scale, window, padding)
    for name, value in (("first", first), ("last", last)):
        known = ("binary", "real")
        require(value in known, f"{name} was given {value!r}. {nearest(str(value), known)}")
    require(weights or activations, "weights and activations are both False: nothing would change.")

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        paths = [path for path, _ in weighted_layers(model)]
        skip = paths[:1] * (first == "real") + paths[-1:] * (last == "real")
        if weights and len(skip) >= len(paths):
            raise NoEffect(
                f"The model has {len(paths)} layer{'s' * (len(paths) > 1)}, and first='real', "
                "last='real' leave none binary."
            )
        example = None
        if activations and not _has_activation_modules(model):
            example = data.train.batch(torch.arange(min(2, len(data.train)))).inputs
        return binarize(
            model,
            weights=weights,
            activations=activations,
            scale=scale,
            window=window,
            padding=padding,
            skip=tuple(skip) if weights else (),
            example=example,
        )

    return Technique(
        prepare_model=prepare,
        hooks=(ClipLatentWeights,) if weights else (),
        finish_model=lambda model, data: bake(model),
    )
