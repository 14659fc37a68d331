"""Collaborative group learning: students that are paths through one modular network.

Feng, Chen, Ren, Ding, Li and Sun, "Collaborative Group Learning", 2021, arXiv 2009.07712. Read were
its abstract, introduction and a summary; every number and several choices are ours.

    route of student k      one module of M in each stage, then a head of its own
    label loss              over the samples of its own sub-set only
    imitation               of a random sub-group of its peers, over all samples

Shapes: the model is a chain that gives class scores [batch, classes].

Deviations from the paper: see the card `collaborative_group_learning.md`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from whit.core.data import Data
from whit.core.hook import Hook, Plan
from whit.core.notes import Table
from whit.core.options import is_number, nearest, require
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable
from whit.parts.combine_members import Combine
from whit.parts.modular_network import (
    ModularNetwork,
    Route,
    cut_into_stages,
    draw_routes,
    is_chain,
    share_modules,
)
from whit.procedures.group_imitation import GroupImitation, Imitation, stratified_subsets
from whit.procedures.mutual_learning import best_on_validation, check_members

Norms = Literal["module", "student"]
Keep = Literal["best", "ensemble"]


@technique
def collaborative_group_learning(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    students: int = 4,
    modules: int = 2,
    stages: int = 3,
    share: float = 0.8,
    weight: float = 1.0,
    temperature: float = 3.0,
    group: int | None = None,
    ramp: float = 0.15,
    active: int | None = None,
    norms: Norms = "module",
    keep: Keep = "best",
) -> Technique:
    """Train students that share modules, see different samples and imitate a few of their peers.

    Args:
        students: how many, >= 2.
        modules: interchangeable ones in each stage, 1..students; 1 shares everything but
            the heads, as many as students makes networks of their own.
        stages: at most so many before the heads; the model's top-level children are cut evenly.
        share: of the samples whose labels a student learns from, 0 < . <= 1; class by class.
        weight: of the imitation after its ramp, >= 0.
        temperature: T of the imitation, > 0.
        group: peers that a student imitates in a step; None for half of the students.
        ramp: share of the training in which the imitation grows from 0, 0..1.
        active: students that run in a step, >= 2; None for all.
        norms: batch norms belong to the "module", or each "student" has its own.
        keep: the "best" student on validation, or the "ensemble" of all.
    """
    check_members("students", students)
    imitation = Imitation(weight, temperature, group, ramp, active)
    for name, value, most in (("modules", modules, students), ("stages", stages, None)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        require(
            whole and (most is None or value <= most),
            f"{name} was given {value!r}; expected a whole number >= 1"
            + (f" and at most the {most} students." if most else "."),
        )
    require(
        is_number(share) and 0 < share <= 1,
        f"share was given {share!r}; expected a number above 0, up to 1.",
    )
    for name, choice, known in (
        ("norms", norms, ("module", "student")),
        ("keep", keep, ("best", "ensemble")),
    ):
        require(choice in known, f"{name} was given {choice!r}. {nearest(str(choice), known)}")

    def train(run: Run) -> nn.Module:
        _require_classes(run)
        # Of the run's own stream, which a resumed run draws from in the same order.
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, (1,))))
        network, routes = _students(run, (students, modules, stages), norms, generator)
        seen = stratified_subsets(run.data.train.target.cpu(), share, students, generator)

        def hook(model: nn.Module, plan: Plan) -> Hook:
            return GroupImitation(network, plan, run.task.loss, seen, imitation)

        run.fit(network, hooks=(hook,))
        _note(run, routes, network)
        copies = [network.student(k) for k in range(students)]
        best = best_on_validation(run, copies, "Students")
        return best if keep == "best" else nn.Sequential(network, Combine("softmax"))

    return Technique(train=train)


def _require_classes(run: Run) -> None:
    data: Data = run.data
    if run.task.output_axes != 1 or not data.class_names:
        raise NotApplicable(
            f"collaborative_group_learning needs one set of class scores per sample; task "
            f"'{run.task.name}' has none (that takes class_names in its data and output_axes=1)."
        )
    if len(data.train.inputs) + len(data.train.shared) != 1:
        raise NotApplicable(
            f"collaborative_group_learning runs chains of modules, which take one input; task "
            f"'{run.task.name}' gives {len(data.train.inputs) + len(data.train.shared)}."
        )


def _students(
    run: Run, sizes: tuple[int, int, int], norms: Norms, generator: torch.Generator
) -> tuple[ModularNetwork, list[Route]]:
    """Build the networks and let them share their modules."""
    students, modules, stages = sizes
    models = [run.build() for _ in range(students)]
    names = cut_into_stages(models[0], stages)[:-1]
    chains = [model for model in models if isinstance(model, nn.Sequential) and is_chain(model)]
    routes = draw_routes([modules] * len(names), students, generator)
    return share_modules(chains, names, routes, norms == "student"), routes


def _note(run: Run, routes: list[Route], network: ModularNetwork) -> None:
    shared = sum(p.numel() for p in network.parameters())
    apart = sum(sum(p.numel() for p in student.parameters()) for student in network.students)
    run.note(
        "Routes",
        Table(
            ("student", *(f"stage {stage}" for stage in range(len(routes[0])))),
            [(k, *route) for k, route in enumerate(routes)],
            f"The module of each student in each stage. Trained together they have {shared:,} "
            f"parameters, and would have {apart:,} apart.",
        ),
    )
