import copy

import pytest
import torch
from two_layer_cases import block_of, fresh_loss, inputs_of, network_of, target_of

from whit.errors import SpecError
from whit.procedures.coordinate_descent.group_descent import GroupDescent, GroupOptions
from whit.procedures.coordinate_descent.last_layer import exact_moves, predicted_moves
from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood
from whit.procedures.coordinate_descent.pursuit import line_search, pursue

OPTIONS = {
    "plain": GroupOptions(group=2),
    "powers": GroupOptions(group=2, scales="powers_of_two", adjacent=False),
    "fixed": GroupOptions(group=3, scales="fixed", moves_per_unit=2, last_layer=1),
    "exact": GroupOptions(group=2, exact=True, adjacent=False),
}


def descent_of(options, kind="few", criterion="cross_entropy", **network):
    descent = GroupDescent(network_of(criterion=criterion, **network), options, seed=4)
    inputs, target = inputs_of(kind), target_of(criterion)
    descent.load([(block_of(inputs, network.get("bias", True)), target)])
    return descent, inputs, target


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["binary", "many"])
@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", [True, "fixed"])
def test_loss_never_rises_and_is_true(options, kind, criterion, bias):
    descent, inputs, target = descent_of(options, kind, criterion, activation=torch.tanh, bias=bias)
    network, losses = descent.network, [descent.loss]
    for _ in range(4):
        descent.sweep()
        losses.append(descent.loss)
        assert descent.loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-9)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    for weights in (network.first, network.second):
        assert int(weights.index.min()) >= 0
        assert int(weights.index.max()) < len(weights.values)
    assert descent.tally.accepted > 0
    assert descent.tally.candidates > descent.tally.tried > 0


def test_scales_move_as_the_options_say():
    for name, options in OPTIONS.items():
        descent, _, _ = descent_of(options, bias=False)
        before = descent.network.first.scale.clone(), descent.network.second.scale.clone()
        for _ in range(3):
            descent.sweep()
        factors = [
            float((now / old).log2()[0])
            for now, old in zip(
                (descent.network.first.scale, descent.network.second.scale), before, strict=True
            )
        ]
        if name == "fixed":
            assert factors == [0, 0]
        elif name == "powers":
            assert all(factor == round(factor) for factor in factors) and any(factors)
        else:
            assert factors[0] == 0 and factors[1] != 0


def test_the_same_seed_gives_the_same_weights():
    ends = []
    for _ in range(2):
        descent, _, _ = descent_of(OPTIONS["plain"])
        for _ in range(3):
            descent.sweep()
        ends.append(descent.network.first.index.clone())
    assert torch.equal(*ends)


def test_a_saved_descent_goes_on_to_the_same_weights():
    inputs, target = inputs_of("few"), target_of("cross_entropy")
    straight, _, _ = descent_of(OPTIONS["plain"])
    straight.sweep()
    state = copy.deepcopy(straight.state_dict())
    other = GroupDescent(network_of(seed=9), OPTIONS["plain"], seed=77)
    other.load_state_dict(state)
    for descent in (straight, other):
        descent.load([(block_of(inputs, True), target)])
        descent.sweep()
    assert torch.equal(straight.network.first.index, other.network.first.index)
    assert torch.equal(straight.network.second.index, other.network.second.index)
    assert straight.loss == other.loss
    assert straight.tally == other.tally


def test_no_move_is_taken_for_less_than_the_least_gain():
    descent, _, _ = descent_of(GroupOptions(least_gain=400.0, scales="fixed"))
    before = descent.network.first.index.clone()
    assert descent.sweep() == 0
    assert torch.equal(descent.network.first.index, before)


def test_pursuit_begins_with_the_best_move_of_each_unit():
    descent, _, _ = descent_of(OPTIONS["plain"])
    network = descent.network
    scores = Neighbourhood(network).first_layer(0, curvature=True)
    units = network.groups[0]
    moves = pursue(scores, network.first, units, descent.gram, 1, 0.0)
    best, _ = scores.changes.min(0)
    gains, columns = best.min(1)
    order = [int(u) for u in gains.argsort() if gains[u] < 0]
    assert moves.row.tolist() == order
    assert moves.column.tolist() == [int(columns[u]) for u in order]
    real = network.first.values[moves.value] * network.first.scale[units[moves.row]]
    old = network.first.real(torch.float64)[units[moves.row], moves.column]
    torch.testing.assert_close(moves.amount, real - old)


def test_pursuit_does_not_pick_two_moves_that_do_the_same():
    """Two equal columns: each move alone halves the distance to the best, both overshoot."""
    descent, _, _ = descent_of(OPTIONS["plain"])
    network = descent.network
    scores = Neighbourhood(network).first_layer(0, curvature=True)
    units = network.groups[0][:1]
    scores.changes[:] = torch.inf
    scores.changes[2, :1, :2] = -1.0
    scores.changes[2, :1, 2] = -0.4
    network.first.index[units] = 1
    gram = torch.eye(9, dtype=torch.float64)
    gram[0, 1] = gram[1, 0] = 1
    scale = float(network.first.scale[0])
    strong = torch.full((1, 1), 0.9).double() / scale**2
    moves = pursue(
        type(scores)(scores.changes[:, :1], strong, 3), network.first, units, gram, 2, 0.0
    )
    assert set(moves.column.tolist()) in ({0, 2}, {1, 2})
    weak = type(scores)(scores.changes[:, :1], 0 * strong, 3)
    assert set(pursue(weak, network.first, units, gram, 2, 0.0).column.tolist()) == {0, 1}


def pairs(moves):
    return list(zip(moves.row.tolist(), moves.column.tolist(), strict=True))


def test_pursuit_does_not_let_two_units_do_the_same():
    descent, _, _ = descent_of(OPTIONS["plain"])
    network = descent.network
    scores = Neighbourhood(network).first_layer(0, curvature=True)
    units = network.groups[0]
    network.first.index[units] = 1
    scores.changes[:] = torch.inf
    scores.changes[2, 0, 0], scores.changes[2, 1, 1], scores.changes[2, 1, 2] = -1.0, -0.5, -0.9
    scale = float(network.first.scale[0])
    both = torch.full((2, 2), 0.7).double() / scale**2
    gram = torch.ones(9, 9, dtype=torch.float64)
    moves = pursue(type(scores)(scores.changes, both, 3), network.first, units, gram, 2, 0.0)
    assert pairs(moves) == [(0, 0), (1, 2)]
    apart = both * torch.eye(2).double()
    gram = torch.eye(9, dtype=torch.float64)
    moves = pursue(type(scores)(scores.changes, apart, 3), network.first, units, gram, 2, 0.0)
    assert pairs(moves) == [(0, 0), (1, 2), (1, 1)]


def test_line_search_always_tries_one_move():
    losses = {8: 1.2, 4: 1.1, 2: 1.05, 1: 0.9}
    assert line_search(8, 1.0, lambda m: (losses[m], m)) == (0.9, 1, 1)
    assert line_search(8, 0.5, lambda m: (losses[m], m)) is None
    assert line_search(0, 1.0, lambda m: (0.0, m)) is None
    tried = []
    losses = {8: 0.9, 4: 0.8, 2: 0.85, 1: 0.7}
    found = line_search(8, 1.0, lambda m: (tried.append(m) or losses[m], m))
    assert found == (0.8, 4, 4) and tried == [8, 4, 2]
    tried.clear()
    found = line_search(8, 1.0, lambda m: (tried.append(m) or losses[m], m), single=True)
    assert found == (0.7, 1, 1) and tried == [8, 4, 2, 1]
    losses[1] = 0.9
    tried.clear()
    found = line_search(8, 1.0, lambda m: (tried.append(m) or losses[m], m), single=True)
    assert found == (0.8, 4, 4) and tried == [8, 4, 2, 1]
    losses = {2: 1.2, 1: 1.1}
    tried.clear()
    assert line_search(2, 1.0, lambda m: (tried.append(m) or losses[m], m), single=True) is None
    assert tried == [2, 1]


def test_moves_of_the_last_layer_are_ranked_by_their_change():
    descent, inputs, target = descent_of(OPTIONS["plain"])
    network = descent.network
    changes = Neighbourhood(network).last_layer()
    moves, count = exact_moves(network, adjacent=False, least_gain=0.0)
    assert count == int(changes.isfinite().sum())
    columns = network.last_columns()[moves.column]
    found = changes[moves.value, moves.row, columns]
    assert found.tolist() == sorted(found.tolist()) and float(found.max()) < 0
    assert float(found[0]) == float(changes.min())
    before = fresh_loss(network, inputs, target)
    network.second.index[moves.row[0], columns[0]] = moves.value[0]
    after = fresh_loss(network, inputs, target)
    assert after - before == pytest.approx(float(found[0]), rel=1e-9)


def test_predicted_moves_of_the_last_layer_are_exact_for_mse():
    descent, _, _ = descent_of(OPTIONS["plain"], criterion="mse", bias=False)
    found, _ = predicted_moves(descent.network, adjacent=False, least_gain=0.0)
    expected, _ = exact_moves(descent.network, adjacent=False, least_gain=0.0)
    assert found.row.tolist() == expected.row.tolist()
    assert found.value.tolist() == expected.value.tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"moves_per_unit": 0},
        {"group": 2.5},
        {"last_layer": -1},
        {"least_gain": -1.0},
        {"least_gain": float("nan")},
        {"scales": "some"},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        GroupOptions(**options)
