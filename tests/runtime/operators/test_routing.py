from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from whit.errors import ArtifactError
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule
from whit.parts.route import Route as TorchRoute
from whit.runtime.layout import ABSENT, Activation, Record
from whit.runtime.operators import Concat, Linear, Member, Route
from whit.runtime.operators.contract import to_float
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

CLASSES = 5


def network(seed, rows=CLASSES):
    weight = 2 * np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    return Linear(StoredWeight(FORMATS[0], weight), None)


def torch_network(operator):
    layer = nn.Linear(4, operator.weight.rows, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(operator.weight.values))
    return layer


class Counting(Linear):
    """A linear operator that remembers how many rows it has seen."""

    seen: list[int]

    def run(self, x, other=None):
        self.seen.append(len(x))
        return super().run(x, other)


def routed(route, networks):
    """Return the steps: networks[0] at the top, each other one as a member, the route last."""
    steps = [(networks[0], 0, 0)]
    for operator in networks[1:]:
        begin = len(steps)
        steps += [(Member(1), 0, 0), (operator, begin + 1, 0)]
    return [*steps, (route, 1, 0)]


STRATEGIES = [(0,), (1,), (2, 0), (1, 2), (0, 1, 2), (3,)]
GROUPS = [(0, 3), (1,), (4, 2)]
X = np.random.default_rng(9).normal(size=(200, 4)).astype(np.float32)
X[:5] = 0  # every class equally likely


def compare(program, route, torch_rule):
    networks = [network(seed) for seed in range(4)]
    model = TorchRoute([torch_network(n) for n in networks], torch_rule, route.strategies)
    found = program(routed(route, networks), (4,))(X)
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
        situations = model.route(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    return situations, networks, found


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.7, 1.1])
@pytest.mark.parametrize("first", STRATEGIES)
@pytest.mark.parametrize("second", STRATEGIES)
def test_margin_rule_equals_the_torch_part(program, margin, first, second):
    route = Route(margin, (), 0, (first, second), 3)
    situations, networks, found = compare(program, route, MarginRule(margin))
    for situation, strategy in enumerate((first, second)):
        if strategy == (0,):
            scores = X @ networks[0].weight.values.T
            rows = situations == situation
            np.testing.assert_array_equal(found[rows], scores[rows])


@pytest.mark.parametrize("margin", [0.0, 0.4, 0.8, 1.1])
def test_group_rule_equals_the_torch_part(program, margin):
    group_of = (0, 1, 2, 0, 2)
    route = Route(margin, group_of, 3, ((0,), (1,), (2, 0), (1, 2, 3)), 3)
    situations, _, _ = compare(program, route, GroupSumRule(GROUPS, margin))
    if margin == 0.8:
        assert set(situations.tolist()) == {0, 1, 2, 3}
    if margin == 0.0:
        assert set(situations.tolist()) == {0}


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_a_temperature_moves_situations_and_no_answer(program, temperature):
    route = Route(0.6, (0, 1, 2, 0, 2), 3, ((0,), (1,), (2, 0), (1, 2, 3)), 3, temperature)
    rule = GroupSumRule(GROUPS, 0.6, temperature)
    situations, networks, found = compare(program, route, rule)
    assert set(situations.tolist()) == {0, 1, 2, 3}
    scores = X @ networks[0].weight.values.T
    assert (situations != replace(route, temperature=1.0).situations(scores)).any()
    np.testing.assert_array_equal(found[situations == 0], scores[situations == 0])


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.1])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_deciding_scores_choose_behind_the_margin(program, margin, temperature):
    # The features of the linear network 0 are its inputs, so a head of the inputs stands beside it.
    first, head, others = network(0), network(7, 3), [network(seed) for seed in (1, 2)]
    route = Route(margin, (), 0, ((0,), (1,), (2, 0), (0, 1, 2)), 2, temperature, deciding=3)
    steps = [
        (first, 0, 0),
        (head, 0, 0),
        (Concat(0), 1, 2),
        (Member(1), 0, 0),
        (others[0], 4, 0),
        (Member(1), 0, 0),
        (others[1], 6, 0),
        (route, 3, 0),
    ]
    rule = FeatureRule(torch_network(head), 4, margin, temperature)
    model = TorchRoute([torch_network(n) for n in (first, *others)], rule, route.strategies)
    found = program(steps, (4,))(X)
    with torch.no_grad():
        np.testing.assert_allclose(found, model(torch.from_numpy(X)).numpy(), atol=2e-5)
        situations = model.route(torch.from_numpy(X)).numpy()
    both = np.hstack([X @ first.weight.values.T, X @ head.weight.values.T])
    np.testing.assert_array_equal(route.situations(both), situations)
    assert len(set(situations.tolist())) == {0.0: 1, 0.5: 4, 1.1: 3}[margin]


def test_the_first_of_equal_deciding_scores_wins_and_one_that_is_no_number_too():
    route = Route(1.5, (), 0, ((0,),) * 3, 0, deciding=2)
    source = np.array([[0, 0, 3, 3], [0, 0, 1, 2], [0, 0, 1, np.nan], [0, 0, np.nan, 9]])
    assert route.situations(source.astype(np.float32)).tolist() == [1, 2, 2, 1]


def test_classes_in_no_group_count_for_none():
    scores = np.log(np.array([[0.05, 0.3, 0.2, 0.05, 0.4], [0.3, 0.25, 0.05, 0.3, 0.1]]))
    scores = scores.astype(np.float32)
    named = Route(0.3, (0, 1, 1, 0, 255), 2, ((0,), (0,), (0,)), 0)
    assert named.situations(scores).tolist() == [2, 1]
    shorter = Route(0.3, (0, 1, 1, 0), 2, ((0,), (0,), (0,)), 0)
    assert shorter.situations(scores).tolist() == [2, 1]


def test_ties_go_to_the_first_group_and_equal_scores_have_margin_zero():
    scores = np.zeros((1, 4), dtype=np.float32)
    route = Route(0.1, (1, 0, 0, 1), 2, ((0,), (0,), (0,)), 0)
    assert route.situations(scores).tolist() == [1]
    assert Route(0.0, (), 0, ((0,), (0,)), 0).situations(scores).tolist() == [0]
    assert Route(0.1, (), 0, ((0,), (0,)), 0).situations(scores).tolist() == [1]


def test_only_answering_members_run_and_only_on_their_rows(program):
    networks = [network(seed) for seed in range(3)]
    route = Route(0.5, (), 0, ((0,), (0, 2)), 2)
    loaded = program(routed(route, networks), (4,))
    seen = {}
    operators = list(loaded._operators)
    for number, index in ((0, 0), (1, 2), (2, 4)):
        counting = Counting(operators[index].weight, None)
        object.__setattr__(counting, "seen", seen.setdefault(number, []))
        operators[index] = counting
    loaded._operators = tuple(operators)
    loaded(X)
    situations = route.situations(to_float(X @ networks[0].weight.values.T))
    assert 0 < situations.sum() < len(X)
    assert seen == {0: [200], 1: [], 2: [int(situations.sum())]}
    for calls in seen.values():
        calls.clear()
    familiar = X[situations == 0]
    loaded(familiar)
    assert seen == {0: [len(familiar)], 1: [], 2: []}


def test_nested_routes_answer_inside_a_member(program):
    inner = Route(0.6, (), 0, ((0,), (1,)), 1)
    outer = Route(0.9, (), 0, ((0,), (1,)), 1)
    networks = [network(seed) for seed in range(3)]
    # value 1: scores; record 1 begins a member (value 2) whose body is records 2 to 5.
    steps = [
        (networks[0], 0, 0),
        (Member(4), 0, 0),
        (networks[1], 2, 0),
        (Member(1), 2, 0),
        (networks[2], 4, 0),
        (inner, 3, 2),
        (outer, 1, 0),
    ]
    found = program(steps, (4,))(X)
    parts = [torch_network(n) for n in networks]
    second = TorchRoute(parts[1:], MarginRule(0.6), inner.strategies)
    model = TorchRoute([parts[0], second], MarginRule(0.9), outer.strategies)
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    loaded = program(steps, (4,))
    assert [cost.conditional for cost in loaded.operators] == [False, False, *[True] * 4, False]
    assert len(loaded.trace(X)) == 3


def test_runs_are_counted_by_step_and_situation(program):
    inner = Route(0.6, (), 0, ((0,), (1,)), 1)
    outer = Route(0.9, (), 0, ((0,), (1,)), 1)
    networks = [network(seed) for seed in range(3)]
    steps = [
        (networks[0], 0, 0),
        (Member(4), 0, 0),
        (networks[1], 2, 0),
        (Member(1), 2, 0),
        (networks[2], 4, 0),
        (inner, 3, 2),
        (outer, 1, 0),
    ]
    counts = program(steps, (4,)).count_runs(X)
    scores = [X @ one.weight.values.T for one in networks]
    outside = outer.situations(scores[0])
    inside = inner.situations(scores[1][outside == 1])
    sent, further = int((outside == 1).sum()), int((inside == 1).sum())
    assert 0 < further < sent < len(X)
    found = [counts.steps[index] for index in range(7)]
    assert found == [200, 200, sent, sent, further, sent, 200]
    assert {key: count for key, count in counts.situations.items()} == {
        (6, 0): 200 - sent,
        (6, 1): sent,
        (5, 0): sent - further,
        (5, 1): further,
    }


def test_a_route_of_version_2_has_neither_temperature_nor_deciding_scores(program):
    plain = routed(Route(0.5, (), 0, ((0,), (1,)), 1), [network(0), network(1)])
    assert program(plain, (4,), version=2).info["format_version"] == "2"
    for changes in ({"temperature": 2.0}, {"deciding": 1}):
        route = Route(0.5, (), 0, ((0,), (1,)), 1, **changes)
        with pytest.raises(ArtifactError, match="beyond what version 2 knows"):
            program(routed(route, [network(0), network(1)]), (4,), version=2)


SCORES, INPUT = Activation((3,), "float32"), Activation((4,), "float32")


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (Route(0.5, (0, 0, 0, 0), 1, ((0,), (0,)), 0), "more classes"),
        (Route(0.5, (), 256, ((0,),) * 257, 0), "256 groups"),
        (Route(0.5, (), 0, ((0,), (256,)), 256), "256 members"),
        (Route(0.5, (0, 1), 1, ((0,), (0,)), 0), "group that does not exist"),
        (Route(0.5, (0, 1), 2, ((0,), (0,)), 0), "needs 3 strategies"),
        (Route(0.5, (), 0, ((0,),), 0), "needs 2 strategies"),
        (Route(0.5, (), 0, ((0,), ()), 0), "asks the networks"),
        (Route(0.5, (), 0, ((0,), (2,)), 1), "asks the networks"),
        (Route(0.5, (), 0, ((0,), (0,)), 0, temperature=0.0), "the temperature 0"),
        (Route(0.5, (), 0, ((0,), (0,)), 0, temperature=-1.0), "the temperature -1"),
        (Route(0.5, (), 0, ((0,), (0,)), 0, temperature=float("inf")), "the temperature inf"),
        (Route(0.5, (), 0, ((0,), (0,)), 0, temperature=float("nan")), "the temperature nan"),
        (Route(0.5, (), 0, ((0,), (0,), (0,)), 0, deciding=2), "scores of 2 classes"),
        (Route(0.5, (0, 1), 0, ((0,), (0,)), 0, deciding=1), "one of them chooses"),
        (Route(0.5, (), 1, ((0,), (0,)), 0, deciding=1), "one of them chooses"),
    ],
)
def test_impossible_routes_are_refused(route, message):
    with pytest.raises(ArtifactError, match=message):
        route.result(SCORES, INPUT)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (3, 4)])
def test_what_is_no_row_of_scores_is_refused(shape):
    with pytest.raises(ArtifactError, match="scores of 2 classes"):
        Route(0.5, (), 0, ((0,), (0,)), 0).result(Activation(shape, "float32"), INPUT)


def test_a_route_without_strategies_is_refused(round_trip):
    from whit.runtime.data_section import DataReader

    with pytest.raises(ArtifactError, match="no strategies"):
        Route.read(Record(30, first=0, second=ABSENT), DataReader(bytes(4)), SCORES)
    with pytest.raises(ArtifactError, match="data tensor ends"):
        Route.read(Record(30, first=0, second=4), DataReader(bytes(4) + b"\x00\x00\x05"), SCORES)
    route = Route(0.25, (0, 255, 1), 2, ((0,), (1, 0), (2,)), 2)
    assert round_trip(route, SCORES) == route
    route = Route(0.25, (), 0, ((0,), (1, 0)), 2, 1.5, deciding=1)
    assert round_trip(route, SCORES) == route
