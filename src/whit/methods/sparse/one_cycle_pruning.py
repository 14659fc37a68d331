"""One-cycle pruning: prune from the first to the last step of a single training run.

Hubens, Mancas, Gosselin, Preda and Zaharia, "One-Cycle Pruning", 2021, arXiv 2107.02086.

    s(t) = s_final (1 + exp(-alpha + beta)) / (1 + exp(-alpha t + beta)),   alpha = 14, beta = 6

t is the fraction of optimiser steps done. Whenever s(t) is applied, the weights with the
smallest |w| among those left are pruned until the share s(t) of all prunable weights is 0;
pruned weights stay so.

Shapes: masks have the shape of their weight. Prunable are linear and convolution weights; biases
and normalisation are not, and do not count in the sparsity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from whit.core.options import is_number, require
from whit.core.technique import Technique, technique
from whit.parts.masks import add_masks
from whit.parts.schedules import one_cycle_sparsity
from whit.procedures.pruning import (
    PruningRule,
    ScheduledPruning,
    check_total_steps,
    pruning_while_training,
)


class OneCyclePruning(ScheduledPruning):
    """One-cycle pruning for one's own loop: call `after_step()` after each `optimizer.step()`.

    Masks are put on the model when the object is made; parameters stay the same objects, so the
    optimiser may exist already. `parts.surgery.bake(model)` turns them into plain zeros at the end.
    For other curves and criteria use `ScheduledPruning` with a rule.

    Args:
        model: any module with linear or convolution layers.
        total_steps: optimiser steps of the whole run.
        sparsity: final share of zeros, 0 < . < 1.
        scope: "global" or "layer".
        every: steps between mask updates; the last step always updates.
        skip: paths or child names of layers to leave dense.
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int,
        *,
        sparsity: float = 0.9,
        scope: str = "global",
        every: int = 4,
        skip: Sequence[str] = (),
    ) -> None:
        """Put masks on the model and start the schedule."""
        rule = PruningRule(sparsity, one_cycle_sparsity, scope=scope, every=every)
        check_total_steps(total_steps)
        add_masks(model, skip)
        super().__init__(model, total_steps, rule)


@technique
def one_cycle_pruning(
    *,
    sparsity: float = 0.9,
    alpha: float = 14.0,
    beta: float = 6.0,
    criterion: str = "magnitude",
    scope: str = "global",
    every: int = 4,
) -> Technique:
    """Prune along an S-curve over the whole of one training run.

    Args:
        sparsity: final share of zeros among linear and convolution weights, 0 < . < 1.
        alpha: steepness of the curve, > 0.
        beta: half of the pruning is done near t = beta / alpha; 0 <= beta < alpha.
        criterion: "magnitude", "movement", "magnitude_increase", "movement_magnitude" or "random".
        scope: "global" pools all layers, "layer" prunes each to the same sparsity.
        every: optimiser steps between mask updates; the last step always updates.
    """
    require(
        is_number(alpha) and is_number(beta) and alpha > 0 and 0 <= beta < alpha,
        f"alpha={alpha!r}, beta={beta!r} were given; expected alpha > 0 and 0 <= beta < alpha.",
    )
    schedule = partial(one_cycle_sparsity, alpha=alpha, beta=beta)
    rule = PruningRule(sparsity, schedule, criterion, scope=scope, every=every)
    return pruning_while_training(rule)
