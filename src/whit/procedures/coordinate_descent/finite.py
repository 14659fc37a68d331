"""Refuse numbers that are none: NaN and infinite."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.errors import SpecError


def require_finite(numbers: Tensor, name: str) -> None:
    """Refuse a tensor with a number that is NaN or infinite.

    Args:
        numbers: [samples, ...], of any type.
        name: what one of them is, such as "input", for the message.

    Raises:
        SpecError: with the first place and how many there are.
    """
    if not numbers.is_floating_point():
        return
    finite = torch.isfinite(numbers)
    if not bool(finite.all()):
        wrong = (~finite).nonzero()
        raise SpecError(
            f"Not every {name} is finite: {len(wrong)} of {numbers.numel():,} numbers are NaN or "
            f"infinite, the first at {wrong[0].tolist()}. Mend or leave out such {name}s first."
        )
