"""CNNG: a collaborative group of networks, grown from one by reflection.

Gao and Cheng, "Learning with Collaborative Neural Network Group by Reflection", 2019, arXiv
1901.02433. Only its abstract and first page could be read; the algorithm is our reconstruction.

    F, R1, R2       10 : 1 : 1 of the training samples, class by class
    situation 0     margin of member 0 at least tau: the precision on R1 is 0.999 or more
    situation k     else the likeliest of K groups of classes that member 0 confuses on R1
    specialist k    from member 0's weights, on F, drawn by eps + (1 - margin) * chance of group k
    strategy        of each situation: the members whose mean probability is best on R2

Shapes: class scores [batch, classes]; the result is a `whit.parts.route.Route`.

Deviations from the paper: see the card `cnng.md`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from whit.core.hook import Hook, Plan
from whit.core.notes import Pictures, Table
from whit.core.options import check_flag, is_number, nearest, require
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable
from whit.procedures.reflection.collaborative_group import CollaborativeGroup
from whit.procedures.reflection.evolution import (
    Members,
    Parts,
    chosen_strategies,
    divide_samples,
    evolve,
    route_of,
)
from whit.procedures.reflection.found_situations import ReflectionOptions, find_situations
from whit.procedures.reflection.growth import grow as grow_group
from whit.procedures.reflection.prototypes import prototype_pictures
from whit.procedures.reflection.strategies import MOST_MEMBERS
from whit.procedures.teachers import Distillation, teacher_scores

SITUATIONS = ("spectral", "linkage", "kmeans")


@technique
def cnng(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    groups: int = 2,
    situations: Literal["spectral", "linkage", "kmeans"] = "spectral",
    target: float = 0.999,
    eps: float = 0.1,
    epochs: int | None = None,
    rate: float = 0.5,
    gate: bool = False,
    gate_hidden: int = 0,
    grow: bool = False,
    max_members: int = 5,
    distil: bool = False,
) -> Technique:
    """Grow specialists for what a network is unsure of, and route each input to who knows it.

    Args:
        groups: K, situations beside the familiar one, each with a specialist, >= 1.
        situations: classes that are confused, cut by "spectral" or "linkage" clustering, or
            clusters of the uncertain samples' features by "kmeans".
        target: share of familiar samples that member 0 must get right on held-out data, 0..1; 0
            calls all familiar, which leaves member 0 alone.
        eps: sampling weight of samples that are none of a specialist's business, > 0.
        epochs: of each specialist; None for as many as member 0.
        rate: a specialist's learning rate over member 0's, > 0.
        gate: also train a gate that chooses one member; it is kept if it is better on R2.
        gate_hidden: units of the gate's hidden layer, >= 0; 0 makes it linear.
        grow: let the group reflect in its turn and take in one specialist a round, as long as R2
            gains more than one standard error.
        max_members: at which growth stops, groups + 2..10; unused without `grow`.
        distil: teach one new network the group's answers, and return that.
    """
    most = max_members if grow is True else 0
    options = ReflectionOptions(
        groups, situations, target, eps, epochs, rate, gate, gate_hidden, most
    )
    _check(options)
    _check_growth(groups, grow, max_members)
    check_flag("distil", distil)

    def train(run: Run) -> nn.Module:
        _require_classes(run)
        # Of the run's own stream, which a resumed run draws from in the same order.
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, (1,))))
        names = run.data.class_names
        parts = divide_samples(run.data.train, generator)
        members = Members(run, parts, run.fit(run.build(), data=parts.fit))
        labels = parts.reflect.target.cpu()
        found = find_situations(
            members.reflect[0], labels, names, options, generator.initial_seed()
        )
        evolve(members, found, options, generator)
        choice = (found, chosen_strategies(members, found))
        if grow:
            choice = grow_group(members, choice, names, options, generator)
        route, gated = route_of(members, *choice, options, generator.initial_seed())
        _note(run, CollaborativeGroup(route, parts.reflect, names), parts, gated)
        if not distil:
            return route
        teacher = teacher_scores(route)

        def hook(model: nn.Module, plan: Plan) -> Hook:
            return Distillation(teacher)

        # Nothing is chosen by R1 and R2 any more, so the new network learns from all samples.
        return run.fit(run.build(), hooks=(hook,))

    return Technique(train=train)


def _check(options: ReflectionOptions) -> None:
    for name, value, optional in (
        ("groups", options.groups, False),
        ("epochs", options.epochs, True),
    ):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        require(
            whole or (optional and value is None),
            f"{name} was given {value!r}; expected a whole number >= 1"
            + (", or None for as many as the first network." if optional else "."),
        )
    require(
        options.groups <= 9,
        f"groups was given {options.groups!r}; at most 9: all subsets of the members are tried.",
    )
    require(
        options.situations in SITUATIONS,
        f"situations was given {options.situations!r}. "
        f"{nearest(str(options.situations), SITUATIONS)}",
    )
    require(
        is_number(options.precision) and 0 <= options.precision <= 1,
        f"target was given {options.precision!r}; expected a number between 0 and 1.",
    )
    for name, number in (("eps", options.eps), ("rate", options.rate)):
        require(
            is_number(number) and number > 0, f"{name} was given {number!r}; expected a number > 0."
        )
    check_flag("gate", options.gate)
    hidden = options.gate_hidden
    require(
        isinstance(hidden, int) and not isinstance(hidden, bool) and hidden >= 0,
        f"gate_hidden was given {hidden!r}; expected a whole number >= 0.",
    )


def _check_growth(groups: int, grow: bool, most: int) -> None:
    check_flag("grow", grow)
    whole = isinstance(most, int) and not isinstance(most, bool)
    require(
        not grow or (whole and groups + 2 <= most <= MOST_MEMBERS),
        f"max_members was given {most!r}; expected a whole number from {groups + 2}, one more than "
        f"the {groups + 1} members to begin with, to {MOST_MEMBERS}.",
    )


def _require_classes(run: Run) -> None:
    data = run.data
    if run.task.output_axes != 1 or len(data.class_names) < 2:
        raise NotApplicable(
            f"cnng needs one set of class scores per sample; task '{run.task.name}' has none (that "
            "takes class_names in its data and output_axes=1)."
        )
    if data.train.shared:
        raise NotApplicable(
            f"cnng runs some members on some samples alone; task '{run.task.name}' gives all "
            "samples in one whole, such as a graph."
        )


def _note(run: Run, group: CollaborativeGroup, parts: Parts, gated: bool) -> None:
    rows = group.report(parts.choose)
    columns = ("situation", "share", "members", "first network", "group", "oracle")
    calls = group.calls_per_input(parts.choose)
    run.note(
        "Situations",
        Table(
            columns,
            [tuple(row.values()) for row in rows],
            f"Accuracies on R2 ({len(parts.choose)} samples), on which the members of each "
            "situation were chosen, so those of the group are optimistic. The oracle knows the "
            "labels: the share for which any member is right, a bound for choosing one and no "
            f"result. Members run {sum(calls):.2f} times an input on average."
            + (" A learned gate chooses the member." if gated else ""),
        ),
    )
    pictures = prototype_pictures(group)
    if pictures:
        run.note("Prototypes", Pictures(pictures, "Typical held-out samples of each situation."))
