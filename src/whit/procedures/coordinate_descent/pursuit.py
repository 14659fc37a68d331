"""Pick several moves for each hidden unit at once, and find how many of them to apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.neighbourhood import GroupScores
from whit.procedures.coordinate_descent.two_layer import Weights

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Moves:
    """Moves of weights, in the order in which they are to be taken.

    Attributes:
        row: int64 [moves], of the weight, counted within the rows that were scored.
        column: int64 [moves], of the weight.
        value: int64 [moves], index of the value that the weight takes.
        amount: [moves], by how much the real weight changes.
    """

    row: Tensor
    column: Tensor
    value: Tensor
    amount: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def first(self, count: int) -> Moves:
        """Return the first moves."""
        return Moves(self.row[:count], self.column[:count], self.value[:count], self.amount[:count])


def pursue(
    scores: GroupScores,
    weights: Weights,
    units: Tensor,
    gram: Tensor,
    moves_per_unit: int,
    least_gain: float,
) -> Moves:
    """Pick moves of the first layer by matching pursuit over a group of units.

    In each round every unit picks its best move. After moves by d of weights (i, j), the change by
    a move by e of weight (k, l) is taken to grow by the sum of C_ik d e E[x_j x_l], with C the
    curvature between units i and k. So several moves that would all do the same, in one unit or in
    several, are not all picked. All changes but those of the first round are predictions.

    Args:
        scores: of the units, with their curvature.
        weights: the first layer.
        units: [units], which of its rows were scored.
        gram: [inputs (+ 1), inputs (+ 1)], the mean of x_j x_k over samples.
        moves_per_unit: rounds, >= 1.
        least_gain: decrease of the mean loss that a move must promise, >= 0.

    Returns:
        The moves in the order of the rounds, the best first within a round.
    """
    assert scores.curvature is not None
    change, value = scores.changes.min(0)
    change = change.contiguous()
    index = weights.index[units]
    amount = (weights.values[value] - weights.values[index]) * weights.scale[units, None]
    amount = amount.to(change.dtype)
    rows, columns = [], []
    for _ in range(moves_per_unit):
        best, column = change.min(1)
        row = best.argsort(stable=True)
        row = row[best[row] < -least_gain]
        if not len(row):
            break
        column = column[row]
        rows.append(row)
        columns.append(column)
        pull = (scores.curvature[:, row] * amount[row, column]) @ gram[column]
        change.addcmul_(amount, pull)
        change[row, column] = torch.inf
    row = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
    column = torch.cat(columns) if rows else row
    return Moves(row, column, value[row, column], amount[row, column])


def line_search(
    most: int,
    current: float,
    attempt: Callable[[int], tuple[float, State]],
    single: bool = False,
) -> tuple[float, int, State] | None:
    """Try to apply m moves for m = most, most / 2, ... 1; return (loss, m, state), or None.

    Stops at the first m whose loss is no better than that of twice as many, once a loss below the
    current one was found. So m = 1 is tried when no larger m helps, and the loss that comes back is
    below the current one.

    Args:
        most: moves to begin with, >= 0.
        current: loss without any.
        attempt: applies m moves on trial and returns the true loss and what to keep for them.
        single: always try m = 1 too, so that the result is no worse than the first move alone.
    """
    best: tuple[float, int, State] | None = None
    while most >= 1:
        loss, state = attempt(most)
        if loss < (current if best is None else best[0]):
            best = (loss, most, state)
        elif best is not None:
            break
        most //= 2
    if single and most > 1:
        loss, state = attempt(1)
        if best is not None and loss < best[0]:
            best = (loss, 1, state)
    return best
