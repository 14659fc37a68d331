"""Weights as integers in bit planes, and activations in fixed point.

Lam, Yedidia, Banbury and Janapa Reddi, "Quantized Neural Network Inference with Precision
Batching", 2020, arXiv 2003.00822.

    w ~ step k,   k = sum_j c_j P_j,   P_j in {0, 1},   c_j = 2^j, the highest -2^j

n magnitude bits and the sign are n + 1 planes. The r highest planes alone are a coarser weight.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from whit.errors import SpecError

Step = Literal["power_of_two", "layer", "channel"]
STEPS = ("power_of_two", "layer", "channel")
MOST_BITS = 15
MOST_BITS_BY_CHANNEL = 11  # the packer recognises integers with a scale a row up to 2047
FIXED_POINT = 2.0**16
CUTOFFS = 100


def quantised(
    weight: Tensor, bits: int, step: Step = "channel", cutoff: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the nearest integers and the step between them: weight ~ step * integers.

    Args:
        weight: [out, ...].
        bits: of the magnitude, 1 to 15 (11 by channel); with the sign there are bits + 1 planes.
        step: "power_of_two" is the paper's: the weight as a number of 16 fractional bits, cut to
            its `bits` highest; at one bit no weight is 0. "layer" and "channel" divide the largest
            magnitude of the layer or of each output channel by 2^bits - 1.
        cutoff: with "layer" and "channel", clip at the best of 100 thresholds up to the largest
            magnitude: the one of the least mean error.

    Returns:
        Integers [out, ...] of the dtype of the weight, |k| <= 2^bits - 1, and the step, [] or [out,
        1, ...].

    Raises:
        SpecError: an option is out of range.
    """
    check_bits(bits, step)
    if not bool(weight.isfinite().all()):
        raise SpecError("The weight holds NaN or infinite numbers; it cannot be rounded.")
    if step == "power_of_two":
        return _fixed_point(weight, bits)
    rows = weight.flatten(1) if step == "channel" else weight.reshape(1, -1)
    top = 2**bits - 1
    sizes = _best_steps(rows, top) if cutoff else rows.abs().amax(1) / top
    sizes = torch.where(sizes > 0, sizes, 1.0)
    size = sizes.reshape(-1, *[1] * (weight.dim() - 1)) if step == "channel" else sizes.reshape(())
    return (weight / size).round().clamp(-top, top), size


def check_bits(bits: object, step: object = "layer") -> None:
    """Check a number of magnitude bits and the kind of step.

    Raises:
        SpecError: no whole number from 1 to 15 (by channel to 11), or an unknown kind.
    """
    if step not in STEPS:
        raise SpecError(f"step was given {step!r}. Known: {', '.join(STEPS)}.")
    most = MOST_BITS_BY_CHANNEL if step == "channel" else MOST_BITS
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= most:
        raise SpecError(
            f"bits was given {bits!r}; expected a whole number from 1 to {most} with step="
            f"{step!r}, without the sign."
        )


def _fixed_point(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    fixed = (weight.double() * FIXED_POINT).trunc()
    largest = fixed.abs().max()
    if largest == 0 and bool((weight != 0).any()):
        raise SpecError(
            "All weights of a layer are below 2^-16 and would become 0 with step='power_of_two'. "
            "Use step='channel'."
        )
    places = max(bits, int(torch.ceil(torch.log2(largest))) + 1) if largest > 0 else bits
    step = 2.0 ** (places - bits)
    # Halves away from zero, as on magnitudes.
    magnitude = (fixed.abs() / step + 0.5).floor()
    if bits == 1:
        magnitude = magnitude.clamp_min(1)
    signs = torch.where(fixed < 0, -1.0, 1.0)
    return (signs * magnitude).to(weight.dtype), torch.tensor(step / FIXED_POINT).to(weight)


def _best_steps(rows: Tensor, top: int) -> Tensor:
    """Return for each row the step, of 100, whose rounding and clipping err least."""
    magnitudes = rows.abs()
    low, high = magnitudes.amin(1), magnitudes.amax(1)
    best = torch.full_like(high, torch.inf)
    step = high / top
    for share in torch.linspace(1, 0, CUTOFFS).tolist():  # the widest first: it wins a draw
        size = (low + share * (high - low)) / top
        divisor = torch.where(size > 0, size, 1.0)[:, None]
        error = ((magnitudes / divisor).round().clamp_max(top) * divisor - magnitudes).abs().mean(1)
        better = (error < best) & (size > 0)
        best, step = torch.where(better, error, best), torch.where(better, size, step)
    return step


def planes_of(integers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the bit planes of integers in two's complement, highest first, and their weights.

    Shapes: integers any -> planes [count, ...] of 0 and 1, coefficients float64 [count].

    Args:
        integers: whole numbers from -2^(count - 1) to 2^(count - 1) - 1.
        count: planes, 1 to 16.

    Raises:
        SpecError: an integer needs more planes.
    """
    whole = integers.to(torch.int64)
    half = 1 << (count - 1)
    if whole.numel() and not -half <= int(whole.min()) <= int(whole.max()) < half:
        raise SpecError(
            f"The integers {int(whole.min())} to {int(whole.max())} need more than "
            f"{count} bit planes."
        )
    places = torch.arange(count - 1, -1, -1)
    planes = (whole[None] >> places.reshape(-1, *[1] * whole.dim())) & 1
    coefficients = 2.0 ** places.double()
    coefficients[0] = -coefficients[0]
    return planes, coefficients


def highest_planes(integers: Tensor, count: int, used: int) -> Tensor:
    """Return what the `used` highest of `count` planes say of integers: the middle of what is open.

    As the runtime reads a file with `program(x, planes=used)`; with all planes the integers.

    Args:
        integers: whole numbers that fit `count` planes.
        count: planes, 1 to 16.
        used: 1 to count.
    """
    unit = 2.0 ** (count - used)
    return (integers / unit).floor() * unit + (unit - 1) / 2


class FixedPoint(nn.Module):
    """Activations in k bits: x -> step clamp(round(x / step), -2^(k-1), 2^(k-1) - 1).

    It saturates, where the authors' kernel wraps around.

    Args:
        bits: k, 2 to 16.

    Shapes: any -> the same.
    """

    step: Tensor

    def __init__(self, bits: int) -> None:
        """Start without a step: outputs are not numbers until `calibrate` sets one."""
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
            raise SpecError(
                f"activation_bits was given {bits!r}; expected a whole number from 2 to 16, or "
                "None."
            )
        self.bits = bits
        self.register_buffer("step", torch.full((), torch.nan))

    def calibrate(self, largest: float) -> None:
        """Set the step so that numbers up to this magnitude do not saturate."""
        top = 2 ** (self.bits - 1) - 1
        self.step.fill_(largest / top if largest > 0 else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest number in fixed point."""
        half = 2.0 ** (self.bits - 1)
        return torch.clamp(torch.round(x * (1 / self.step)), -half, half - 1) * self.step

    def extra_repr(self) -> str:
        """Show the bits."""
        return f"bits={self.bits}"
