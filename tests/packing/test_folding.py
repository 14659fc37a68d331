"""Folded thresholds against torch itself, number by number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whit.packing.folding import fold, search_threshold
from whit.packing.graph_nodes import ThresholdNode
from whit.packing.lower import lower
from whit.packing.tracing import baked_copy
from whit.parts.straight_through import Sign

FLOAT = st.floats(-100, 100, width=32)


def batch_norm(gamma, beta, mean, variance):
    norm = nn.BatchNorm1d(len(gamma)).eval()
    with torch.no_grad():
        for target, values in (
            (norm.weight, gamma),
            (norm.bias, beta),
            (norm.running_mean, mean),
            (norm.running_var, variance),
        ):
            target.copy_(torch.tensor(values))
    return norm


def only_threshold(model, features):
    nodes = fold(lower(baked_copy(model), torch.zeros(2, features)))
    return next(node for node in nodes if isinstance(node, ThresholdNode))


def apply_threshold(node, x):
    return torch.where(node.flipped, x <= node.thresholds, x >= node.thresholds)


@given(
    st.lists(
        st.tuples(FLOAT, FLOAT, FLOAT, st.floats(2**-10, 100, width=32)), min_size=8, max_size=8
    )
)
@settings(max_examples=10, deadline=None)
def test_threshold_of_real_numbers_is_the_exact_change_of_torch(rows):
    gamma, beta, mean, variance = (list(column) for column in zip(*rows, strict=True))
    gamma[0] = 0.0
    norm = batch_norm(gamma, beta, mean, variance)
    node = only_threshold(nn.Sequential(norm, nn.Hardtanh(), Sign()), 8)
    at = node.thresholds.clamp(-1e30, 1e30)
    around = [at, torch.nextafter(at, at + 1e9), torch.nextafter(at, at - 1e9), at * 0, at + 1]
    x = torch.stack(around)
    with torch.no_grad():
        expected = norm(x) >= 0
    assert torch.equal(apply_threshold(node, x), expected)


def test_gamma_zero_is_constant():
    norm = batch_norm([0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0] * 3, [1.0] * 3)
    node = only_threshold(nn.Sequential(norm, Sign()), 3)
    assert node.thresholds.tolist() == [-math.inf] * 3
    assert node.flipped.tolist() == [False, True, False]


def test_every_integer_agrees_with_torch():
    torch.manual_seed(0)
    model = nn.Sequential(Sign(), nn.Linear(37, 50), nn.BatchNorm1d(50), Sign()).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.where(model[1].weight >= 0, 0.5, -0.5))
        model[2].weight.normal_()
        model[2].weight[7] = 0
        model[2].running_mean.copy_(torch.randint(-9, 9, (50,)) / 2)  # ties with beta = 0
    nodes = fold(lower(baked_copy(model), torch.zeros(2, 37)))
    node = nodes[-1]
    assert isinstance(node, ThresholdNode)
    assert node.integers
    sums = torch.arange(-37, 38)[:, None].expand(-1, 50)
    with torch.no_grad():
        expected = model[2](sums * 0.5 + model[1].bias) >= 0
    assert torch.equal(apply_threshold(node, sums), expected)


def test_bisection_on_integers():
    goal = torch.tensor([-3, 0, 3, 99, -99])
    thresholds, flipped = search_threshold(lambda x: x >= goal, 5, 4, lambda x: x)
    assert thresholds.tolist() == [-3, 0, 3, -5, -5]
    assert flipped.tolist() == [False, False, False, True, False]
    thresholds, flipped = search_threshold(lambda x: x <= goal, 5, 4, lambda x: x)
    assert thresholds.tolist() == [-3, 0, 3, -5, -5]
    assert flipped.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_max_pool_stays_between_the_sum_and_the_threshold(gamma):
    torch.manual_seed(0)
    model = nn.Sequential(
        Sign(), nn.Conv2d(2, 3, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(3), Sign()
    ).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.where(model[1].weight >= 0, 1.0, -1.0))
        model[3].weight.fill_(gamma)
    nodes = fold(lower(baked_copy(model), torch.zeros(2, 2, 6, 6)))
    assert isinstance(nodes[-1], ThresholdNode)
    assert nodes[-1].integers
    assert bool(nodes[-1].flipped.all()) == (gamma < 0)
