"""A ternary neuron's two thresholds, and how batch norm and tanh become such thresholds.

    rule(s) = -1 if s < low, +1 if s > high, else 0;   a falling neuron gives -rule(s)

`low <= high + 1`; with `low = high + 1` there is no middle and the neuron is binary. For whole
numbers s this is `clamp(round((s - shift) factor), -1, 1)`, the spelling that the packer turns into
integer thresholds.

Alemdar et al. 2017, arXiv 1609.00222; the folding follows the public code of the authors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.errors import WhitError

# Between two neighbouring whole numbers stands the only step of a neuron without a middle.
_STEEP = 4.0


class TernaryThresholds(nn.Module):
    """Two whole thresholds a channel, for whole numbers as input.

    Args:
        low: below it -1; whole numbers [channels].
        high: above it +1; whole numbers [channels], `high >= low - 1`.
        falls: [channels], True where the output is negated; None for nowhere.

    Shapes: [batch, channels, ...] -> the same, values -1, 0, +1.

    Raises:
        WhitError: a channel has `high < low - 1`, or the shapes differ.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, low: Tensor, high: Tensor, falls: Tensor | None = None) -> None:
        """Keep the middle and the inverse width of each channel's zero zone."""
        super().__init__()
        shift, factor = _shift_and_factor(low, high, falls)
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor)

    def set_channels(self, rows: Tensor, low: Tensor, high: Tensor, falls: Tensor) -> None:
        """Replace the thresholds of the channels `rows`, int64 [n]; the others are [n] too."""
        shift, factor = _shift_and_factor(low, high, falls)
        self.shift[rows] = shift.to(self.shift.device)
        self.factor[rows] = factor.to(self.factor.device)

    def thresholds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return low and high (int64) and falls (bool), [channels] each."""
        steep = self.factor.abs() == _STEEP
        width = torch.where(steep, 0.0, (1 / self.factor.double().abs()).round())
        low = (self.shift.double() - width / 2 + 0.5).round().to(torch.int64)
        high = (self.shift.double() + width / 2 - 0.5).round().to(torch.int64)
        return low, high, self.factor < 0

    def forward(self, sums: Tensor) -> Tensor:
        """Return -1, 0 and +1."""
        shape = (-1,) + (1,) * (sums.dim() - 2)
        scaled = (sums - self.shift.reshape(shape)) * self.factor.reshape(shape)
        return torch.clamp(torch.round(scaled), -1, 1)

    def extra_repr(self) -> str:
        """Show how many channels, and how many without a middle."""
        binary = int((self.factor.abs() == _STEEP).sum())
        return f"{len(self.shift)} channels, {binary} of them binary"


def _shift_and_factor(low: Tensor, high: Tensor, falls: Tensor | None) -> tuple[Tensor, Tensor]:
    low, high = low.detach().cpu().double(), high.detach().cpu().double()
    width = high - low + 1
    if low.shape != high.shape or low.dim() != 1 or bool((width < 0).any()):
        raise WhitError(
            f"Thresholds were given with shapes {list(low.shape)} and {list(high.shape)}; expected "
            "two lists of whole numbers with high >= low - 1 in each channel."
        )
    shift = (low - 0.5 + high + 0.5) / 2
    factor = torch.where(width > 0, 1 / width.clamp_min(1), _STEEP)
    if falls is not None:
        factor = torch.where(falls.cpu(), -factor, factor)
    return shift.to(torch.float32), factor.to(torch.float32)


@dataclass(frozen=True)
class Affine:
    """y = scale s + shift in each channel: what layers between a matrix and its activation do.

    Attributes:
        scale: float64 [channels].
        shift: float64 [channels].
    """

    scale: Tensor
    shift: Tensor

    @classmethod
    def of_bias(cls, bias: Tensor | None, channels: int) -> Affine:
        """Return the addition of a layer's bias, None for none."""
        ones = torch.ones(channels, dtype=torch.float64)
        added = torch.zeros_like(ones) if bias is None else bias.detach().cpu().double()
        return cls(ones, added)

    def then_norm(self, norm: nn.Module) -> Affine:
        """Return this followed by a batch norm with its running statistics."""
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        if norm.running_mean is None or norm.running_var is None:
            raise WhitError(
                "A batch norm without running statistics cannot become thresholds; use "
                "track_running_stats=True."
            )
        scale = 1 / (norm.running_var.detach().cpu().double() + norm.eps).sqrt()
        shift = torch.zeros_like(scale)
        if norm.weight is not None:
            scale = scale * norm.weight.detach().cpu().double()
        if norm.bias is not None:
            shift = norm.bias.detach().cpu().double()
        shift = shift - norm.running_mean.detach().cpu().double() * scale
        return Affine(self.scale * scale, self.shift * scale + shift)

    def times(self, factor: Tensor) -> Affine:
        """Return this with its input multiplied by a factor, [channels] or one number."""
        return Affine(self.scale * factor.detach().cpu().double(), self.shift)


def folded_thresholds(
    affine: Affine, fires_from: float, bound: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thresholds of `-1 if y < -c, +1 if y > c, else 0` with y = scale s + shift.

    `s > (c - shift) / scale` where the scale is positive; where it is negative the two sides
    change places and the neuron falls. Exact but for sums at which y is c to float64 precision.

    Shapes: -> low, high (float64, whole), falls (bool), [channels] each.

    Args:
        affine: y of s.
        fires_from: c, see `FIRES_FROM`; > 0.
        bound: no sum is larger in magnitude; thresholds beyond it say "never".
    """
    flat = affine.scale == 0
    scale = torch.where(flat, 1.0, affine.scale)
    upper, lower = (fires_from - affine.shift) / scale, (-fires_from - affine.shift) / scale
    falls = scale < 0
    low = torch.where(falls, upper, lower).ceil()
    high = torch.where(falls, lower, upper).floor()
    # A flat neuron always gives the same: all sums are above, below, or between.
    up, down = affine.shift > fires_from, affine.shift < -fires_from
    always_low = torch.where(down, bound + 1.0, torch.where(up, -bound - 1.0, -1.0 * bound))
    always_high = torch.where(up, -bound - 1.0, torch.where(down, bound + 1.0, 1.0 * bound))
    low, high = torch.where(flat, always_low, low), torch.where(flat, always_high, high)
    return low.clamp(-bound, bound + 1), high.clamp(-bound - 1, bound), falls & ~flat
