"""The model and the data that the scorer works on: float64, evaluation mode, nothing in place."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from whit.errors import SpecError
from whit.measure import meter
from whit.parts.surgery import swap_modules
from whit.procedures.coordinate_descent.channels import BatchNorm, ChannelNorm
from whit.procedures.coordinate_descent.finite import require_finite


def as_float64(tensor: Tensor) -> Tensor:
    """Return measurements as float64; int64 (classes, indices) as they are."""
    return tensor if tensor.dtype == torch.int64 else tensor.double()


def as_target(target: Tensor) -> Tensor:
    """Return numbers as float64 and classes as int64."""
    return target.double() if target.is_floating_point() else target.long()


def as_samples(inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and targets as the scorer takes them.

    Shapes: [samples, ...], [samples, ...] -> the same.

    Raises:
        SpecError: they are no tensors, are not as many, or hold NaN or infinite numbers.
    """
    for name, given in (("inputs", inputs), ("targets", target)):
        if not isinstance(given, Tensor):
            raise SpecError(
                f"The {name} are a {type(given).__name__}; expected a torch.Tensor [samples, ...]."
            )
        require_finite(given, name.removesuffix("s"))
    if inputs.dim() == 0 or target.dim() == 0 or len(inputs) != len(target) or len(target) == 0:
        counts = [0 if t.dim() == 0 else len(t) for t in (inputs, target)]
        raise SpecError(
            f"{counts[0]} inputs and {counts[1]} targets were given; expected as many of both, at "
            "least one."
        )
    return as_float64(inputs), as_target(target)


def working_copy(model: nn.Module, batch_statistics: bool) -> nn.Module:
    """Return a model in float64 and evaluation mode to work on; what it does is not charged.

    Args:
        model: is left as it is.
        batch_statistics: see `ChannelNorm`.
    """
    twin = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    for number, hook in list(twin._forward_pre_hooks.items()):
        if isinstance(hook, meter.ForwardCounter):  # it would charge this copy
            del twin._forward_pre_hooks[number]
    for module in twin.modules():
        if getattr(module, "inplace", False) is True:
            module.__dict__["inplace"] = False  # would change values that are kept

    def replacement(norm: nn.Module) -> nn.Module:
        assert isinstance(norm, BatchNorm)
        return ChannelNorm(norm, batch_statistics)

    swap_modules(twin, lambda module: isinstance(module, BatchNorm), replacement)
    return twin


def hooks_of(module: nn.Module) -> list[object]:
    """Return the hooks on a module's forward call, but for that of the meter."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return [hook for hook in hooks if not isinstance(hook, meter.ForwardCounter)]
