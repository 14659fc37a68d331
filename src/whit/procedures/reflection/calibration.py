"""How far a network's confidence can be trusted, measured on samples that it did not learn from.

Shapes: scores [samples, classes]; target int64 [samples].
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from whit.core.options import is_number, require

# A margin lies in 0..1, so a threshold above 1 calls no sample familiar.
NOTHING_FAMILIAR = 2.0
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(scores: Tensor, target: Tensor) -> float:
    """Return the T in 0.05..20 for which softmax(scores / T) has the least mean -log likelihood.

    The loss is convex in 1 / T, so there is one minimum.

    Raises:
        SpecError: there are no samples.
    """
    require(len(target) > 0, "A temperature was asked of no samples; give one or more.")
    exact = scores.detach().double().cpu()
    labels = target.cpu()

    def loss(inverse: float) -> float:
        return float(functional.cross_entropy(exact * inverse, labels))

    found = minimize_scalar(loss, bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded")
    # float32, as rules and packed files compute with it.
    return float(torch.tensor(1 / float(found.x), dtype=torch.float32))


def margins(chances: Tensor) -> Tensor:
    """Return by how much the likeliest class leads: [..., classes] -> [...], in 0..1."""
    top = chances.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def familiar_margin(margin: Tensor, correct: Tensor, precision: float = 0.999) -> float:
    """Return the smallest margin from which on a share `precision` of the samples is right.

    Args:
        margin: of each sample, 0..1, [samples].
        correct: bool [samples].
        precision: 0..1.

    Returns:
        The margin; 0 where all samples reach the precision, `NOTHING_FAMILIAR` where none do.

    Raises:
        SpecError: the precision is out of range, or there are no samples.
    """
    require(
        is_number(precision) and 0 <= precision <= 1,
        f"The precision was given as {precision!r}; expected a number between 0 and 1.",
    )
    require(len(margin) > 0, "A margin was asked of no samples; give one or more.")
    ordered, order = margin.sort(descending=True, stable=True)
    right = correct[order].double().cumsum(0)
    reached = right >= precision * torch.arange(1, len(margin) + 1) - 1e-9
    # Samples of the same margin are familiar together, or not at all.
    last_of_its_value = torch.ones_like(reached)
    last_of_its_value[:-1] = ordered[:-1] != ordered[1:]
    ends = (reached & last_of_its_value).nonzero().flatten()
    if len(ends) == 0:
        return NOTHING_FAMILIAR
    # Where all samples together are right often enough, no margin is too small.
    return 0.0 if int(ends[-1]) == len(margin) - 1 else float(ordered[ends[-1]])


def standard_error(accuracy: float, samples: int) -> float:
    """Return the standard error of an accuracy 0..1 that was measured on so many samples."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / max(1, samples))
