"""Students that see different samples, and imitate a random few of their peers.

Feng et al., "Collaborative Group Learning", 2021, arXiv 2009.07712; what was read and what is ours
says the card of `collaborative_group_learning`.

    L_k = sum_x a_k(x) CE(y, z_k) / sum_x a_k(x) + beta(t) T^2 KL(q_k || softmax(z_k / T))
    q_k = mean over j in G_k of softmax(z_j / T), without gradient

a_k(x) says whether x is in student k's sub-set; the second term is over all samples of the batch.

Shapes: z [students, batch, classes].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whit.core.data import Batch
from whit.core.hook import Hook, Plan
from whit.core.options import is_number, require
from whit.parts.losses import group_imitation_loss
from whit.parts.modular_network import ModularNetwork
from whit.procedures.mutual_learning import check_temperature, check_weight

LabelLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Imitation:
    """How students learn from one another.

    Attributes:
        weight: of the peers' term after the ramp, >= 0; 0 leaves the label loss alone.
        temperature: T > 0.
        group: peers that a student imitates in a step, 1 or more; None for half of the students.
            More than there are means all others.
        ramp: share of the training in which the weight grows from 0, 0..1.
        active: students that run in a step, 2 or more; None for all.
    """

    weight: float = 1.0
    temperature: float = 3.0
    group: int | None = None
    ramp: float = 0.15
    active: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SpecError: a value is out of its range.
        """
        check_weight("weight", self.weight)
        check_temperature(self.temperature)
        require(
            is_number(self.ramp) and 0 <= self.ramp <= 1,
            f"ramp was given {self.ramp!r}; expected a number between 0 and 1.",
        )
        for name, value, least in (("group", self.group, 1), ("active", self.active, 2)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            require(
                value is None or whole,
                f"{name} was given {value!r}; expected a whole number >= {least}, or None.",
            )


class GroupImitation(Hook):
    """Replaces the task's loss by the students' own: masked labels and random peers.

    Args:
        network: the students.
        plan: of the training.
        label_loss: `(output, target) -> mean over the samples`, the task's.
        seen: bool [students, samples]; which samples' labels a student learns from.
        imitation: how students learn from one another.

    Raises:
        SpecError: `seen` does not count the students.
    """

    def __init__(
        self,
        network: ModularNetwork,
        plan: Plan,
        label_loss: LabelLoss,
        seen: Tensor,
        imitation: Imitation,
    ) -> None:
        """Choose the first step's students."""
        require(
            len(seen) == len(network),
            f"seen has {len(seen)} rows, and there are {len(network)} students; expected one row "
            "of samples a student.",
        )
        self.network, self.plan, self.label_loss = network, plan, label_loss
        self.seen = seen.to(plan.device)
        self.imitation = imitation
        self.step = 0
        self._choose_active()

    def loss(self, loss: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Return the mean over the running students of their losses.

        A student that meets none of its samples in a batch has no label loss there.
        """
        running = self.network.running()
        labels = output.new_zeros(())
        for number, scores in zip(running, output, strict=True):
            mask = self.seen[number, batch.index]
            if bool(mask.any()):
                labels = labels + self.label_loss(scores[mask], batch.target[mask])
        total = labels / len(running)
        weight = self.imitation.weight * self._ramped()
        if weight == 0 or len(running) < 2:
            return total
        shares = draw_groups(len(running), self._size(len(running)), self.plan.generator)
        shares = shares.to(output.device)
        return total + weight * group_imitation_loss(output, shares, self.imitation.temperature)

    def _size(self, running: int) -> int:
        chosen = self.imitation.group
        return min(running - 1, max(1, running // 2) if chosen is None else chosen)

    def _ramped(self) -> float:
        length = self.imitation.ramp * self.plan.total_steps
        return 1.0 if self.step >= length else self.step / length

    def _choose_active(self) -> None:
        count = self.imitation.active
        if count is None or count >= len(self.network):
            return
        drawn = torch.randperm(len(self.network), generator=self.plan.generator)[:count]
        self.network.active = tuple(sorted(drawn.tolist()))

    def after_step(self) -> None:
        """Count, and choose the next step's students."""
        self.step += 1
        self._choose_active()

    def close(self) -> None:
        """Let all students run again."""
        self.network.active = None

    def state_dict(self) -> dict[str, Any]:
        """Return the step and its students."""
        active = self.network.active
        return {"step": self.step, "active": None if active is None else list(active)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved step."""
        self.step = state["step"]
        self.network.active = None if state["active"] is None else tuple(state["active"])


def draw_groups(students: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw for each student the peers that it imitates, uniformly and without itself.

    Args:
        students: how many, >= 2.
        size: peers each, 1..students - 1.
        generator: makes the draw repeatable.

    Shapes: -> [students, students]; 1 / size for the peers, else 0.
    """
    shares = torch.zeros(students, students)
    for k in range(students):
        peers = torch.randperm(students - 1, generator=generator)[:size]
        shares[k, peers + (peers >= k)] = 1 / size
    return shares


def stratified_subsets(
    target: Tensor, share: float, count: int, generator: torch.Generator
) -> Tensor:
    """Draw sub-sets of the samples, each with its share of every class.

    A class gives round(share * its samples), corrected by at most one so that the whole sub-set
    has round(share * samples).

    Args:
        target: int64 classes [samples].
        share: of the samples, 0 < . <= 1.
        count: how many sub-sets.
        generator: makes the draw repeatable.

    Shapes: -> bool [count, samples].

    Raises:
        SpecError: a class would be missing from the sub-sets.
    """
    sizes = torch.bincount(target)
    classes = sizes.nonzero().flatten()
    sizes = sizes[classes]
    wanted = share * sizes.double()
    taken = wanted.floor().long()
    rest = round(share * len(target)) - int(taken.sum())
    # The classes with the largest fractions give one more.
    taken[(taken - wanted).argsort(stable=True)[: max(0, rest)]] += 1
    missing = [int(c) for c, n in zip(classes, taken, strict=True) if n == 0]
    require(
        not missing,
        f"A share of {share} leaves no sample of class {missing[0] if missing else ''} in a "
        "student's sub-set. Use a larger share, or more samples.",
    )
    seen = torch.zeros(count, len(target), dtype=torch.bool)
    for row in seen:
        for label, number in zip(classes.tolist(), taken.tolist(), strict=True):
            places = (target == label).nonzero().flatten()
            drawn = torch.randperm(len(places), generator=generator)[:number]
            row[places[drawn]] = True
    return seen
