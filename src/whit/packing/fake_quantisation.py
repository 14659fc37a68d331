"""Fake quantisation of torch, which torch.export does not know, as multiply, round and clamp."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whit.errors import CannotPack
from whit.parts.surgery import swap_modules

_NAMES = ("input", "scale", "zero_point", "quant_min", "quant_max")
_CHANNEL_NAMES = ("input", "scale", "zero_point", "axis", "quant_min", "quant_max")


class FakeQuantisationInSteps(TorchFunctionMode):
    """Replace the fake quantisation functions, and remember the first function that failed.

    Attributes:
        failed: name of the function, for messages; "" where none did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed = ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, or its replacement."""
        kwargs = kwargs or {}
        if func is torch.fake_quantize_per_tensor_affine:
            return fake_quantized(**{**dict(zip(_NAMES, args, strict=False)), **kwargs})
        if func is torch.fake_quantize_per_channel_affine:
            return _by_channel(**{**dict(zip(_CHANNEL_NAMES, args, strict=False)), **kwargs})
        try:
            return func(*args, **kwargs)
        except Exception:
            self.failed = self.failed or getattr(func, "__name__", str(func))
            raise


def fake_quantized(
    input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Tensor:
    """Return what torch.fake_quantize_per_tensor_affine returns, by operators of its own.

    Args:
        input: any shape.
        scale: > 0, a number or a tensor that broadcasts.
        zero_point: likewise.
        quant_min: lowest integer.
        quant_max: highest integer.
    """
    inverse = 1.0 / scale
    low, high = quant_min - zero_point, quant_max - zero_point
    result: Tensor = torch.clamp(torch.round(input * inverse), low, high) * scale
    return result


def _by_channel(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    shape = [-1 if k == axis % input.dim() else 1 for k in range(input.dim())]
    zeros = zero_point.reshape(shape)
    return fake_quantized(input, scale.reshape(shape), zeros, quant_min, quant_max)


class _Fixed(nn.Module):
    """What a FakeQuantize module of torch.ao does once its observer is off."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.register_buffer("scale", module.scale.detach().clone())
        self.register_buffer("zero_point", module.zero_point.detach().clone())
        self.limits = (
            int(module.activation_post_process.quant_min),
            int(module.activation_post_process.quant_max),
        )
        self.axis = int(module.ch_axis)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale.numel() == 1:
            return fake_quantized(x, self.scale, self.zero_point, *self.limits)
        return _by_channel(x, self.scale, self.zero_point, self.axis, *self.limits)


def fix_fake_quantisation(model: nn.Module) -> nn.Module:
    """Replace, in place, FakeQuantize modules of torch.ao by their present scales.

    They choose by flags in tensors whether to observe and to round, and torch.export cannot follow
    that.

    Raises:
        CannotPack: an observer is on, so that the scale depends on the batch.
    """
    for path, module in model.named_modules():
        if _is_fake_quantize(module) and bool(module.observer_enabled.any()):
            raise CannotPack(
                "its observer is on, so its scale changes with each batch; call "
                "model.apply(torch.ao.quantization.disable_observer)",
                path,
                type(module).__name__,
            )
    swap_modules(model, _is_fake_quantize, _fixed)
    return model


def _is_fake_quantize(module: nn.Module) -> bool:
    names = ("fake_quant_enabled", "observer_enabled", "activation_post_process", "zero_point")
    return all(hasattr(module, name) for name in names)


def _fixed(module: nn.Module) -> nn.Module:
    return _Fixed(module) if bool(module.fake_quant_enabled.any()) else nn.Identity()  # type: ignore[operator]
