"""A descent never raises the loss and ends where no single move improves it."""

import copy
import itertools

import pytest
import torch
from torch import nn

from whit.errors import SpecError
from whit.procedures.coordinate_descent.acceptance import improving, line_search, pair_move
from whit.procedures.coordinate_descent.descent import CoordinateDescent
from whit.procedures.coordinate_descent.moves import Moves, every_move, set_levels
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions
from whit.procedures.coordinate_descent.scoring import ExactScorer

WAYS = {
    "plain": {"block": 1},
    "cyclic": {"block": 1, "order": "cyclic"},
    "first": {"rule": "first"},
    "units": {},
    "blocks": {"block": 7},
    "guided": {"guided": 3},
    "scales": {"scale_search": True},
}


def clouds(samples=60, classes=3, features=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, features, generator=generator)
    target = torch.arange(samples) % classes
    inputs = centres[target] + torch.randn(samples, features, generator=generator)
    return inputs, target


def small(seed=0, hidden=5, values="ternary"):
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3))
    generator = torch.Generator().manual_seed(seed)
    return DiscreteNetwork.from_model(model, values=values, generator=generator)


def losses_around(network, inputs, target):
    """Return the loss of every neighbour, each by a forward call of its own."""
    found = []
    moves = every_move(network)
    for number in range(len(moves)):
        undo = set_levels(network, moves.take(slice(number, number + 1)))
        found.append(ExactScorer(network, inputs, target).loss)
        set_levels(network, undo)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_never_rises_and_the_end_is_a_local_minimum(way):
    inputs, target = clouds()
    network = small()
    descent = CoordinateDescent(network, inputs, target, SweepOptions(sweeps=60, **WAYS[way]))
    losses = [descent.scorer.loss]
    while not descent.finished:
        row = descent.sweep()
        assert row.accepted > 0 or row.loss == pytest.approx(losses[-1], rel=1e-12)
        losses.append(row.loss)
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.6 * losses[0]
    assert descent.one_optimal
    assert descent.reason == "no move improves the loss"
    present = ExactScorer(network, inputs, target).loss
    assert (losses_around(network, inputs, target) >= present - 1e-12).all()


def test_single_accepted_moves_never_raise_the_loss(monkeypatch):
    inputs, target = clouds()
    seen = []
    apply = ExactScorer.apply

    def watched(self, moves):
        before = self.loss
        undo = apply(self, moves)
        seen.append((before, self.loss))
        return undo

    monkeypatch.setattr(ExactScorer, "apply", watched)
    CoordinateDescent(small(), inputs, target, SweepOptions(block=1, sweeps=3)).run()
    assert len(seen) > 10
    assert all(after < before for before, after in seen)


@pytest.mark.parametrize("seed", range(4))
def test_a_block_is_at_least_as_good_as_its_best_move(seed):
    inputs, target = clouds(seed=seed)
    scorer = ExactScorer(small(seed, hidden=8), inputs, target)
    moves = every_move(scorer.network)
    scores = scorer.score(moves)
    chosen, alone = improving(moves, scores, scorer.loss)
    assert alone == pytest.approx(float(scores.min()))
    block = line_search(scorer, chosen, alone)
    assert block.loss <= alone
    scorer.apply(block.moves)
    assert scorer.loss == pytest.approx(block.loss, rel=1e-10)


def test_improving_takes_one_move_a_position_by_the_rule():
    moves = Moves(
        torch.zeros(6, dtype=torch.int64),
        torch.tensor([0, 0, 1, 1, 2, 2]),
        torch.tensor([1, 2, 1, 2, 0, 1]),
    )
    losses = torch.tensor([0.9, 0.5, 0.7, 0.8, 1.0, 2.0], dtype=torch.float64)
    best, alone = improving(moves, losses, 1.0)
    assert (best.position.tolist(), best.level.tolist(), alone) == ([0, 1], [2, 1], 0.5)
    first, alone = improving(moves, losses, 1.0, "first")
    assert (first.position.tolist(), first.level.tolist(), alone) == ([1, 0], [1, 1], 0.7)
    none, alone = improving(moves, losses, 0.5)
    assert (len(none), alone) == (0, float("inf"))


def xor_like():
    """Return four weighted corners whose best ternary 2-2-1 network is not found by one descent."""
    inputs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return inputs, torch.tensor([[-1.0], [1.0], [1.0], [-1.0]])


def two_two_one(seed):
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    generator = torch.Generator().manual_seed(seed)
    return DiscreteNetwork.from_model(model, scales=1.0, generator=generator)


def all_settings(inputs, target):
    """Return the mean squared error of all 3^9 settings of the 2-2-1 network."""
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 9)
    first, offset, second, last = grid.split([4, 2, 2, 1], 1)
    hidden = torch.tanh(inputs.double() @ first.reshape(-1, 2, 2).mT + offset.unsqueeze(1))
    output = (hidden @ second.unsqueeze(2)).squeeze(2) + last
    return (output - target.double().T).square().mean(1)


def test_restarts_reach_the_global_minimum_of_all_settings():
    inputs, target = xor_like()
    lowest = float(all_settings(inputs, target).min())
    options = SweepOptions(criterion="mse", restarts=30, sweeps=20)
    network = two_two_one(0)
    history = CoordinateDescent(network, inputs, target, options).run()
    ends = [rows[-1].loss for rows in by_restart(history)]
    assert all(end >= lowest - 1e-12 for end in ends)
    assert min(ends) == pytest.approx(lowest, rel=1e-10)
    # The best of all restarts is what is left in the network.
    left = ExactScorer(network, inputs, target, "mse").loss
    assert left == pytest.approx(lowest, rel=1e-10)


def by_restart(history):
    return [list(rows) for _, rows in itertools.groupby(history, lambda row: row.restart)]


def test_pairs_find_the_best_pair_and_leave_local_minima():
    inputs, target = xor_like()
    stuck = None
    for seed in range(20):
        network = two_two_one(seed)
        descent = CoordinateDescent(network, inputs, target, SweepOptions(criterion="mse"))
        descent.run()
        pair = pair_move(descent.scorer, 18)
        if pair is not None:
            stuck = descent
            break
    assert stuck is not None, "no seed ends in a minimum that a pair of moves leaves"
    before = stuck.scorer.loss
    assert stuck.scorer.trial(pair) < before
    options = SweepOptions(criterion="mse", pairs=18, sweeps=50)
    network = two_two_one(seed)
    history = CoordinateDescent(network, inputs, target, options).run()
    assert "pairs" in {row.kind for row in history}
    assert history[-1].loss < before
    # At the end no pair of moves improves either.
    scorer = ExactScorer(network, inputs, target, "mse")
    assert pair_move(scorer, 18) is None
    moves = every_move(network)
    for a, b in itertools.combinations(range(len(moves)), 2):
        if moves.position[a] != moves.position[b] or moves.layer[a] != moves.layer[b]:
            both = moves.take(torch.tensor([a, b]))
            assert scorer.trial(both) >= scorer.loss - 1e-12


def test_the_same_seed_gives_the_same_and_a_resumed_descent_the_same_bits():
    inputs, target = clouds()
    for extra in ({}, {"guided": 2}, {"batch": 20}, {"restarts": 3, "sweeps": 2}):
        options = SweepOptions(**{"sweeps": 6, **extra})
        whole = CoordinateDescent(small(), inputs, target, options, seed=4)
        again = CoordinateDescent(small(), inputs, target, options, seed=4)
        for _ in range(3):
            whole.sweep()
            again.sweep()
        saved = copy.deepcopy(again.state_dict())
        resumed = CoordinateDescent(small(9), inputs, target, options, seed=8)
        resumed.load_state_dict(saved)
        while not whole.finished:
            left, right = whole.sweep(), resumed.sweep()
            assert left[:-1] == right[:-1]
        assert resumed.finished
        assert whole.macs == resumed.macs
        whole.finish()
        resumed.finish()
        for a, b in zip(whole.network.layers, resumed.network.layers, strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.bias_index, b.bias_index)


def test_other_seeds_and_orders_take_other_ways():
    inputs, target = clouds()
    ends = []
    for seed, order in ((0, "random"), (1, "random"), (0, "cyclic")):
        options = SweepOptions(sweeps=1, order=order)
        ends.append(CoordinateDescent(small(), inputs, target, options, seed=seed).run()[0].loss)
    assert len(set(ends)) == 3


def test_a_batch_needs_the_second_batch_to_agree(monkeypatch):
    inputs, target = clouds(120)
    made = []
    follow = ExactScorer.follow

    def watched(self, moves, undo):
        before = self.loss
        follow(self, moves, undo)
        made.append((len(self.target), self.loss < before))

    monkeypatch.setattr(ExactScorer, "follow", watched)
    options = SweepOptions(batch=30, sweeps=3)
    descent = CoordinateDescent(small(), inputs, target, options)
    first = descent.scorer.loss
    history = descent.run()
    assert history[-1].loss < first
    assert not descent.one_optimal
    assert sum(row.accepted for row in history) > 0
    # Each move made lowers the loss on the first batch and on the second.
    assert {samples for samples, _ in made} == {30}
    assert all(better for _, better in made)


def test_best_state_on_validation_is_kept():
    inputs, target = clouds(30, seed=3)
    other = clouds(30, seed=4)
    options = SweepOptions(sweeps=10, keep="best_valid", block=1)
    network = small(3)
    descent = CoordinateDescent(network, inputs, target, options, valid=other)
    start = copy.deepcopy(network.state_dict())
    losses = [descent.scorer.measure(*other)[0]]
    while not descent.finished:
        descent.sweep()
        losses.append(descent.scorer.measure(*other)[0])
    descent.finish()
    assert descent.scorer.measure(*other)[0] == pytest.approx(min(losses), rel=1e-12)
    # Here no sweep is as good as the start, which is row 0.
    assert losses[0] == min(losses)
    for layer, saved in zip(network.layers, start, strict=True):
        assert torch.equal(layer.index, saved["index"])
    assert not descent.one_optimal
    assert "sweep 0" in descent.reason


@pytest.mark.parametrize("options", [{"keep": "best_valid"}, {"restarts": 4, "sweeps": 5}])
def test_what_is_said_of_the_end_is_true_of_the_state_that_is_kept(options):
    said = set()
    for seed in range(8):
        inputs, target = clouds(30, seed=seed)
        other = clouds(30, seed=seed + 100)
        network = small(seed, hidden=3)
        descent = CoordinateDescent(
            network, inputs, target, SweepOptions(**options), valid=other, seed=seed
        )
        descent.run()
        around = losses_around(network, inputs, target)
        best = bool((around >= ExactScorer(network, inputs, target).loss - 1e-12).all())
        assert best or not descent.one_optimal
        assert descent.one_optimal == (descent.reason == "no move improves the loss")
        said.add(descent.one_optimal)
    assert said == {True, False}


def test_the_rule_gradient_says_where_there_is_no_gradient():
    class Step(nn.Module):
        def forward(self, x):
            return torch.sign(x)

    inputs, target = clouds()
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), Step())
    options = SweepOptions(criterion="cross_entropy", rule="gradient")
    descent = CoordinateDescent(DiscreteNetwork.from_model(net), inputs, target, options)
    descent.run()
    assert descent.reason.startswith("all gradients are 0")
    assert not descent.one_optimal
    descent = CoordinateDescent(small(), inputs, target, SweepOptions(rule="gradient", sweeps=200))
    descent.run()
    assert descent.reason == "no move against the gradient improves the loss"


def test_limits_end_a_descent():
    inputs, target = clouds()
    few = CoordinateDescent(small(), inputs, target, SweepOptions(candidates=20))
    few.run()
    assert 20 <= few.candidates < 200
    assert few.reason == "the limit of seconds or candidates is reached"
    assert not few.one_optimal
    one = CoordinateDescent(small(), inputs, target, SweepOptions(sweeps=1))
    assert [row.sweep for row in one.run()] == [1]
    short = CoordinateDescent(small(), inputs, target, SweepOptions(seconds=1e-6))
    assert len(short.run()) == 1


def test_weights_written_are_values_of_the_set():
    inputs, target = clouds()
    network = small(values=[-2.0, -0.5, 1.5])
    CoordinateDescent(network, inputs, target, SweepOptions(sweeps=3)).run()
    for layer in network.layers:
        written = layer.module.weight.detach().double() / layer.scale
        levels = torch.tensor([-2.0, -0.5, 1.5], dtype=torch.float64)
        assert ((written.unsqueeze(-1) - levels).abs().min(-1).values < 1e-6).all()
        assert (
            (layer.module.bias.detach().double() / layer.scale).unsqueeze(-1) - levels
        ).abs().min(-1).values.max() < 1e-6


def test_a_cost_without_gradient_is_lowered_too():
    inputs, target = clouds()

    def nonzero(network):
        return sum(int((la.index != 1).sum()) for la in network.layers)

    plain, sparse, own = small(), small(), small()
    CoordinateDescent(plain, inputs, target).run()
    weights = sum(la.index.numel() for la in plain.layers)
    CoordinateDescent(sparse, inputs, target, SweepOptions(nonzero_cost=0.5)).run()
    cost = SweepOptions(cost=lambda network: 0.5 * nonzero(network) / weights)
    CoordinateDescent(own, inputs, target, cost).run()
    assert nonzero(sparse) < nonzero(plain)
    # The built-in cost and the same as a function of the user take the same way.
    assert all(
        torch.equal(a.index, b.index) for a, b in zip(sparse.layers, own.layers, strict=True)
    )
    energy = small()
    CoordinateDescent(energy, inputs, target, SweepOptions(energy_cost=0.5)).run()
    assert nonzero(energy) < nonzero(plain)


def test_dead_starts_are_refused():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    for module in (model[0], model[2]):
        nn.init.zeros_(module.weight)
    network = DiscreteNetwork.from_model(model, start="from_model")
    with pytest.raises(SpecError, match="All weights of the layers 0, 2 are 0"):
        CoordinateDescent(network, *clouds())
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight)
    alive = DiscreteNetwork.from_model(linear, start="from_model")
    assert CoordinateDescent(alive, *clouds()).run()[-1].accepted >= 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "bast"}, "Did you mean 'best'"),
        ({"order": "sorted"}, "random"),
        ({"block": 0}, "block was given 0"),
        ({"block": "units"}, "block was given"),
        ({"sweeps": True}, "sweeps was given True"),
        ({"seconds": -1}, "seconds was given"),
        ({"nonzero_cost": float("nan")}, "nonzero_cost"),
        ({"rule": "gradient", "pairs": 3}, "does not try all moves"),
        ({"batch": 10, "guided": 3}, "needs all samples"),
        ({"criterion": "hinge"}, "criterion was given"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(SpecError, match=words):
        SweepOptions(**options)


def test_options_that_do_not_fit_the_data_are_refused():
    inputs, target = clouds(20)
    with pytest.raises(SpecError, match="two disjoint batches"):
        CoordinateDescent(small(), inputs, target, SweepOptions(batch=11))
    with pytest.raises(SpecError, match="needs validation samples"):
        CoordinateDescent(small(), inputs, target, SweepOptions(keep="best_valid"))
