"""Hooks that move weights of few values: through latent ones that are clipped, or by flips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whit.core.hook import Hook, Plan
from whit.core.options import is_number, require
from whit.errors import NoEffect
from whit.parts.levels import leveled_layers
from whit.parts.masks import find_masks, latent_weight
from whit.parts.straight_through import binary_sign
from whit.parts.surgery import WEIGHTED


class ClipLatentWeights(Hook):
    """Keeps latent weights within [-limit, limit] and free of weight decay.

    Decay would pull them to 0, where they flip with the noise. The latent weights are those of all
    layers whose weight carries `parts.levels.Levels`.

    Args:
        model: with binary, ternary or other levelled weights.
        plan: of the run; its optimiser's groups are split so that latent weights are not decayed.
            None, in one's own loop, leaves the optimiser alone.
        limit: > 0, finite.

    Raises:
        SpecError: the limit is out of range.
    """

    def __init__(self, model: nn.Module, plan: Plan | None = None, limit: float = 1.0) -> None:
        """Collect the latent weights and take them out of weight decay."""
        require(
            is_number(limit) and 0 < limit < math.inf,
            f"limit was given {limit!r}; expected a finite number > 0.",
        )
        self.limit = limit
        self.latent = [latent_weight(layer) for _, layer in leveled_layers(model)]
        if plan is not None:
            exempt_from_decay(plan, self.latent)

    def after_step(self) -> None:
        """Clip."""
        for weight in self.latent:
            weight.data.clamp_(-self.limit, self.limit)


def exempt_from_decay(plan: Plan, weights: Sequence[Tensor]) -> None:
    """Move these parameters of the plan's optimiser into groups of their own without decay.

    Args:
        plan: of the run.
        weights: parameters; those that the optimiser does not hold are ignored.
    """
    exempt = {id(w) for w in weights}
    for group in list(plan.optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in exempt]
        if not moved or not group.get("weight_decay"):
            continue
        group["params"] = [p for p in group["params"] if id(p) not in exempt]
        plan.optimizer.add_param_group({**group, "params": moved, "weight_decay": 0.0})


class Bop(Hook):
    """Trains weights of -1 and +1 without latent ones: an average of gradients flips them.

    Helwegen et al., "Latent Weights Do Not Exist", 2019, arXiv 1906.02107:

        m <- (1 - gamma) m + gamma g,   w <- -w  where  |m| > threshold and sign(m) = sign(w)

    In one's own loop call `before_step()` between `backward` and the optimiser's step; the
    optimiser then leaves these weights alone, since their gradients are gone.

    Args:
        model: treats all linear and convolution layers whose trained weight is -1 and +1 only, as
            `start_at_signs` makes them.
        plan: of the run; gamma then follows the learning rate's schedule. None leaves it constant.
        gamma: share of the newest gradient in the average, 0 < gamma <= 1.
        threshold: averages up to this size flip nothing, >= 0; infinity flips nothing at all.

    Raises:
        SpecError: an option is out of range, or these weights are pruned: their magnitudes are all
            1, so they would fall by position.
        NoEffect: no weight is -1 and +1 only.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan | None = None,
        gamma: float = 1e-3,
        threshold: float = 1e-6,
    ) -> None:
        """Start the averages at 0."""
        check_bop(gamma, threshold)
        self.gamma, self.threshold = gamma, threshold
        self.optimizer = None if plan is None else plan.optimizer
        layers = [m for m in model.modules() if isinstance(m, WEIGHTED)]
        weights = [latent_weight(layer) for layer in layers]
        self.weights = [w for w in weights if bool((w.detach().abs() == 1).all())]
        if not self.weights:
            raise NoEffect(
                "Bop found no layer whose weights are -1 and +1 only; there is nothing to flip."
            )
        self._refuse_masks(model)
        self.momenta = [torch.zeros_like(w, requires_grad=False) for w in self.weights]

    def _refuse_masks(self, model: nn.Module) -> None:
        flipped = {id(weight) for weight in self.weights}
        for path, (layer, _) in find_masks(model).items():
            require(
                id(latent_weight(layer)) not in flipped,
                f"Layer '{path}' is to be pruned, and Bop keeps no latent weights: all magnitudes "
                "are 1, so weights would fall by position, not by size. Prune with latent weights: "
                "optimizer='latent'.",
            )

    def before_step(self) -> None:
        """Average the gradients, flip, and take the gradients away from the optimiser."""
        gamma = self.gamma * self._rate()
        with torch.no_grad():
            for weight, momentum in zip(self.weights, self.momenta, strict=True):
                if weight.grad is None:
                    continue
                momentum.lerp_(weight.grad, gamma)
                # sign(m) = sign(w) and |m| > threshold, since w is -1 or +1
                flips = momentum * weight > self.threshold
                weight.copy_(torch.where(flips, -weight, weight))
                weight.grad = None

    def _rate(self) -> float:
        """Return the learning rate as a share of its peak."""
        if self.optimizer is None:
            return 1.0
        group = self.optimizer.param_groups[0]
        peak = float(group.get("initial_lr", group["lr"]))
        return float(group["lr"]) / peak if peak else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, all that there is beside the weights."""
        return {"momenta": list(self.momenta)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved hook was."""
        self.momenta = [m.to(w) for m, w in zip(state["momenta"], self.weights, strict=True)]


def check_bop(gamma: float, threshold: float) -> None:
    """Check the options of `Bop`.

    Raises:
        SpecError: one is out of range.
    """
    require(
        is_number(gamma) and 0 < gamma <= 1,
        f"gamma was given {gamma!r}; expected a number above 0, up to 1.",
    )
    require(
        threshold == math.inf or (is_number(threshold) and threshold >= 0),
        f"threshold was given {threshold!r}; expected a number, 0 or more.",
    )


def start_at_signs(layers: Sequence[nn.Module]) -> None:
    """Set the weights of layers to their signs, +1 for 0, in place: where `Bop` starts."""
    with torch.no_grad():
        for layer in layers:
            weight = latent_weight(layer)
            weight.copy_(binary_sign(weight))
