import copy

import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.parts.route import FeatureRule, GroupSumRule
from whit.procedures.reflection import growth
from whit.procedures.reflection.answers import Answers, charged_answers
from whit.procedures.reflection.calibration import standard_error
from whit.procedures.reflection.evolution import (
    Members,
    chances_of,
    chosen_strategies,
    divide_samples,
    evolve,
    right_on_r2,
    route_of,
)
from whit.procedures.reflection.found_situations import (
    ReflectionOptions,
    Situations,
    find_situations,
    unsure_of,
)
from whit.procedures.reflection.gate import STEPS
from whit.procedures.reflection.growth import group_answers, grow
from whit.tasks.toys import toy_classification


def answers(seed, samples=60, classes=4):
    draws = torch.Generator().manual_seed(seed)
    return Answers(
        2 * torch.randn(samples, classes, generator=draws),
        torch.randn(samples, 3, generator=draws),
    )


def in_a_run(procedure, epochs=1, seed=1):
    """Let a procedure use a real run; return what it returned."""
    kept = {}

    def whole(run):
        kept["found"] = procedure(run)
        return run.build()

    task = toy_classification()
    train(task, Technique(train=whole), task.settings.changed(epochs=epochs), Conditions(seed=seed))
    return kept["found"]


def begun(run, options, seed=5):
    draws = torch.Generator().manual_seed(seed)
    parts = divide_samples(run.data.train, draws)
    members = Members(run, parts, run.fit(run.build(), data=parts.fit))
    found = find_situations(
        members.reflect[0], parts.reflect.target, run.data.class_names, options, seed
    )
    evolve(members, found, options, draws)
    return members, (found, chosen_strategies(members, found)), draws


def test_a_groups_answers_are_the_means_that_its_strategies_name():
    said = [answers(k) for k in range(3)]
    rule = GroupSumRule([[0, 1], [2, 3]], 0.5)
    found = Situations(rule, 1.0, 0.5, ("a", "b"), ((0, 1), (2, 3)))
    together = group_answers(said, found, ((0,), (0, 2), (1,)))
    situations = rule(said[0].scores)
    chances = chances_of(said)
    for number, situation in enumerate(situations.tolist()):
        members = [(0,), (0, 2), (1,)][situation]
        expected = chances[list(members), number].mean(0)
        assert torch.allclose(together.scores[number].exp(), expected, atol=1e-6)
    assert torch.equal(together.features, said[0].features)
    assert set(situations.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["spectral", "kmeans"])
def test_later_situations_leave_what_is_familiar_to_the_first_network(kind):
    target = torch.arange(60) % 4
    names = ("a", "b", "c", "d")
    options = ReflectionOptions(situations=kind, precision=0.6)
    first = find_situations(answers(0), target, names, options)
    later = find_situations(
        answers(1), target, names, ReflectionOptions(3, kind, 0.9), 0
    ).decided_like(first)
    same = answers(7)
    assert torch.equal(later.of(same) == 0, first.of(same) == 0)
    assert later.rule.situations == 4 and first.rule.situations == 3
    assert isinstance(later.rule, FeatureRule if kind == "kmeans" else GroupSumRule)
    assert later.belonging(same).shape == (60, 3)


def test_what_is_not_familiar_is_unsure():
    target = torch.arange(60) % 4
    unsure, temperature, margin = unsure_of(answers(0), target, 0.6)
    top = answers(0).chances(temperature).topk(2, -1).values
    assert torch.equal(unsure, top[:, 0] - top[:, 1] < margin)
    assert not unsure_of(answers(0), target, 0.0)[0].any()


@pytest.mark.parametrize("kind", ["spectral", "kmeans"])
def test_growth_never_loses_on_r2_and_ends_at_the_most_members(kind, monkeypatch):
    # With any gain at all as enough, and one specialist that knows all, a round is accepted.
    options = ReflectionOptions(situations=kind, precision=0.9999, epochs=1, most=5)

    def procedure(run):
        members, choice, draws = begun(run, options)
        before = right_on_r2(members, *choice)
        after = grow(members, choice, run.data.class_names, options, draws)
        route, _ = route_of(members, *after, options)
        return before, right_on_r2(members, *after), len(members), after, route, run.fits

    monkeypatch.setattr(growth, "standard_error", lambda accuracy, samples: -1.0)
    before, after, count, (found, strategies), route, fits = in_a_run(procedure)
    # Four classes cannot be cut into more than four groups; clusters can.
    assert count == len(route.members) == 5 == fits
    assert len(found.groups) == 4 and len(strategies) == 5
    assert route.rule.situations == 5 and before >= 0 and after >= 0


def test_a_round_that_gains_too_little_is_taken_back():
    options = ReflectionOptions(precision=0.9999, most=5)

    def procedure(run):
        members, choice, draws = begun(run, options)
        growing = copy.deepcopy(choice[1])
        after = grow(members, choice, run.data.class_names, options, draws)
        return choice, after, growing, len(members), run.fits

    choice, after, growing, count, fits = in_a_run(procedure, epochs=8)
    assert after is choice and after[1] == growing
    assert count == 3 and fits == 4, "the specialist that was refused is charged and left out"


def test_growth_ends_where_nothing_is_unsure():
    options = ReflectionOptions(precision=0.0, most=5)

    def procedure(run):
        members, choice, draws = begun(run, options)
        after = grow(members, choice, run.data.class_names, options, draws)
        return after is choice, run.fits

    assert in_a_run(procedure) == (True, 3)


def test_the_standard_error_that_must_be_gained():
    assert standard_error(0.9, 100) == pytest.approx(0.03)


def test_all_that_is_asked_is_charged():
    def procedure(run):
        network = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4))
        before = run.meter.charge().train_macs
        charged_answers(run, network, run.data.valid)
        return run.meter.charge().train_macs - before, len(run.data.valid)

    macs, samples = in_a_run(procedure)
    assert macs == samples * (8 * 5 + 5 * 4)


def test_reflection_evolution_and_choice_are_charged():
    options = ReflectionOptions()

    def procedure(run):
        draws = torch.Generator().manual_seed(0)
        parts = divide_samples(run.data.train, draws)
        network = run.fit(run.build(), data=parts.fit)
        spent = [run.meter.charge().train_macs]
        members = Members(run, parts, network)
        spent.append(run.meter.charge().train_macs)
        found = find_situations(
            members.reflect[0], parts.reflect.target, run.data.class_names, options
        )
        evolve(members, found, options, draws)
        spent.append(run.meter.charge().train_macs)
        one = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))
        return spent, one, [len(p) for p in (parts.fit, parts.reflect, parts.choose)]

    spent, one, (fit, reflect, choose) = in_a_run(procedure)
    assert spent[1] - spent[0] == one * (reflect + choose)
    trained = 64 * (fit // 64)  # samples of an epoch: whole batches
    # F seen once; each of two specialists is trained, its norms estimated, R1 and R2 asked.
    expected = one * (fit + 2 * (3 * trained + fit + reflect + choose))
    assert spent[2] - spent[1] == expected


def test_the_gate_is_charged():
    options = ReflectionOptions(gate=True)

    def procedure(run):
        members, choice, _ = begun(run, options)
        before = run.meter.charge().train_macs
        route_of(members, *choice, options)
        samples, width = members.reflect[0].features.shape
        return run.meter.charge().train_macs - before, samples * width * len(members)

    spent, weights = in_a_run(procedure)
    assert spent == 3 * STEPS * weights
