"""Grafting while a group trains: after each epoch, with learning rates of the members' own.

Meng, Cheng, Li, Xu, Ji, Sun and Lu, "Filter Grafting for Deep Neural Networks", 2020,
arXiv 2001.05868. The formulas are in `parts.grafting` and `parts.filter_chains`.

    rate of network i of K = rate * (1 + cos(pi (K - i) / K)) / 2
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whit.core.hook import Hook
from whit.core.options import nearest, require
from whit.parts.filter_chains import filter_chain, graft_filters
from whit.parts.grafting import (
    DEFAULT_A,
    DEFAULT_C,
    check_coefficients,
    graft,
    internal_source,
    noise_source,
    require_alike,
)
from whit.parts.layer_groups import graft_groups
from whit.procedures.own_gradients import members_of

Level = Literal["layer", "filter"]
Source = Literal["neighbour", "noise", "internal"]
LEVELS: tuple[Level, ...] = ("layer", "filter")
SOURCES: tuple[Source, ...] = ("neighbour", "noise", "internal")
# Of the baseline with noise: our choice, since the paper's was not re-read.
NOISE_DEVIATION = 0.1
NOISE_DECAY = 0.9


@dataclass(frozen=True)
class GraftRule:
    """What is grafted, and from where.

    Attributes:
        a: width of the coefficient's range, 0..1; 0 is plain averaging.
        c: its steepness, > 0.
        level: "layer" (one coefficient a convolution, by entropy), or "filter" (one a channel, by
            batch norm's scales; a and c are not used).
        source: "neighbour", or for comparison "noise" or "internal", which leave the networks
            apart: noise on invalid filters, or valid filters copied onto invalid ones.

    Raises:
        SpecError: a number is out of range, a name unknown, or two choices do not go together.
    """

    a: float = DEFAULT_A
    c: float = DEFAULT_C
    level: Level = "layer"
    source: Source = "neighbour"

    def __post_init__(self) -> None:
        """Check ranges and names."""
        check_coefficients(self.a, self.c)
        for name, value, known in (("level", self.level, LEVELS), ("source", self.source, SOURCES)):
            require(
                value in known,
                f"{name} was given {value!r}; expected one of {', '.join(known)}. "
                f"{nearest(str(value), known)}",
            )
        require(
            self.level == "layer" or self.source == "neighbour",
            f"source={self.source!r} treats invalid filters of each layer, so level='filter' says "
            "nothing beside it. Leave level out.",
        )
        require(
            (self.level, self.source) == ("layer", "neighbour")
            or (self.a, self.c) == (DEFAULT_A, DEFAULT_C),
            "a and c are of the entropy criterion, which neither level='filter' nor another source "
            "than the neighbour uses. Leave a and c out.",
        )


class Graft(Hook):
    """Grafts the members of a group at the end of every epoch.

    In one's own loop: `Graft(group)`, and `after_epoch()` at the end of each epoch. The optimiser's
    state is left as it is, as in the authors' code.

    Args:
        group: two networks or more of one kind.
        rule: what is grafted, and from where.
        epochs: after so many grafts `look` is called no more; None never calls it.
        look: `() -> one number a member`, called once, just before the last graft.
        generator: of the noise; None for a seed of 0.

    Attributes:
        done: grafts so far.
        by_graph: whether the way of the data was found; see `parts.layer_groups.LayerGroups`.
        seen: what `look` returned; empty before.

    Raises:
        SpecError: no group of two or more networks of one kind.
        NotApplicable: the filter level does not fit the networks; the message says where.
        NoEffect: the networks have no convolution and no linear layer.
    """

    def __init__(
        self,
        group: nn.Module,
        rule: GraftRule | None = None,
        *,
        epochs: int | None = None,
        look: Callable[[], list[float]] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Find the layers and what belongs to them."""
        self.members = members_of(group)
        require_alike([member.state_dict() for member in self.members])
        self.rule = rule or GraftRule()
        self.groups = graft_groups(self.members[0])
        self.by_graph = self.groups.by_graph
        self.chain = filter_chain(self.members[0]) if self.rule.level == "filter" else ()
        self.epochs = epochs
        self.look = look
        self.generator = generator or torch.Generator().manual_seed(0)
        self.done = 0
        self.seen: list[float] = []

    def after_epoch(self) -> None:
        """Graft."""
        if self.look is not None and self.done + 1 == self.epochs:
            self.seen = self.look()
        states = [member.state_dict() for member in self.members]
        for member, state in zip(self.members, self._grafted(states), strict=True):
            member.load_state_dict(state)
        self.done += 1

    def _grafted(self, states: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        rule = self.rule
        if rule.source == "internal":
            return [internal_source(state, self.groups) for state in states]
        if rule.source == "noise":
            deviation = NOISE_DEVIATION * NOISE_DECAY**self.done
            return [noise_source(s, self.groups, deviation, self.generator) for s in states]
        if rule.level == "filter":
            return graft_filters(states, self.chain)
        return graft(states, self.groups, rule.a, rule.c)

    def state_dict(self) -> dict[str, Any]:
        """Return how many grafts were done, and what was seen."""
        return {"done": self.done, "seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved hook was; the generator is the caller's to restore."""
        self.done, self.seen = state["done"], list(state["seen"])


class DifferentRates(Hook):
    """Gives each member of a group a learning rate of its own, from small to the full one.

    Args:
        group: of networks that share no parameter.
        optimizer: of all their parameters; its groups are split by member, and keep their weight
            decay. Its schedule must multiply each group's `initial_lr`, as `fit` does.

    Attributes:
        factors: of the learning rate, one a member; the last is 1.

    Raises:
        SpecError: no group of two or more, or two members share a parameter.
    """

    def __init__(self, group: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Regroup the optimiser's parameters."""
        members = members_of(group)
        self.factors = [different_rate(k, len(members)) for k in range(1, len(members) + 1)]
        owner: dict[Tensor, int] = {}
        for k, member in enumerate(members):
            for parameter in member.parameters():
                require(
                    owner.setdefault(parameter, k) == k,
                    "Two members of the group share a parameter, which cannot have two learning "
                    "rates. Build each member anew.",
                )
        regrouped = []
        for old in optimizer.param_groups:
            rate = old.get("initial_lr", old["lr"])
            for k, factor in enumerate(self.factors):
                mine = [p for p in old["params"] if owner.get(p) == k]
                if mine:
                    own = {"params": mine, "lr": rate * factor, "initial_lr": rate * factor}
                    regrouped.append({**old, **own})
            others = [p for p in old["params"] if p not in owner]
            if others:
                regrouped.append({**old, "params": others})
        optimizer.param_groups[:] = regrouped


def different_rate(number: int, members: int) -> float:
    """Return the factor of a member's learning rate: (1 + cos(pi (K - i) / K)) / 2.

    Args:
        number: i, of the member, from 1 to K.
        members: K.
    """
    return (1 + math.cos(math.pi * (members - number) / members)) / 2
