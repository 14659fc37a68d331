"""Quantisers with many levels: rounding of a linear function, as one multiplication of integers."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from whit.errors import CannotPack
from whit.packing.graph_nodes import ElementwiseNode, IntegerNode, Node
from whit.runtime.layout import integer_domain
from whit.runtime.operators import Operator, Quantize, Requantize

_MOST = (1 << 31) - 1
_LARGEST_EXPONENT = 60  # so that 64 bits hold product, offset and half
_LARGEST_OFFSET = 2.0**61


@dataclass(frozen=True, eq=False)
class LinearForm:
    """min(max(rint(factors * x + shifts), low), high), one factor and shift a channel.

    Args:
        factors: float64 [channels] or [1].
        shifts: float64 [channels] or [1].
        low: lowest value.
        high: highest value.
    """

    factors: Tensor
    shifts: Tensor
    low: int
    high: int

    @property
    def steps(self) -> int:
        """Return the number of steps between lowest and highest value."""
        return self.high - self.low


def linear_form(links: list[ElementwiseNode], factors: Tensor, shifts: Tensor) -> LinearForm | None:
    """Return a chain on ``factors * x + shifts`` as one rounding; None for other functions."""
    state = _State(factors.double(), shifts.double(), -math.inf, math.inf, False)
    for link in links:
        after = _after(state, link)
        if after is None:
            return None
        state = after
    limits = (state.low, state.high)
    if not state.rounded or not all(math.isfinite(limit) for limit in limits):
        return None
    low, high = (int(torch.round(torch.tensor(limit))) for limit in limits)
    return LinearForm(state.factors, state.shifts, low, high)


@dataclass(frozen=True, eq=False)
class _State:
    factors: Tensor
    shifts: Tensor
    low: float
    high: float
    rounded: bool


def _after(state: _State, link: ElementwiseNode) -> _State | None:
    if link.form in ("clamp", "relu"):
        low, high = (0.0, math.inf) if link.form == "relu" else map(float, link.constants)
        if state.rounded and any(math.isfinite(x) and x != round(x) for x in (low, high)):
            return None
        low, high = min(max(state.low, low), high), max(min(state.high, high), low)
        return replace(state, low=low, high=high)
    if link.form == "round":
        return replace(state, rounded=True)
    if state.rounded or not link.constants:
        return None
    first = link.constants[0].double().reshape(-1)
    scale, shift = {
        "multiply": (first, None),
        "divide": (1 / first, None),
        "batch_norm": (first, link.constants[-1].double().reshape(-1)),
        "add": (None, first),
        "subtract": (None, -first),
        "subtract_from": (-torch.ones_like(first), first),
    }.get(link.form, (None, None))
    if scale is None and shift is None:
        return None
    state = state if scale is None else _times(state, scale)
    return state if shift is None else _plus(state, shift)


def _times(state: _State, scale: Tensor) -> _State:
    limited = math.isfinite(state.low) or math.isfinite(state.high)
    one = float(scale[0])
    if limited and (bool((scale != one).any()) or one == 0):
        # Limits that differ between the channels: a value that no single limit describes.
        return replace(state, low=math.nan, high=math.nan)
    low, high = (state.low * one, state.high * one) if limited else (state.low, state.high)
    low, high = (high, low) if limited and one < 0 else (low, high)
    return replace(
        state, factors=state.factors * scale, shifts=state.shifts * scale, low=low, high=high
    )


def _plus(state: _State, shift: Tensor) -> _State:
    limited = math.isfinite(state.low) or math.isfinite(state.high)
    one = float(shift[0])
    if limited and bool((shift != one).any()):
        return replace(state, low=math.nan, high=math.nan)
    low, high = (state.low + one, state.high + one) if limited else (state.low, state.high)
    return replace(state, shifts=state.shifts + shift, low=low, high=high)


def in_a_byte(form: LinearForm) -> tuple[LinearForm, int]:
    """Move 9-bit values of a quantiser with a zero point into 8 bits; return what was added."""
    if (
        form.steps > 255
        or (0 <= form.low and form.high <= 255)
        or -128 <= form.low <= form.high <= 127
    ):
        return form, 0
    moved = -128 - form.low
    shifts = form.shifts + moved
    return replace(form, shifts=shifts, low=-128, high=form.high + moved), moved


def requantised(last: ElementwiseNode, form: LinearForm, base: Node, bound: int) -> Node:
    """Return a rounding of integers as ``requantize``: multiply, add, round half to even, shift.

    The multipliers have 31 bits for the channel with the largest factor, and the offsets as many
    behind the point; so where factors and shifts are dyadic, the result is that of torch.

    Args:
        last: the step that it stands for.
        form: with factors of 0 or more.
        base: gives the integers.
        bound: largest magnitude of these integers.

    Raises:
        CannotPack: the values do not fit in 16 bits, or a factor is too large.
    """
    _check_width(form, last)
    largest = float(form.factors.max())
    reach = max(abs(form.low), abs(form.high)) + 2 + largest * bound
    shifts = form.shifts.clamp(-reach, reach)  # beyond, all results are at a limit
    fits = [_MOST / max(largest, 1e-30), _LARGEST_OFFSET / max(1.0, float(shifts.abs().max()))]
    exponent = min(_LARGEST_EXPONENT, *(math.floor(math.log2(size)) for size in fits))
    if exponent < 1:
        raise CannotPack("a quantiser multiplies by more than 2^30", last.module, last.name)
    multipliers = torch.round(form.factors * 2.0**exponent).clamp(0, _MOST)
    offsets = _one_or_many(torch.round(shifts * 2.0**exponent))
    operator = Requantize(
        _one_or_many(multipliers).astype(np.int32),
        offsets if offsets.any() else None,
        exponent,
        form.low,
        form.high,
    )
    return _integers(last, base, operator, form)


def _integers(last: ElementwiseNode, base: Node, operator: Operator, form: LinearForm) -> Node:
    return IntegerNode(
        module=last.module,
        shape=last.shape,
        sources=(base,),
        operator=operator,
        domain=integer_domain(form.low, form.high),
        bound=max(abs(form.low), abs(form.high)),
    )


def _one_or_many(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    numbers = values.to(torch.int64).numpy()
    return numbers[:1] if (numbers == numbers[0]).all() else numbers


def rounding_node(links: list[ElementwiseNode], base: Node, form: LinearForm) -> Node:
    """Return a rounding of floats as ``quantize``; what scales before it stays as it is.

    Limits before the rounding are left out: ``form`` has them already.
    """
    place = max(k for k, link in enumerate(links) if link.form == "round")
    last = links[-1]
    before = [link for link in links[:place] if link.form not in ("clamp", "relu")]
    factor, shift = _factor(before[-1]) if before else None, None
    before = before if factor is None else before[:-1]
    if before and before[-1].form == "subtract" and before[-1].constants[0].numel() == 1:
        shift = float(before[-1].constants[0])
        before = before[:-1]
    for link in before:
        base = replace(link, sources=(base,))
    _check_width(form, last)
    operator = Quantize(shift or 0.0, 1.0 if factor is None else factor, form.low, form.high)
    return _integers(last, base, operator, form)


def _factor(link: ElementwiseNode) -> float | None:
    """Return what a step multiplies by, with the same rounding; None for another step."""
    if link.form not in ("multiply", "divide") or link.constants[0].numel() != 1:
        return None
    constant = float(link.constants[0])
    if link.form == "multiply":
        return constant
    power_of_two = constant != 0 and abs(math.frexp(constant)[0]) == 0.5
    return 1 / constant if power_of_two else None


def _check_width(form: LinearForm, last: ElementwiseNode) -> None:
    if not -32768 <= form.low <= form.high <= 32767:
        raise CannotPack(
            f"a quantiser has values from {form.low} to {form.high}; the format holds 16 bits",
            last.module,
            last.name,
        )
