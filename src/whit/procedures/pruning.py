"""Move masks along a schedule: schedule x criterion x granularity, each a small part of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whit.core.hook import Hook
from whit.core.options import is_number, nearest, require
from whit.core.technique import Technique
from whit.errors import NoEffect, SpecError
from whit.parts.criteria import CRITERIA
from whit.parts.masks import (
    GRANULARITIES,
    SCOPES,
    add_masks,
    find_masks,
    latent_weight,
    lowest_units,
    unit_scores,
)
from whit.parts.schedules import Schedule
from whit.parts.surgery import bake, weighted_layers


@dataclass(frozen=True)
class PruningRule:
    """What to prune when.

    Attributes:
        sparsity: final share of zeros among the weights of the masked layers, 0 < . < 1.
        schedule: fraction of training -> fraction of the final sparsity.
        criterion: name in `parts.criteria.CRITERIA`; the lowest scores go first.
        granularity: "element" or "filter" (all weights of one output channel).
        scope: "global" pools all layers, "layer" prunes each to the same sparsity.
        every: optimiser steps between mask updates, >= 1; the last step always updates.
        min_keep: units that each layer keeps, so that none is cut off, >= 0.
    """

    sparsity: float
    schedule: Schedule
    criterion: str = "magnitude"
    granularity: str = "element"
    scope: str = "global"
    every: int = 1
    min_keep: int = 1

    def __post_init__(self) -> None:
        """Check ranges and names."""
        require(
            is_number(self.sparsity) and 0 < self.sparsity < 1,
            f"sparsity was given {self.sparsity!r}; expected a fraction between 0 and 1, such as "
            f"0.9 for 90 % zeros.",
        )
        for name, value, known in (
            ("criterion", self.criterion, tuple(CRITERIA)),
            ("granularity", self.granularity, GRANULARITIES),
            ("scope", self.scope, SCOPES),
        ):
            require(value in known, f"{name} was given {value!r}. {nearest(str(value), known)}")
        require(
            isinstance(self.every, int) and self.every >= 1,
            f"every was given {self.every!r}; expected a number of steps, 1 or more.",
        )
        require(
            isinstance(self.min_keep, int) and self.min_keep >= 0,
            f"min_keep was given {self.min_keep!r}; expected a number of units, 0 or more.",
        )


class ScheduledPruning(Hook):
    """Prunes masked layers along a rule; a hook, or an object for one's own loop.

    Call `after_step()` after each optimiser step. Effective weights that are pruned are exactly
    0 at all times, whatever momentum or weight decay do to the latent ones, and stay pruned.

    Args:
        model: with masks on its layers (`parts.masks.add_masks`).
        total_steps: optimiser steps of the run, > 0.
        rule: what to prune when.
        generator: random numbers for the criterion "random".

    Raises:
        NoEffect: the model has no masked layer.
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int,
        rule: PruningRule,
        generator: torch.Generator | None = None,
    ) -> None:
        """Remember the starting weights and take the first step of the schedule."""
        found = find_masks(model)
        if not found:
            raise NoEffect("There is nothing to prune: no layer of the model carries a mask.")
        check_total_steps(total_steps)
        self.layers = {path: layer for path, (layer, _) in found.items()}
        self.masks = {path: mask for path, (_, mask) in found.items()}
        self.total_steps = total_steps
        self.rule = rule
        self.generator = generator or torch.Generator().manual_seed(0)
        self.steps = 0
        needs_start = rule.criterion not in ("magnitude", "random")
        self.start = {
            path: latent_weight(layer).detach().clone() if needs_start else torch.zeros(())
            for path, layer in self.layers.items()
        }
        self._move_masks()

    def after_step(self) -> None:
        """Count a step; update the masks when it is time."""
        self.steps += 1
        if self.steps > self.total_steps:
            raise SpecError(
                f"Pruning was planned for {self.total_steps} steps and got more. Give the true "
                f"total."
            )
        if self.steps % self.rule.every == 0 or self.steps == self.total_steps:
            self._move_masks()

    def target_sparsity(self) -> float:
        """Return the sparsity that the schedule asks for now."""
        return self.rule.sparsity * self.rule.schedule(self.steps / self.total_steps)

    def _move_masks(self) -> None:
        target = self.target_sparsity()
        if target <= 0:
            return
        score = CRITERIA[self.rule.criterion]
        scores: dict[str, Tensor] = {}
        with torch.no_grad():
            for path, layer in self.layers.items():
                elements = score(latent_weight(layer).detach(), self.start[path], self.generator)
                scores[path] = unit_scores(elements, self.rule.granularity)
            moved = lowest_units(scores, self.masks, target, self.rule.scope, self.rule.min_keep)
            for path, mask in moved.items():
                self.masks[path].mask.copy_(mask)

    def state_dict(self) -> dict[str, Any]:
        """Return steps and starting weights (the masks are buffers of the model)."""
        return {"steps": self.steps, "start": dict(self.start)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved hook was."""
        self.steps = state["steps"]
        self.start = dict(state["start"])


def check_total_steps(total_steps: int) -> None:
    """Refuse a number of optimiser steps below 1."""
    require(total_steps >= 1, f"total_steps was given {total_steps}; expected 1 or more.")


def pruning_while_training(rule: PruningRule) -> Technique:
    """Return the technique that masks a model, moves the masks along a rule, and bakes them in.

    With granularity "filter" the last layer is left out: its filters are the classes.
    """

    def prepare(model: nn.Module, data: object) -> nn.Module:
        outputs = [weighted_layers(model)[-1][0]] if rule.granularity == "filter" else []
        add_masks(model, outputs)
        return model

    return Technique(
        prepare_model=prepare,
        hooks=(
            lambda model, plan: ScheduledPruning(model, plan.total_steps, rule, plan.generator),
        ),
        finish_model=lambda model, data: bake(model),
    )
