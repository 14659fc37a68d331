import pytest
import torch
from two_layer_cases import (
    INPUTS,
    TERNARY,
    block_of,
    every_change,
    fresh_loss,
    inputs_of,
    network_of,
    target_of,
)

from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sign": torch.sign}


def scored(network, inputs, target, blocks=2, adjacent=False, exact=None):
    """Scores of both layers from the neighbourhood, in the layout of `every_change`."""
    bias = network.first.bias
    parts = zip(inputs.chunk(blocks), target.chunk(blocks, -1), strict=True)
    made = []
    for part, of_part in parts:
        block = block_of(inputs, bias)  # the levels of all inputs
        made.append((type(block)(part, block.values, block.base, bias), of_part))
    order = torch.randperm(network.hidden, generator=torch.Generator().manual_seed(3))
    network.load(made, order, group=2)
    hood = Neighbourhood(network, adjacent)
    first = torch.empty(len(network.first.values), *network.first.index.shape, dtype=network.dtype)
    for group, units in enumerate(network.groups):
        first[:, units] = hood.first_layer(group, exact).changes
    return first, hood.last_layer()


def assert_equal_changes(found, expected, loss, tolerance=1e-10):
    finite = expected.isfinite()
    assert torch.equal(found.isfinite(), finite)
    assert float((found - expected)[finite].abs().max()) <= tolerance * loss


# With the sign, an input of real numbers: sums of few values meet the jump at 0 exactly, and there
# the sign depends on the order of the sum.
@pytest.mark.parametrize(
    ("activation", "kind"),
    [(a, k) for a in ("relu", "tanh") for k in ("binary", "signs", "few", "many")]
    + [("sign", "real")],
)
@pytest.mark.parametrize("bias", [True, False, "fixed"])
@pytest.mark.parametrize("scales", ["layer", "channel"])
def test_every_score_is_the_change_of_a_fresh_forward_call(activation, kind, bias, scales):
    network = network_of(ACTIVATIONS[activation], bias, scales=scales)
    inputs, target = inputs_of(kind), target_of("cross_entropy")
    loss = fresh_loss(network, inputs, target)
    first, last = scored(network, inputs, target)
    assert network.loss() == pytest.approx(loss, rel=1e-12)
    assert_equal_changes(first, every_change(network, network.first, inputs, target), loss)
    assert_equal_changes(last, every_change(network, network.second, inputs, target), loss)


@pytest.mark.parametrize("values", [(-1.0, 1.0), (-4.0, -1.0, 0.5, 2.0), (0.25, 1.0, 1.5)])
@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_hold_for_any_values_and_criterion(values, criterion, seed):
    network = network_of(torch.tanh, True, values, criterion=criterion, seed=seed)
    inputs, target = inputs_of("few", seed=seed), target_of(criterion)
    loss = fresh_loss(network, inputs, target)
    first, last = scored(network, inputs, target)
    assert_equal_changes(first, every_change(network, network.first, inputs, target), loss)
    assert_equal_changes(last, every_change(network, network.second, inputs, target), loss)


def test_scores_hold_where_exponentials_overflow():
    network = network_of(torch.relu, True)
    network.first.scale *= 40
    network.second.scale *= 40
    inputs, target = inputs_of("few"), target_of("cross_entropy")
    loss = fresh_loss(network, inputs, target)
    first, _ = scored(network, inputs, target)
    assert_equal_changes(first, every_change(network, network.first, inputs, target), loss)


def test_adjacent_leaves_out_the_moves_across_a_value():
    network = network_of()
    inputs, target = inputs_of("binary"), target_of("cross_entropy")
    near = scored(network, inputs, target, adjacent=True)
    every = scored(network, inputs, target)
    for found, expected, weights in zip(near, every, (network.first, network.second), strict=True):
        value = torch.arange(3)[:, None, None]
        beside = (weights.index - value).abs() == 1
        assert torch.equal(found.isfinite(), beside)
        assert torch.equal(found[beside], expected[beside])


def test_even_steps_are_one_distance():
    network = network_of(values=tuple(k / 5 - 1 for k in range(11)))
    near = Neighbourhood(network, adjacent=True).distances(network.first.values)
    assert list(near) == [0.2, -0.2]
    assert sum(map(len, near.values())) == 20
    assert len(Neighbourhood(network).distances(network.first.values)) == 20


def test_candidates_are_counted():
    network = network_of()
    first, last = scored(network, inputs_of("binary"), target_of("cross_entropy"), adjacent=True)
    hood = Neighbourhood(network, adjacent=True)
    count = sum(hood.first_layer(group).candidates for group in range(len(network.groups)))
    assert count == int(first.isfinite().sum())
    assert hood.candidates() == int(first.isfinite().sum() + last.isfinite().sum())
    weights = network.first.index.numel() + network.second.index.numel()
    assert Neighbourhood(network).candidates() == 2 * weights


def test_float32_and_float64_agree():
    wide, narrow = network_of(), network_of(dtype=torch.float32)
    inputs, target = inputs_of("signs", samples=4000), target_of("cross_entropy", 4000)
    expected = scored(wide, inputs, target)
    found = scored(narrow, inputs.float(), target)
    for one, other in zip(found, expected, strict=True):
        finite = other.isfinite()
        torch.testing.assert_close(one[finite].double(), other[finite], atol=2e-7, rtol=1e-4)


def test_a_grid_of_levels_predicts_and_exact_scores_correct_it():
    network = network_of(torch.tanh, dtype=torch.float32)
    inputs, target = inputs_of("many", samples=400).float(), target_of("cross_entropy", 400)
    exact = scored(network, inputs, target)[0]
    predicted = scored(network, inputs, target, exact=False)[0]
    finite = exact.isfinite()
    assert not torch.allclose(predicted[finite], exact[finite], rtol=1e-3)
    both = torch.stack([predicted[finite], exact[finite]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.95


def test_nothing_changes_for_units_that_lead_nowhere():
    network = network_of(bias=False)
    network.second.index[:] = 1  # the value 0
    inputs, target = inputs_of("few"), target_of("cross_entropy")
    first, _ = scored(network, inputs, target)
    assert float(first[first.isfinite()].abs().max()) <= 1e-15


@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
def test_curvature_is_the_second_derivative_for_small_moves(criterion):
    network = network_of(torch.tanh, False, criterion=criterion)
    network.first.scale *= 1e-3
    inputs, target = inputs_of("signs"), target_of(criterion)
    network.load([(block_of(inputs, False), target)])
    (rows,) = network.rows
    weight = network.second_columns(network.groups[0])

    def loss(shift):
        change = torch.tanh(rows.pre[0] + shift) - rows.hidden[0]
        return network.row_loss(rows, rows.logits + weight @ change.t()) / len(inputs)

    step = 1e-3 * torch.eye(len(weight.t()), dtype=torch.float64)
    expected = torch.zeros(len(step), len(step), dtype=torch.float64)
    for i, one in enumerate(step):
        for k, other in enumerate(step):
            there, back = (
                loss(one + other) + loss(-one - other),
                loss(one - other) + loss(other - one),
            )
            expected[i, k] = (there - back) / 4e-6
    curvature = Neighbourhood(network).first_layer(0, curvature=True).curvature
    torch.testing.assert_close(curvature, expected, rtol=2e-2, atol=1e-3)


def test_values_of_the_case_are_ternary():
    network = network_of()
    assert tuple(network.first.values.tolist()) == TERNARY
    assert network.first.index.shape[1] == INPUTS + 1
