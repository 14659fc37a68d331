"""What a specialist learns from: all samples, those of its situation more often.

w(x) = eps + u(x) q(x),   u = 1 - margin, q = chance of the specialist's group
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whit.core.options import is_number, require


def specialist_weights(
    unsure: Tensor, belongs: Tensor, target: Tensor, group: Sequence[int], eps: float = 0.1
) -> Tensor:
    """Return sampling weights w = eps + u q, in which the classes of the group weigh the same.

    Inside the group, u q is scaled class by class to the mean of the classes' sums (our reading
    of "class-balanced"); classes without any weight, and those outside, stay as they are. Keep
    eps above 0: a specialist that sees its own situation alone forgets the rest.

    Args:
        unsure: u [samples], 0..1.
        belongs: q [samples], 0..1.
        target: int64 classes [samples].
        group: classes to balance; may be empty.
        eps: weight of a sample that is none of its business, >= 0.

    Shapes: -> float [samples].

    Raises:
        SpecError: eps is negative, or all weights are 0.
    """
    require(is_number(eps) and eps >= 0, f"eps was given {eps!r}; expected a number >= 0.")
    weights = unsure * belongs
    sums = {c: float(weights[target == c].sum()) for c in group}
    sums = {c: total for c, total in sums.items() if total > 0}
    mean = sum(sums.values()) / max(1, len(sums))
    for label, total in sums.items():
        weights = torch.where(target == label, weights * (mean / total), weights)
    weights = eps + weights
    require(
        bool(weights.sum() > 0),
        "All sampling weights of a specialist are 0: no sample is unsure. Use eps > 0.",
    )
    return weights
