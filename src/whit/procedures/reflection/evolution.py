"""A group grown from one network: specialists, and which members answer what.

Shapes: one set of class scores per sample; inputs [batch, ...].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.core.run import Run
from whit.measure.meter import FORWARD_AND_BACKWARD, forward_macs
from whit.parts.norm_statistics import reestimate_norms
from whit.parts.route import FeatureRule, Route
from whit.procedures.reflection.answers import Answers, charged_answers, macs_of_one
from whit.procedures.reflection.calibration import margins
from whit.procedures.reflection.division import divide
from whit.procedures.reflection.found_situations import ReflectionOptions, Situations
from whit.procedures.reflection.gate import STEPS, fit_gate
from whit.procedures.reflection.specialists import specialist_weights
from whit.procedures.reflection.strategies import Strategy, choose_strategies, routed_chances

FIT, HELD = 10, 1  # shares of F, R1 and R2: 10 : 1 : 1
NORM_SAMPLES, NORM_BATCH = 4096, 512


@dataclass(frozen=True)
class Parts:
    """F to fit, R1 to reflect on, R2 to choose on: disjoint."""

    fit: Split
    reflect: Split
    choose: Split


def divide_samples(train: Split, generator: torch.Generator) -> Parts:
    """Divide training samples 10 : 1 : 1 into F, R1 and R2, every class in proportion.

    Raises:
        SpecError: a class is missing from a part.
    """
    parts = divide(train.target.cpu(), (FIT, HELD, HELD), generator)
    return Parts(*(train.subset(part.to(train.target.device)) for part in parts))


class Members:
    """The networks of a group, with what they say of R1 and R2: each is asked once, and charged.

    Args:
        run: is charged.
        parts: of its training samples.
        first: member 0, trained on F; the others must be of its architecture.
    """

    def __init__(self, run: Run, parts: Parts, first: nn.Module) -> None:
        """Ask the first network."""
        self.run = run
        self.parts = parts
        self.macs = macs_of_one(first, parts.fit)
        self.networks: list[nn.Module] = []
        self.reflect: list[Answers] = []
        self.choose: list[Answers] = []
        self.add(first)

    def __len__(self) -> int:
        return len(self.networks)

    def add(self, network: nn.Module) -> None:
        """Take one more member in."""
        self.networks.append(network)
        self.reflect.append(self.asked(network, self.parts.reflect))
        self.choose.append(self.asked(network, self.parts.choose))

    def asked(
        self, network: nn.Module, split: Split, generator: torch.Generator | None = None
    ) -> Answers:
        """Return what a member says, and charge it; with a generator, of augmented samples."""
        augment = None if generator is None else self.run.data.augment
        return charged_answers(self.run, network, split, augment, generator, macs=self.macs)

    def drop_last(self) -> None:
        """Leave the newest member out again; what it cost stays charged."""
        for kept in (self.networks, self.reflect, self.choose):
            kept.pop()


def chances_of(answers: Sequence[Answers]) -> Tensor:
    """Return the class probabilities of several networks, [members, samples, classes]."""
    return torch.stack([a.chances() for a in answers])


def chosen_strategies(members: Members, found: Situations) -> tuple[Strategy, ...]:
    """Choose on R2 which members answer in each situation.

    What is familiar is left to member 0, so that it costs one network.
    """
    answers = members.choose
    target = members.parts.choose.target.cpu()
    situations = found.of(answers[0])
    chosen = choose_strategies(chances_of(answers), situations, target, found.rule.situations)
    return ((0,), *chosen[1:])


def right_on_r2(members: Members, found: Situations, strategies: Sequence[Strategy]) -> int:
    """Return how many samples of R2 the group gets right."""
    chances = routed_chances(
        chances_of(members.choose), found.of(members.choose[0]), list(strategies)
    )
    return int((chances.argmax(-1) == members.parts.choose.target.cpu()).sum())


def evolve(
    members: Members, found: Situations, options: ReflectionOptions, generator: torch.Generator
) -> None:
    """Train a specialist for each situation of member 0, and take them in.

    Margins are those of augmented samples, where the task augments.
    """
    parts = members.parts
    seen = members.asked(members.networks[0], parts.fit, generator)
    unsure = 1 - margins(seen.chances(found.temperature))
    belongs = found.belonging(seen)
    target = parts.fit.target.cpu()
    for k, group in enumerate(found.groups):
        weights = specialist_weights(unsure, belongs[:, k], target, group, options.eps)
        members.add(specialist(members, weights, options, generator))


def specialist(
    members: Members, weights: Tensor, options: ReflectionOptions, generator: torch.Generator
) -> nn.Module:
    """Train a copy of member 0 on all of F, drawn by these weights.

    Batch norms learn from skewed samples meanwhile; their statistics are estimated anew on F.
    """
    run, fit = members.run, members.parts.fit
    settings = run.settings.changed(
        learning_rate=options.rate * run.settings.learning_rate,
        epochs=options.epochs or run.settings.epochs,
    )
    network = copy.deepcopy(members.networks[0])
    run.fit(network, data=fit, sample_weights=weights, settings=settings)
    order = torch.randperm(len(fit), generator=generator)[:NORM_SAMPLES].to(fit.target.device)
    batches = [fit.batch(numbers).inputs for numbers in torch.split(order, NORM_BATCH)]
    run.meter.add_macs(len(order) * members.macs)
    with run.meter.training(nn.Identity()):  # the seconds
        return reestimate_norms(network, batches)


def route_of(
    members: Members,
    found: Situations,
    strategies: tuple[Strategy, ...],
    options: ReflectionOptions,
    seed: int = 0,
) -> tuple[Route, bool]:
    """Return the route, and whether it is that of a learned gate.

    The gate is trained on R1 and kept only if it is right on more samples of R2.
    """
    plain = Route(members.networks, found.rule, strategies)
    if not options.gate:
        return plain, False
    features, meter = members.reflect[0].features, members.run.meter
    with meter.training(nn.Identity()):  # the seconds
        head = fit_gate(
            features,
            chances_of(members.reflect),
            members.parts.reflect.target.cpu(),
            hidden=options.gate_hidden,
            seed=seed,
        )
    meter.add_macs(STEPS * FORWARD_AND_BACKWARD * forward_macs(head, features))
    familiar = found.rule.familiar
    rule = FeatureRule(head, 1 + len(members), familiar.margin, familiar.temperature)
    single = ((0,), *((k,) for k in range(len(members))))
    gated = right_on_r2(members, replace(found, rule=rule), single)
    if gated > right_on_r2(members, found, strategies):
        return Route(members.networks, rule, single), True
    return plain, False
