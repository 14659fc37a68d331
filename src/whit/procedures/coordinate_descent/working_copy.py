"""The model and the data that the scorer works on: float64, evaluation mode, nothing in place."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from whit.parts.surgery import swap_modules
from whit.procedures.coordinate_descent.channels import BatchNorm, ChannelNorm


def as_float64(tensor: Tensor) -> Tensor:
    """Return measurements as float64; int64 (classes, indices) as they are."""
    return tensor if tensor.dtype == torch.int64 else tensor.double()


def as_target(target: Tensor) -> Tensor:
    """Return numbers as float64 and classes as int64."""
    return target.double() if target.is_floating_point() else target.long()


def working_copy(model: nn.Module, batch_statistics: bool) -> nn.Module:
    """Return a model in float64 and evaluation mode to work on, without the hooks of its own.

    Args:
        model: is left as it is.
        batch_statistics: see `ChannelNorm`.
    """
    twin = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    twin._forward_pre_hooks.clear()  # the meter's: it would charge this copy
    for module in twin.modules():
        if getattr(module, "inplace", False) is True:
            module.__dict__["inplace"] = False  # would change values that are kept

    def replacement(norm: nn.Module) -> nn.Module:
        assert isinstance(norm, BatchNorm)
        return ChannelNorm(norm, batch_statistics)

    swap_modules(twin, lambda module: isinstance(module, BatchNorm), replacement)
    return twin
