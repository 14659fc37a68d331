"""Signs with straight-through gradients.

Courbariaux et al. 2016: b(x) = +1 if x >= 0 else -1, so b(0) = +1; the gradient passes where
|x| <= window (inclusive) and is zero elsewhere, that is the derivative of clip(x, -window, window).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def binary_sign(x: Tensor) -> Tensor:
    """Return +1 where x >= 0, else -1; never 0. Any shape, same dtype; no gradient."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class _StraightThroughSign(torch.autograd.Function):
    """Forward `binary_sign`; backward the gradient inside the window."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, window: float) -> Tensor:
        return binary_sign(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= ctx.window).to(gradient.dtype), None


def straight_through_sign(x: Tensor, window: float = 1.0) -> Tensor:
    """Return the sign of x (+1 at 0) with the straight-through gradient.

    Args:
        x: any shape.
        window: the gradient passes where |x| <= window; `math.inf` lets it always pass.
    """
    if not torch.is_grad_enabled():
        return binary_sign(x)
    result: Tensor = _StraightThroughSign.apply(x, window)  # type: ignore[no-untyped-call]
    return result


class Sign(nn.Module):
    """Binary activation: +1 or -1, straight-through gradient inside the window.

    Args:
        window: > 0.

    Shapes: any -> the same.
    """

    def __init__(self, window: float = 1.0) -> None:
        """Keep the window."""
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs."""
        return straight_through_sign(x, self.window)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"window={self.window}"
