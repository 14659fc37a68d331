"""Make layers and activations of a model binary, in place: what binary networks have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from whit.errors import NoEffect, SpecError
from whit.parts.activation_functions import RELU_LIKE, calling_module, require_uses
from whit.parts.functional_activations import Replacement, swap_functional_activations
from whit.parts.instance_thresholds import InstanceThreshold
from whit.parts.levels import Levels, Rounding, Scale, find_levels
from whit.parts.masks import find_masks
from whit.parts.sign_readers import sign_readers
from whit.parts.stochastic_firing import StochasticFire
from whit.parts.straight_through import Sign, straight_through_sign
from whit.parts.surgery import WEIGHTED, WeightedLayer, swap_modules, weighted_layers

Padding = Literal["minus_one", "plus_one", "zero"]
PADDINGS = {"minus_one": -1.0, "plus_one": 1.0, "zero": 0.0}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONSTANT_PADS: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConstantPad1d,
    2: nn.ConstantPad2d,
    3: nn.ConstantPad3d,
}
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
# What techniques put in the place of activations.
REPLACED = (Sign, InstanceThreshold, StochasticFire)


class BinaryWeight(Levels):
    """Parametrisation w -> scale * b(w): levels -1 and +1, with b(0) = +1.

    Args:
        scale: "none" (+1 and -1), "layer" (mean |w| of the tensor), "channel" (mean |w| per output
            channel, as in XNOR-Net); means are rounded to 8 significant bits.
        rounding: "nearest" (the sign), or "stochastic": in training mode +1 with probability
            clip((w / scale + 1) / 2, 0, 1).
    """

    def __init__(self, scale: Scale = "channel", rounding: Rounding = "nearest") -> None:
        """Levels -1 and +1."""
        super().__init__("binary", scale, rounding)


def binary_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose weight carries binary levels."""
    found = [(m, find_levels(m)) for m in model.modules() if isinstance(m, WEIGHTED)]
    return [m for m, levels in found if levels is not None and len(levels.values) == 2]


def layers_to_binarize(
    model: nn.Module, name: str, skip: Sequence[str] = (), weights: bool = True
) -> list[tuple[str, WeightedLayer]]:
    """Return (path, module) of the layers to make binary.

    Args:
        model: any module.
        name: of the technique, for messages.
        skip: paths or child names of layers to leave out.
        weights: their weights are to become binary, not their inputs alone.

    Raises:
        NoEffect: no layer is left.
        SpecError: the weights are pruned or quantised already, or have no size yet.
    """
    layers = weighted_layers(model, skip)
    if find_masks(model):
        raise SpecError(
            f"{name} comes after a pruning technique in the sum: the sign of a pruned weight is "
            f"+1, so its zeros would be lost. Write {name}() first: "
            f"'{name}() + one_cycle_pruning()'."
        )
    for path, layer in layers if weights else []:
        if parametrize.is_parametrized(layer, "weight"):
            raise SpecError(
                f"The weight of layer '{path}' is quantised already, by an earlier technique or "
                f"call, and its levels would be lost. Use {name} or that one, not both."
            )
        if is_lazy(layer.weight):
            raise SpecError(
                f"Layer '{path}' is lazy: its weight has no size before the first forward call. "
                f"Call the model once on an example, model(x), before {name}."
            )
    return layers


def has_activation_modules(model: nn.Module) -> bool:
    """Say whether a model has activation modules that a sign can stand for."""
    return any(isinstance(module, ACTIVATIONS) for module in model.modules())


def require_activations(
    model: nn.Module, example: Tensor | tuple[Tensor, ...] | None, otherwise: str
) -> None:
    """Check that a model has activations, as modules or as calls in its forward.

    Args:
        model: any module; one without activation modules is run once.
        example: what it is called with, or a tuple of its inputs.
        otherwise: advice at the end of the message, such as "use activations=False".

    Raises:
        NoEffect: it has none, none is seen without an example, or another technique replaced them.
        WhitError: the model fails on the example.
    """
    if has_activation_modules(model):
        return
    replaced = [path for path, module in model.named_modules() if isinstance(module, REPLACED)]
    if replaced:
        kind = type(model.get_submodule(replaced[0])).__name__
        raise NoEffect(
            "The activations of this model are replaced already, by an earlier technique or call: "
            f"'{replaced[0]}' is a {kind}. Use one technique for activations; else {otherwise}."
        )
    if example is None:
        raise NoEffect(
            "The model has no activation module (torch.nn.ReLU and the like). Where its forward "
            "calls torch.relu or the like, give an example of its input, example=x, so that this "
            f"can be seen; else {otherwise}."
        )
    require_uses(model, example if isinstance(example, tuple) else (example,), RELU_LIKE)


def sign_activations(model: nn.Module, sign: Sign) -> None:
    """Swap activation modules, and calls of `torch.relu` and its likes, for signs.

    Args:
        model: any module.
        sign: with the options of all of them.
    """

    def same(_: nn.Module) -> Sign:
        return Sign(sign.window, sign.gradient, sign.rounding)

    swap_modules(model, lambda m: isinstance(m, ACTIVATIONS), same)
    apply = partial(_sign_of_call, sign=sign) if sign.rounding == "stochastic" else sign
    calls = Replacement(apply, in_place=_sign_in_place)
    swap_functional_activations(model, dict.fromkeys(RELU_LIKE, calls))


def _sign_of_call(x: Tensor, sign: Sign) -> Tensor:
    # This sign belongs to no model, so only the module that calls it knows whether it is trained.
    caller = calling_module()
    rounding = sign.rounding if caller is not None and caller.training else "nearest"
    return straight_through_sign(x, sign.window, sign.gradient, rounding)


def _sign_in_place(x: Tensor) -> None:
    # Operators that the packer recognises as a sign; a copy into x it does not.
    x.ge_(0).mul_(2).sub_(1)


def drop_activations(model: nn.Module) -> None:
    """Swap activation modules, and calls of `torch.relu` and its likes, for nothing."""
    swap_modules(model, lambda m: isinstance(m, ACTIVATIONS), lambda _: nn.Identity())
    calls = Replacement(torch.clone, in_place=_left_alone)
    swap_functional_activations(model, dict.fromkeys(RELU_LIKE, calls))


def _left_alone(x: Tensor) -> None:
    pass


def padding_readers(
    model: nn.Module, value: float, inputs: Sequence[Tensor] | None
) -> list[nn.Module]:
    """Return the layers that read nothing but signs once the activations are signs.

    Args:
        model: its activations are still there; it runs once, unless nothing would be padded anew.
        value: to pad with; 0 leaves all as it is.
        inputs: as `parts.sign_readers.sign_readers` takes them.
    """
    padded = [m for m in model.modules() if isinstance(m, CONVOLUTIONS) and pads_zeros(m)]
    return sign_readers(model, ACTIVATIONS, inputs) if padded and value != 0 else []


def pad_binary_inputs(model: nn.Module, value: float, readers: Sequence[nn.Module]) -> None:
    """Let the zero-padding convolutions among some layers pad with a value instead.

    Args:
        model: is changed in place.
        value: +1 or -1.
        readers: the layers whose input is signs, see `parts.sign_readers`.
    """
    chosen = {id(layer) for layer in readers}

    def matches(module: nn.Module) -> bool:
        return isinstance(module, CONVOLUTIONS) and id(module) in chosen and pads_zeros(module)

    def padded(module: nn.Module) -> nn.Module:
        assert isinstance(module, CONVOLUTIONS)
        return nn.Sequential(OrderedDict(pad=taken_padding(module, value), conv=module))

    swap_modules(model, matches, padded)


def pads_zeros(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Say whether a convolution pads its input with zeros."""
    return conv.padding_mode == "zeros" and any(padding_sides(conv))


def taken_padding(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, value: float) -> nn.Module:
    """Take the padding away from a convolution; return a module that pads with a value.

    Args:
        conv: pads with zeros; is changed.
        value: to pad with.
    """
    pad = CONSTANT_PADS[len(conv.kernel_size)](tuple(padding_sides(conv)), value)
    conv.padding = (0,) * len(conv.kernel_size)
    return pad


def padding_sides(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Return what a convolution pads, last axis first, as `torch.nn.functional.pad` takes it.

    Read from `padding`, which tells the truth also after `taken_padding`; what torch keeps beside
    it for other modes than zeros does not.
    """
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [(total // 2, total - total // 2) for total in whole]
    elif isinstance(conv.padding, str):
        sides = []
    else:
        sides = [(int(p), int(p)) for p in conv.padding]
    return [amount for pair in reversed(sides) for amount in pair]
