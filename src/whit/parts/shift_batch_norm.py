"""Shift-based batch norm: every product is one with a power of two.

Courbariaux et al. 2016 (formulas recalled, see the card `binarized_network.md`):

    AP2(z) = sign(z) 2^round(log2 |z|),  AP2(0) = 0
    c      = x - mean(x)
    v      = mean(c AP2(c))
    y      = AP2(gamma) AP2(1 / sqrt(v + eps)) c + beta

The gradient passes through AP2 as through the identity (our reconstruction).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whit.errors import NoEffect, SpecError
from whit.parts.surgery import swap_modules


class _NearestPower(torch.autograd.Function):
    """Forward AP2; backward the gradient as it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _power_of_two(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _power_of_two(x: Tensor) -> Tensor:
    exponent = x.abs().log2().round()
    return torch.where(x == 0, 0.0, torch.exp2(exponent) * torch.sign(x)).to(x.dtype)


def power_of_two(x: Tensor) -> Tensor:
    """Return AP2(x), the power of two whose exponent is nearest, with the sign of x.

    It is within a factor of sqrt(2) of x; 0 stays 0. The gradient passes as it is.

    Shapes: any -> the same.
    """
    if not torch.is_grad_enabled():
        return _power_of_two(x)
    result: Tensor = _NearestPower.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Shift(nn.modules.batchnorm._BatchNorm):
    """What the three shift-based batch norms share; `running_var` holds v, not the variance."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by shifts: by the batch in training mode, by the running values otherwise."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        mean, spread = self._statistics(input) if self.training else self._running()
        shape = (1, -1, *[1] * (input.dim() - 2))
        factor = power_of_two(torch.rsqrt(spread + self.eps))
        if self.weight is not None:
            factor = factor * power_of_two(self.weight)
        result = (input - mean.reshape(shape)) * factor.reshape(shape)
        return result if self.bias is None else result + self.bias.reshape(shape)

    def _running(self) -> tuple[Tensor, Tensor]:
        return self.running_mean, self.running_var

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        others = [axis for axis in range(x.dim()) if axis != 1]
        if x.numel() == x.shape[1]:
            raise SpecError(
                "A shift-based batch norm in training mode was given one value per channel, shape "
                f"{list(x.shape)}; it needs at least 2 to normalise over. Use a larger batch."
            )
        mean = x.mean(others, keepdim=True)
        centred = x - mean
        mean, spread = mean.flatten(), (centred * power_of_two(centred)).mean(others)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share: Any = self.momentum
            if share is None:  # torch's convention for a plain average
                share = 1.0 / self.num_batches_tracked  # type: ignore[operator]
            self.running_mean.copy_(self.running_mean + share * (mean - self.running_mean))
            self.running_var.copy_(self.running_var + share * (spread - self.running_var))
        return mean, spread


class ShiftBatchNorm1d(_Shift, nn.BatchNorm1d):
    """Shift-based batch norm of [batch, channels] or [batch, channels, length].

    Arguments, parameters and buffers are those of `torch.nn.BatchNorm1d`.
    """


class ShiftBatchNorm2d(_Shift, nn.BatchNorm2d):
    """Shift-based batch norm of [batch, channels, height, width]; see `ShiftBatchNorm1d`."""


class ShiftBatchNorm3d(_Shift, nn.BatchNorm3d):
    """Shift-based batch norm of [batch, channels, depth, height, width]; see `ShiftBatchNorm1d`."""


_SHIFT_OF: dict[type[nn.Module], Any] = {
    nn.BatchNorm1d: ShiftBatchNorm1d,
    nn.BatchNorm2d: ShiftBatchNorm2d,
    nn.BatchNorm3d: ShiftBatchNorm3d,
}


def shift_batch_norms(model: nn.Module) -> list[str]:
    """Swap the batch norms of a model for shift-based ones, in place; return their paths.

    Parameters and running values are taken over.

    Args:
        model: with `nn.BatchNorm1d/2d/3d` somewhere inside.

    Raises:
        NoEffect: it has none.
        SpecError: one of them keeps no running values, so that its output in evaluation mode would
            depend on the batch.
    """
    for path, module in model.named_modules():
        if type(module) in _SHIFT_OF and module.running_mean is None:
            raise SpecError(
                f"The batch norm '{path}' has track_running_stats=False, so a sample's output "
                "depends on the others; a shift-based one needs running values."
            )
    swapped = swap_modules(model, lambda m: type(m) in _SHIFT_OF, _shifting)
    if not swapped:
        raise NoEffect(
            "batch_norm='shift' swaps batch norms (torch.nn.BatchNorm1d/2d/3d), and the model has "
            "none. Use batch_norm='real'."
        )
    return swapped


def _shifting(module: nn.Module) -> nn.Module:
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    made: nn.modules.batchnorm._BatchNorm = _SHIFT_OF[type(module)](
        module.num_features, module.eps, module.momentum, module.affine
    )
    # The very parameters, so that an optimiser made before trains them.
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(module, name))
    return made.train(module.training)
