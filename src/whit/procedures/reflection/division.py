"""Divide samples into parts that hold every class in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whit.core.options import require


def divide(target: Tensor, shares: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Deal samples into disjoint parts, class by class, after a shuffle.

    Args:
        target: int64 classes [samples].
        shares: of each part, > 0; only their proportions count.
        generator: makes the draw repeatable.

    Shapes: -> int64 [size] for each share, ascending sample numbers.

    Raises:
        SpecError: a share is not positive, or a class would be missing from a part.
    """
    require(
        len(shares) > 0 and all(share > 0 for share in shares),
        f"The shares of the parts were given as {list(shares)}; expected numbers > 0.",
    )
    ends = torch.tensor(list(shares), dtype=torch.float64).cumsum(0)
    ends = ends / ends[-1]
    parts: list[list[Tensor]] = [[] for _ in shares]
    for label in torch.unique(target).tolist():
        places = (target == label).nonzero().flatten()
        places = places[torch.randperm(len(places), generator=generator)]
        cuts = (ends[:-1] * len(places)).round().long().tolist()
        for number, piece in enumerate(places.tensor_split(cuts)):
            require(
                len(piece) > 0,
                f"Class {label} has {len(places)} samples, and part {number} of the {len(shares)} "
                f"parts {list(shares)} gets none of them. Add samples of the class, leave it out, "
                "or make that part larger.",
            )
            parts[number].append(piece)
    return [torch.cat(part).sort().values for part in parts]
