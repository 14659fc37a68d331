"""The inputs of some samples, in the forms in which a whole neighbourhood is scored from them.

A move of weight (i, j) by d shifts the pre-activation of unit i at sample n by d x[n, j]. Where
column j takes few values, the sum of a function F of that shift over the samples is

    sum_n F_n(d x[n, j]) = sum_n F_n(d b) + sum_l sum_{n: x[n, j] = l} (F_n(d l) - F_n(d b))

with b the most common value and l the others: one sparse product for each l, the same for all
columns. With more values, F between two of them is interpolated; then the sum is a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from whit.errors import SpecError

# From this share of entries on, a dense product is faster than the gathered sums (measured, AVX2).
DENSE_SHARE = 0.5
MOST_LEVELS = 16
# Ends of a grid of which one is the negative of the other but for this share are made equal.
ALMOST = 0.02
# Shares of a level are rounded to halves: then neighbouring pixels are alike more often.
RESOLUTION = 2


@dataclass(eq=False)
class Level:
    """The entries of a block that lie at one value, or near it.

    Attributes:
        value: of the level.
        rows: int32 [entries], samples in ascending order within a column, columns in turn.
        starts: int32 [columns], where each column begins in `rows`.
        shares: float32 [entries], how much of an entry belongs to this level; None for 1.
        chained: the entries are the differences of each column from the one before. In images they
            are half as many, since neighbouring pixels are mostly alike.
        dense: [columns, samples] with the shares, instead of all these; None where they are used.
    """

    value: float
    rows: Tensor | None = None
    starts: Tensor | None = None
    shares: Tensor | None = None
    chained: bool = False
    dense: Tensor | None = None

    def sums(self, table: Tensor) -> Tensor:
        """Sum the rows of a table over the entries of each column.

        Shapes: table [samples, units], contiguous -> [columns, units].
        """
        if self.dense is not None:
            return self.dense @ table
        assert self.rows is not None and self.starts is not None
        summed = functional.embedding_bag(
            self.rows, table, self.starts, mode="sum", per_sample_weights=self.shares
        )
        return summed.cumsum_(0) if self.chained else summed


class InputBlock:
    """Inputs of some samples, transposed, and their levels.

    Args:
        inputs: [samples, columns], float32 or float64, finite.
        levels: values in ascending order, at least one. Inputs beyond the ends count as the ends in
            sums over levels.
        base: the level that most entries have; one of `levels`.
        bias: add a column of ones at the end, which is not part of the levels.

    Attributes:
        columns: [columns (+ 1), samples], contiguous.
        levels: one `Level` for each value but the base.
        exact: whether every input lies at a level, so that sums over levels are no predictions.

    Raises:
        SpecError: the base is none of the levels.
    """

    def __init__(
        self, inputs: Tensor, levels: Sequence[float], base: float, bias: bool = True
    ) -> None:
        """Sort the entries by level."""
        self.values = [float(value) for value in levels]
        if base not in self.values:
            raise SpecError(f"The base {base} is none of the levels {self.values[:8]}.")
        self.base, self.bias = base, bias
        self.samples, self.inputs = inputs.shape
        self.columns = inputs.new_ones(self.inputs + bias, self.samples)
        self.columns[: self.inputs].copy_(inputs.t())
        self.exact = True
        self.levels = self._sorted(self.columns[: self.inputs], self.values)
        self.samples_first = self._samples_first(inputs)

    def __len__(self) -> int:
        return self.samples

    def to(self, dtype: torch.dtype) -> InputBlock:
        """Return the block with other numbers: float32 or float64."""
        if dtype == self.columns.dtype:
            return self
        inputs = self.columns[: self.inputs].t().to(dtype)
        return InputBlock(inputs, self.values, self.base, self.bias)

    @cached_property
    def power(self) -> float:
        """Sum of the squares of all inputs, the column of ones among them."""
        return float(self.columns.square().sum())

    def products(self, weight: Tensor) -> Tensor:
        """Return inputs @ weight.T, [samples, units].

        Args:
            weight: [units, columns (+ 1)].
        """
        if self.samples_first is None:
            return self.columns.t() @ weight.t()
        entries, starts, values = self.samples_first
        table = weight[:, : self.inputs].t().contiguous()
        summed = functional.embedding_bag(
            entries, table, starts, mode="sum", per_sample_weights=values
        )
        constant = table.sum(0).mul_(self.base)
        return summed.add_(constant + weight[:, -1] if self.bias else constant)

    def _samples_first(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Return columns, starts and values of the entries that are not at the base."""
        entries = np.flatnonzero((inputs != self.base).numpy())
        if len(entries) > DENSE_SHARE * inputs.numel() or inputs.dtype != torch.float32:
            return None
        starts = np.searchsorted(entries, np.arange(self.samples) * self.inputs)
        values = inputs.flatten()[torch.from_numpy(entries)].sub_(self.base)
        return (
            torch.from_numpy((entries % self.inputs).astype(np.int32)),
            torch.from_numpy(starts.astype(np.int32)),
            None if bool((values == 1).all()) else values,
        )

    def _sorted(self, columns: Tensor, values: list[float]) -> list[Level]:
        grid = torch.tensor(values, dtype=columns.dtype)
        apart = [columns == value for value in grid]
        if sum(np.count_nonzero(mask.numpy()) for mask in apart) == columns.numel():
            shares, whole = [mask.view(torch.uint8) for mask in apart], 1
        else:
            self.exact, whole = False, RESOLUTION
            shares = hat_shares(columns, grid, whole)
        return [
            self._level(value, share, whole)
            for value, share in zip(values, shares, strict=True)
            if value != self.base
        ]

    def _level(self, value: float, shares: Tensor, whole: int) -> Level:
        if self.columns.dtype != torch.float32:  # the gathered sums are slow in float64
            return Level(value, dense=shares.to(self.columns.dtype) / whole)
        steps = torch.empty_like(shares, dtype=torch.bool)
        torch.ne(shares[0], 0, out=steps[0])
        torch.ne(shares[1:], shares[:-1], out=steps[1:])
        stepped = np.flatnonzero(steps.numpy())
        chained = len(stepped) < np.count_nonzero(shares.numpy())
        entries = stepped if chained else np.flatnonzero(shares.numpy())
        if len(entries) > DENSE_SHARE * shares.numel():
            return Level(value, dense=shares.to(torch.float32) / whole)
        flat = shares.numpy().reshape(-1)
        weights = flat[entries].astype(np.float32)
        if chained:
            first = np.searchsorted(entries, self.samples)
            weights[first:] -= flat[entries[first:] - self.samples]
        starts = np.searchsorted(entries, np.arange(len(shares)) * self.samples)
        return Level(
            value,
            torch.from_numpy((entries % self.samples).astype(np.int32)),
            torch.from_numpy(starts.astype(np.int32)),
            torch.from_numpy(weights / whole) if chained or whole > 1 else None,
            bool(chained),
        )


def hat_shares(columns: Tensor, grid: Tensor, whole: int) -> list[Tensor]:
    """Return how much of each entry belongs to each level, rounded to parts of `whole`.

    Linear interpolation between the two levels around an entry; beyond the ends, the end.

    Shapes: columns [columns, samples], grid [levels] ascending -> uint8 [columns, samples] a level.
    """
    columns = columns.clamp(grid[0], grid[-1])
    if len(grid) == 2:  # the same in fewer passes, for images
        upper = columns.sub_(grid[0]).mul_(whole / (grid[1] - grid[0])).round_().to(torch.uint8)
        return [whole - upper, upper]
    shares = [torch.zeros_like(columns, dtype=torch.uint8) for _ in grid]
    for k in range(len(grid) - 1):
        part = ((columns - grid[k]) * (whole / (grid[k + 1] - grid[k]))).round_()
        inside = (part >= 0) & (part < whole) if k < len(grid) - 2 else part >= 0
        upper = part.mul_(inside).to(torch.uint8)
        shares[k + 1] += upper
        shares[k] += inside.to(torch.uint8) * whole - upper
    return shares


@dataclass(frozen=True)
class InputLevels:
    """The values that inputs take, or a grid that stands for them.

    Attributes:
        values: ascending.
        base: the most common of them.
        exact: whether the inputs were seen to take these values only.
    """

    values: tuple[float, ...]
    base: float
    exact: bool

    @classmethod
    def of(cls, inputs: Tensor, grid: int = 3) -> InputLevels:
        """Find the levels of inputs.

        Shapes: inputs [samples, columns].

        Args:
            inputs: of the training split.
            grid: evenly spaced levels over the range where there are more than `MOST_LEVELS`
                different values; from 2 on. The most common value takes the place of the nearest.

        Raises:
            SpecError: the grid has fewer than 2 levels, or an input is not finite.
        """
        if grid < 2:
            raise SpecError(f"A grid of {grid} levels was asked for; expected 2 or more.")
        if not bool(inputs.isfinite().all()):
            raise SpecError("An input is not finite; mend or leave out such samples first.")
        values, counts = torch.unique(inputs, return_counts=True)
        base = float(values[counts.argmax()])
        if len(values) <= MOST_LEVELS:
            return cls(tuple(values.tolist()), base, True)
        low, high = float(values[0]), float(values[-1])
        if abs(low + high) < ALMOST * high:  # shifts by d low and -d high are the same then
            low, high = (low, -low) if base == low else (-high, high)
        even = torch.linspace(low, high, grid, dtype=torch.float64)
        if not low < base < high:
            return cls(tuple(even.tolist()), base, False)
        nearest = even[1:-1].sub(base).abs().argmin() + 1 if grid > 2 else None
        kept = [v for k, v in enumerate(even.tolist()) if k != nearest]
        return cls(tuple(sorted([*kept, base])), base, False)
