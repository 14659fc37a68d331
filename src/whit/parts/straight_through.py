"""Signs with the gradients that binary networks are trained with.

Courbariaux et al. 2016: b(x) = +1 if x >= 0 else -1, so b(0) = +1; or by chance, +1 with
probability clip((x + 1) / 2, 0, 1), so that the mean of many is clip(x, -1, 1).

    gradient "ste"         1 where |x| <= window, the derivative of clip(x, -window, window)
    gradient "approxsign"  2 - 2 |x| / window there, that of a parabola on each side
                           (Bi-Real net, Liu et al. 2018, with window 1)

Both are 0 elsewhere.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from whit.errors import SpecError

Gradient = Literal["ste", "approxsign"]
Rounding = Literal["nearest", "stochastic"]
GRADIENTS = ("ste", "approxsign")
ROUNDINGS = ("nearest", "stochastic")


def binary_sign(x: Tensor) -> Tensor:
    """Return +1 where x >= 0, else -1; never 0. Any shape, same dtype; no gradient."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class _StraightThrough(torch.autograd.Function):
    """Forward another value; backward the gradient as it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Return a value that was computed from x, with the gradient of x itself.

    Without gradients it is the value as it stands, so that the packer sees its operators.

    Shapes: both the same -> the same.
    """
    if not torch.is_grad_enabled():
        return value
    result: Tensor = _StraightThrough.apply(x, value)  # type: ignore[no-untyped-call]
    return result


class _StraightThroughSign(torch.autograd.Function):
    """Forward a sign, by chance where there is noise; backward the gradient inside the window."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, noise: Tensor | None, window: float, gradient: Gradient) -> Tensor:
        return binary_sign(x if noise is None else (x + 1) / 2 - noise)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor | None, float, Gradient], output: Tensor
    ) -> None:
        x, _, ctx.window, ctx.gradient = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        size = x.abs()
        if ctx.gradient == "approxsign":
            return gradient * (2 - 2 * size / ctx.window).clamp_min(0), None, None, None
        return gradient * (size <= ctx.window).to(gradient.dtype), None, None, None


def straight_through_sign(
    x: Tensor, window: float = 1.0, gradient: Gradient = "ste", rounding: Rounding = "nearest"
) -> Tensor:
    """Return the sign of x (+1 at 0) with the straight-through gradient.

    Args:
        x: any shape.
        window: the gradient passes where |x| <= window; `math.inf` lets it always pass.
        gradient: "ste" or "approxsign".
        rounding: "nearest", or "stochastic": by chance, with torch's own random numbers.
    """
    # Above 0 and up to 1, so that x = -1 never gives +1 and x = 1 always does.
    noise = 1 - torch.rand_like(x) if rounding == "stochastic" else None
    if not torch.is_grad_enabled():
        return binary_sign(x if noise is None else (x + 1) / 2 - noise)
    result: Tensor = _StraightThroughSign.apply(x, noise, window, gradient)  # type: ignore[no-untyped-call]
    return result


class Sign(nn.Module):
    """Binary activation: +1 or -1, with a straight-through gradient.

    Args:
        window: the gradient passes where |x| <= window, > 0.
        gradient: "ste" or "approxsign".
        rounding: "nearest", or "stochastic": in training mode by chance, in evaluation mode the
            sign.

    Shapes: any -> the same.

    Raises:
        SpecError: an option is out of range.
    """

    def __init__(
        self, window: float = 1.0, gradient: Gradient = "ste", rounding: Rounding = "nearest"
    ) -> None:
        """Check and keep the options."""
        super().__init__()
        check_sign(window, gradient, rounding)
        self.window = window
        self.gradient: Gradient = gradient
        self.rounding: Rounding = rounding

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs."""
        rounding = self.rounding if self.training else "nearest"
        return straight_through_sign(x, self.window, self.gradient, rounding)

    def extra_repr(self) -> str:
        """Show the options."""
        rounding = "" if self.rounding == "nearest" else f", rounding={self.rounding!r}"
        gradient = "" if self.gradient == "ste" else f", gradient={self.gradient!r}"
        return f"window={self.window}{gradient}{rounding}"


def check_sign(window: object, gradient: object = "ste", rounding: object = "nearest") -> None:
    """Check the options of a sign.

    Raises:
        SpecError: one is out of range; a parabola needs a finite window.
    """
    if isinstance(window, bool) or not isinstance(window, int | float) or not window > 0:
        raise SpecError(f"window was given {window!r}; expected a number > 0.")
    for name, value, known in (
        ("gradient", gradient, GRADIENTS),
        ("rounding", rounding, ROUNDINGS),
    ):
        if value not in known:
            raise SpecError(f"{name} was given {value!r}. Known: {', '.join(known)}.")
    if gradient == "approxsign" and window == float("inf"):
        raise SpecError("gradient='approxsign' needs a finite window, and it was given inf.")
