"""Mutual learning: networks of the same kind train together and copy from one another.

Zhang, Xiang, Hospedales and Lu, "Deep Mutual Learning", 2018, arXiv 1706.00384.

    L_k = CE(labels, z_k) + weight / (K - 1) sum_{j != k} T^2 KL(p_j || p_k)

Shapes: models give class scores [batch, classes]; the group [members, batch, classes].

Deviations from the paper: see the card `mutual_learning.md`.
"""

from __future__ import annotations

from torch import nn

from whit.core.options import check_flag
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable
from whit.parts.group import Group
from whit.procedures.member_ways import Way, check_way, note_way
from whit.procedures.mutual_learning import (
    MutualLearning,
    best_on_validation,
    check_members,
    check_temperature,
    check_weight,
)
from whit.procedures.own_gradients import OwnGradients


@technique
def mutual_learning(
    *,
    members: int = 2,
    weight: float = 1.0,
    temperature: float = 1.0,
    own_order: bool = False,
    way: Way = "one_by_one",
) -> Technique:
    """Train networks that imitate one another, and keep the best on validation.

    All members move at once, on answers of the same step.

    Args:
        members: how many, >= 2; each starts from weights of its own.
        weight: of the peers' term, >= 0; 0 trains the members apart.
        temperature: T of both softmaxes, > 0.
        own_order: each member goes through the samples in an order of its own, and its peers are
            asked about its samples in further forward calls.
        way: how the members run, "one_by_one", "batched", "threads" or "auto"; see `Group`.
    """
    check_members("members", members)
    check_weight("weight", weight)
    check_temperature(temperature)
    check_flag("own_order", own_order)
    check_way(way)

    def train(run: Run) -> nn.Module:
        if run.task.output_axes != 1 or not run.data.class_names:
            raise NotApplicable(
                f"mutual_learning needs one set of class scores per sample; task "
                f"'{run.task.name}' has none (that takes class_names in its data and "
                f"output_axes=1)."
            )
        networks = [run.build() for _ in range(members)]
        group = Group(networks, way=way, own_inputs=own_order)
        run.fit(
            group,
            hooks=(
                lambda group, plan: OwnGradients(group),
                lambda group, plan: MutualLearning(group, weight, temperature),
            ),
        )
        note_way(run, group)
        return best_on_validation(run, networks, "Mutual learning")

    return Technique(train=train)
