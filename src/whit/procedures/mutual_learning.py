"""Networks that learn from one another while they train, and the choice of the one to keep.

Zhang, Xiang, Hospedales and Lu, "Deep Mutual Learning", 2018, arXiv 1706.00384.

    L_k = CE(labels, z_k) + weight / (K - 1) sum_{j != k} T^2 KL(p_j || p_k)

All members move at once, on answers of the same step; the loss of the group is the mean of the L_k.

Shapes: z [members, batch, classes].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.core.data import Batch
from whit.core.hook import Hook
from whit.core.notes import Table
from whit.core.options import is_number, require
from whit.core.run import Run
from whit.measure.meter import undisturbed
from whit.parts.group import Group
from whit.parts.losses import distillation_loss, mutual_loss


class MutualLearning(Hook):
    """Adds each member's distance to the answers of its peers to the task's loss.

    In a group with `own_inputs` the peers are asked about a member's samples too: in evaluation
    mode and without gradient, K - 1 further forward calls of the group in each step.

    Args:
        group: two members or more.
        weight: of the peers' term, >= 0; 1 in the paper, 0 returns the task's loss itself.
        temperature: > 0; 1 in the paper.

    Raises:
        SpecError: there is one member, or a number is out of range.
    """

    def __init__(self, group: nn.Module, weight: float = 1.0, temperature: float = 1.0) -> None:
        """Check the ranges."""
        require(
            isinstance(group, Group) and len(group) >= 2,
            f"MutualLearning was given a {type(group).__name__}"
            + (f" of {len(group)} member" if isinstance(group, Group) else "")
            + "; expected a Group of two members or more, since a member learns from the others.",
        )
        check_weight("weight", weight)
        check_temperature(temperature)
        assert isinstance(group, Group)
        self.group = group
        self.weight = weight
        self.temperature = temperature

    def loss(self, loss: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Return loss + weight * mean over members of their distance to their peers."""
        if self.weight == 0:
            return loss
        if not self.group.own_inputs:
            return loss + self.weight * mutual_loss(output, self.temperature)
        shifts = range(1, len(self.group))
        apart = [
            distillation_loss(output, self._answers(batch, shift), self.temperature)
            for shift in shifts
        ]
        return loss + self.weight * torch.stack(apart).mean()

    def _answers(self, batch: Batch, shift: int) -> Tensor:
        """Return what member k + shift says of the samples of member k, for each k."""
        with undisturbed(self.group):
            output: Tensor = self.group(*[x.roll(shift, 0) for x in batch.inputs])
        return output.roll(-shift, 0)


def check_weight(name: str, value: object) -> None:
    """Raise a `SpecError` unless the value is a number >= 0.

    Raises:
        SpecError: it is not.
    """
    holds = isinstance(value, int | float) and is_number(value) and value >= 0
    require(holds, f"{name} was given {value!r}; expected a number >= 0.")


def check_temperature(value: object) -> None:
    """Raise a `SpecError` unless the value is a number > 0.

    Raises:
        SpecError: it is not.
    """
    holds = isinstance(value, int | float) and is_number(value) and value > 0
    require(holds, f"temperature was given {value!r}; expected a number > 0.")


def check_members(name: str, value: object) -> None:
    """Raise a `SpecError` unless the value is a whole number of networks that can form a group.

    Raises:
        SpecError: it is less than 2, or no whole number.
    """
    holds = isinstance(value, int) and not isinstance(value, bool) and value >= 2
    require(
        holds,
        f"{name} was given {value!r}; expected a whole number >= 2. One network has no peers to "
        "learn from: use plain() to train it alone.",
    )


def best_on_validation(run: Run, members: Sequence[nn.Module], title: str) -> nn.Module:
    """Return the member that does best on validation, the first of equals, and note all of them.

    Args:
        run: gives the task's metric and keeps the note.
        members: trained networks, one or more.
        title: heading of the note.
    """
    values = [run.evaluate(member) for member in members]
    best = max(range(len(values)), key=values.__getitem__)
    run.note(
        title,
        Table(
            ("member", f"valid {run.task.metric_name}", "kept"),
            [(k, value, k == best) for k, value in enumerate(values)],
            "Each network alone on the validation split; the best one is kept.",
        ),
    )
    return members[best]
