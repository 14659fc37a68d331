"""Magnitude pruning while training: one-shot, iterative or gradual.

One family, three small parts: a schedule (when), a criterion (which weights), a granularity (how
large a piece).

    one_shot   s(t) = s_final for t >= start
    iterative  s(t) = s_final ceil(u n) / n,        u = (t - start) / (1 - start)
    gradual    s(t) = s_final (1 - (1 - u)^3)       Zhu and Gupta 2017, arXiv 1710.01878

t is the fraction of optimiser steps done. The usual score is |w| (Han et al. 2015, arXiv
1506.02626).

Shapes: masks have the shape of their weight; with granularity "filter" all weights of an output
channel share one entry.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from whit.core.options import is_number, nearest, require
from whit.core.technique import Technique, technique
from whit.parts.schedules import (
    Schedule,
    gradual_sparsity,
    iterative_sparsity,
    one_shot_sparsity,
)
from whit.procedures.pruning import PruningRule, pruning_while_training

SCHEDULES = ("one_shot", "iterative", "gradual")


def pruning_schedule(name: str, start: float | None = None, steps: int = 3) -> Schedule:
    """Return a sparsity schedule by name.

    Args:
        name: "one_shot", "iterative" or "gradual".
        start: fraction of training before the first pruning, 0 <= . < 1; None for the usual one
            (0.5 for one_shot, 0.2 for the others).
        steps: jumps of "iterative", >= 1.
    """
    require(name in SCHEDULES, f"schedule was given {name!r}. {nearest(str(name), SCHEDULES)}")
    if start is None:
        start = 0.5 if name == "one_shot" else 0.2
    require(
        is_number(start) and 0 <= start < 1,
        f"start was given {start!r}; expected a fraction of the training, 0 or more and below 1.",
    )
    require(
        isinstance(steps, int) and steps >= 1, f"steps was given {steps!r}; expected 1 or more."
    )
    if name == "one_shot":
        return partial(one_shot_sparsity, start=start)
    if name == "iterative":
        return partial(iterative_sparsity, start=start, steps=steps)
    return partial(gradual_sparsity, start=start)


@technique
def magnitude_pruning(
    *,
    sparsity: float = 0.9,
    schedule: Literal["one_shot", "iterative", "gradual"] = "gradual",
    criterion: str = "magnitude",
    granularity: Literal["element", "filter"] = "element",
    scope: Literal["global", "layer"] = "global",
    start: float | None = None,
    steps: int = 3,
) -> Technique:
    """Prune the weights of smallest magnitude while training.

    Args:
        sparsity: final share of zeros among linear and convolution weights, 0 < . < 1.
        schedule: "one_shot", "iterative" or "gradual".
        criterion: "magnitude", "movement", "magnitude_increase", "movement_magnitude" or "random".
        granularity: "element", or "filter" for whole output channels (of all layers but the last).
        scope: "global" pools all layers, "layer" prunes each to the same sparsity.
        start: fraction of training before the first pruning; None for 0.5 (one_shot) or 0.2.
        steps: jumps of "iterative".
    """
    rule = PruningRule(
        sparsity,
        pruning_schedule(schedule, start, steps),
        criterion,
        granularity,
        scope,
        every=1 if schedule != "gradual" else 4,
    )
    return pruning_while_training(rule)
