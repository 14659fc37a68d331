"""Where a monotone function of one number changes its value: exact, by asking the function.

What stands between a matrix and a quantiser (scale, bias, batch norm, ReLU, ...) is one monotone
function with few values. Its steps are found number by number, by bisection with the real torch
operators, so they are exact by construction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_LEVELS = 256
_FLOAT_LIMIT = 2.0**100

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Line:
    """The numbers that are asked, by position: integers up to a bound, or all of float32.

    Args:
        bound: largest integer, or None for float32 numbers.
    """

    bound: int | None

    @property
    def limit(self) -> int:
        """Return the highest position; the lowest is its negative."""
        if self.bound is not None:
            return self.bound
        return int(_to_ordered(torch.tensor(_FLOAT_LIMIT)))

    @property
    def always(self) -> float:
        """Return a number that every number on the line reaches from above."""
        return float("-inf") if self.bound is None else -self.bound - 1

    @property
    def never(self) -> float:
        """Return a number above all on the line."""
        return float("inf") if self.bound is None else self.bound + 1

    def number(self, position: Tensor) -> Tensor:
        """Return the numbers at positions, as float32 (integers: below 2^24 exactly) or int64."""
        return position if self.bound is not None else _from_ordered(position)


@dataclass(frozen=True, eq=False)
class Staircase:
    """A monotone function with few values in each channel.

    Args:
        levels: all of its values, ascending float32 [n + 1].
        thresholds: [channels, n], float32 or int64: x >= T_j, or x <= T_j where flipped, gives at
            least level j + 1.
        flipped: [channels], where the function falls.
    """

    levels: Tensor
    thresholds: Tensor
    flipped: Tensor


def find_staircase(function: Function, channels: int, line: Line) -> Staircase | None:
    """Find all steps of a monotone function in every channel.

    Args:
        function: numbers [channels] -> values float32 [channels], monotone in each channel.
        channels: how many.
        line: the numbers to ask.

    Returns:
        The staircase, or None when a channel has more than 256 values.
    """
    walked = _walk(function, channels, line)
    if walked is None:
        return None
    positions, values = walked  # [steps, channels], [steps + 1, channels]
    levels = torch.unique(values)
    if levels.numel() > MOST_LEVELS:
        return None
    flipped = values[-1] < values[0]
    thresholds = [_reaching(level, positions, values, flipped, line) for level in levels[1:]]
    dtype = torch.float32 if line.bound is None else torch.int64
    if not thresholds:
        return Staircase(levels, torch.empty(channels, 0, dtype=dtype), flipped)
    return Staircase(levels, torch.stack(thresholds, 1), flipped)


def _walk(function: Function, channels: int, line: Line) -> tuple[Tensor, Tensor] | None:
    """Return where the value changes, and the values; a finished channel stays at the end."""
    end = torch.full((channels,), line.limit, dtype=torch.int64)
    here = -end
    value, last = function(line.number(here)), function(line.number(end))
    positions: list[Tensor] = []
    values = [value]
    while not bool((value == last).all()):
        if len(positions) >= MOST_LEVELS:
            return None
        low, high = here, end
        while bool((high - low > 1).any()):
            middle = (low + high).div(2, rounding_mode="floor")
            same = function(line.number(middle)) == value
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        moved = value != last
        here = torch.where(moved, high, here)
        value = torch.where(moved, function(line.number(high)), value)
        positions.append(torch.where(moved, high, torch.full_like(high, line.limit + 1)))
        values.append(value)
    if not positions:
        return torch.empty(0, channels, dtype=torch.int64), value[None]
    return torch.stack(positions), torch.stack(values)


def _reaching(
    level: Tensor, positions: Tensor, values: Tensor, flipped: Tensor, line: Line
) -> Tensor:
    """Return the first number that reaches a level, or the last one where the channel falls."""
    reached = values >= level
    changes = torch.cat([positions, positions.new_full((1, positions.shape[1]), line.limit + 1)])
    first = torch.where(reached[1:], changes[:-1], line.limit + 1)
    rising = first.amin(0) if len(first) else first.new_full(flipped.shape, line.limit + 1)
    lost = torch.where(~reached[1:], changes[:-1], line.limit + 1)
    falling = (lost.amin(0) if len(lost) else rising) - 1
    place = torch.where(flipped, falling, rising)
    number = line.number(place.clamp(-line.limit, line.limit))
    always, never = number.new_tensor(line.always), number.new_tensor(line.never)
    number = torch.where(place > line.limit, never, number)
    number = torch.where(~flipped & reached[0], always, number)
    number = torch.where(flipped & reached[-1], never, number)
    return torch.where(flipped & ~reached[0], always, number)


def _from_ordered(position: Tensor) -> Tensor:
    """Return the float32 at a position on the ordered line; 0 is at 0."""
    bits = position.abs().to(torch.int32).view(torch.float32)
    return torch.where(position < 0, -bits, bits)


def _to_ordered(value: Tensor) -> Tensor:
    bits = value.abs().view(torch.int32).to(torch.int64)
    return torch.where(value < 0, -bits, bits)
