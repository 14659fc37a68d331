"""Random numbers as small hardware makes them: a linear-feedback shift register.

    bit <- XOR of the tapped bits;   state <- (state << 1 | bit) mod 2^k

With maximal taps the states run through all of 1 .. 2^k - 1 before one repeats; 0 never occurs. So
`state <= threshold` is true in exactly `threshold` of the 2^k - 1 states of a period.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from whit.errors import SpecError

# Maximal: each gives a period of 2^k - 1.
TAPS: dict[int, tuple[int, ...]] = {4: (4, 3), 8: (8, 6, 5, 4), 16: (16, 14, 13, 11)}


class ShiftRegister:
    """A register of k bits that gives one state after the other.

    Args:
        bits: 4, 8 or 16.
        state: the first one that is given, 1 to 2^bits - 1.

    Raises:
        SpecError: an option is out of range.
    """

    def __init__(self, bits: int = 16, state: int = 1) -> None:
        """Find the state in the period."""
        if isinstance(bits, bool) or bits not in TAPS:
            known = ", ".join(map(str, TAPS))
            raise SpecError(f"A shift register was given {bits!r} bits; expected one of {known}.")
        self.bits = bits
        self.period = (1 << bits) - 1
        if not isinstance(state, int) or isinstance(state, bool) or not 1 <= state <= self.period:
            raise SpecError(
                f"A register of {bits} bits was given the state {state!r}; expected 1 to "
                f"{self.period}, for 0 never changes."
            )
        self._place = int((_states(bits) == state).nonzero()[0, 0])

    @property
    def state(self) -> int:
        """Return the state that is given next."""
        return int(_states(self.bits)[self._place])

    def draw(self, count: int) -> Tensor:
        """Return the next states, int64 [count].

        Raises:
            SpecError: count is no whole number >= 0.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise SpecError(
                f"{count!r} states were asked of a register; expected a whole number >= 0."
            )
        places = (self._place + torch.arange(count)) % self.period
        self._place = (self._place + count) % self.period
        return _states(self.bits)[places]


@cache
def _states(bits: int) -> Tensor:
    """Return one period, starting with the state 1."""
    state, found = 1, []
    for _ in range((1 << bits) - 1):
        found.append(state)
        bit = 0
        for tap in TAPS[bits]:
            bit ^= state >> (tap - 1)
        state = (state << 1 | bit & 1) & ((1 << bits) - 1)
    return torch.tensor(found)
