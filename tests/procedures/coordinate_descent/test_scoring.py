"""Every score equals a fresh forward call, whatever lies between the layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.errors import NotApplicable, SpecError
from whit.parts.channel_gates import RealToBinary
from whit.parts.instance_thresholds import InstancePReLU, InstanceThreshold
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign
from whit.procedures.coordinate_descent.guidance import gradients, unit_slope
from whit.procedures.coordinate_descent.moves import every_move, set_levels
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions
from whit.procedures.coordinate_descent.places import Place
from whit.procedures.coordinate_descent.scoring import ExactScorer
from whit.procedures.coordinate_descent.sweeping import Sweeper

ACTIVATIONS = {"sign": Sign, "relu": nn.ReLU, "tanh": nn.Tanh}
SAMPLES = 13


class Residual(nn.Module):
    """A shortcut around a layer, and functions instead of modules."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        hidden = hidden + functional.relu(self.second(hidden))
        return self.head(hidden.relu_())


class Branches(nn.Module):
    """Two layers beside each other on one input, joined, and a constant that is no sample."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 4)
        self.head = nn.Linear(7, 3)
        self.register_buffer("shift", torch.randn(1, 7))

    def forward(self, x):
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(torch.tanh(joined + self.shift))


class InPlace(nn.Module):
    """Linear layers with an activation between them that works in place."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.first, self.second, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.act(self.second(self.act(self.first(x)))))


class Own(nn.Module):
    """A module of the user's own that works in place."""

    def forward(self, x):
        return x.relu_()


def mlp(depth, activation, norm=False):
    layers, size = [Normalise(0.5, 2.0)], 5
    for _ in range(depth - 1):
        layers += [nn.Linear(size, 6, bias=not norm)]
        layers += [nn.BatchNorm1d(6)] if norm else []
        layers += [ACTIVATIONS[activation]()]
        size = 6
    return nn.Sequential(*layers, nn.Linear(size, 3))


def conv(activation, norm=False, **options):
    act = ACTIVATIONS[activation]
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=not norm),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        act(),
        nn.Conv2d(4, 6, 2, **options),
        act(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.LazyLinear(5),
        act(),
        nn.Linear(5, 3),
    )


def per_sample(middle):
    """Return a network whose activation follows the statistics of each sample's map."""
    torch.manual_seed(3)
    for name, parameter in middle.named_parameters():
        if "conv" not in name:
            parameter.data.normal_(0.0, 0.3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        middle,
        nn.Conv2d(4, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


NETWORKS = {
    "instance_threshold": (per_sample(InstanceThreshold(4, "mean_variance")), (2, 6, 6)),
    "instance_plus": (
        per_sample(nn.Sequential(InstancePReLU(4), InstanceThreshold(4, plus=True))),
        (2, 6, 6),
    ),
    "gated": (per_sample(RealToBinary(nn.Conv2d(4, 4, 3, padding=1), Sign(), -1.0)), (2, 6, 6)),
    **{f"mlp{d}_{a}": (mlp(d, a), (5,)) for d in (1, 2, 3, 4) for a in ACTIVATIONS},
    **{f"norm{d}_{a}": (mlp(d, a, norm=True), (5,)) for d in (2, 3) for a in ACTIVATIONS},
    **{f"conv_{a}": (conv(a), (2, 6, 6)) for a in ACTIVATIONS},
    "conv_norm": (conv("sign", norm=True), (2, 6, 6)),
    "conv_strided": (conv("relu", stride=2, dilation=2), (2, 9, 9)),
    "conv_grouped": (conv("tanh", groups=2), (2, 6, 6)),
    "conv_circular": (conv("relu", padding="same", padding_mode="circular"), (2, 6, 6)),
    "mixed_between": (
        nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)),
        (5,),
    ),
    "last_is_conv": (
        nn.Sequential(nn.Conv2d(2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (2, 4, 4),
    ),
    "nested": (nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 3)), (5,)),
    "residual": (Residual(), (5,)),
    "functional_in_place": (InPlace(lambda x: functional.relu(x, inplace=True)), (5,)),
    "positional_in_place": (InPlace(lambda x: functional.relu(x, True)), (5,)),
    "method_in_place": (InPlace(lambda x: x.relu_()), (5,)),
    "torch_in_place": (InPlace(torch.relu_), (5,)),
    "own_in_place": (InPlace(Own()), (5,)),
    "module_in_place": (InPlace(nn.ReLU(inplace=True)), (5,)),
    "branches": (Branches(), (5,)),
    "one_layer": (nn.Linear(5, 3), (5,)),
}


def made(name, seed=0, values="ternary"):
    """Return a network of the list with discrete weights, inputs and classes."""
    model, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.eval()(inputs.float())  # gives lazy layers their shape
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.running_mean, module.weight, module.bias):
                    tensor.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    target = torch.randint(3, (SAMPLES,), generator=generator)
    return DiscreteNetwork.from_model(model, values=values, generator=generator), inputs, target


def fresh_loss(network, inputs, target, batch=False):
    """Return the loss of the written model, in float64, by an ordinary forward call."""
    model = copy.deepcopy(network.model).double().eval()
    for layer in network.layers:
        module = model.get_submodule(layer.path)
        module.weight.data = layer.weight()
        if layer.bias_index is not None:
            module.bias.data = layer.bias()
    for module in model.modules():
        if batch and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        return float(functional.cross_entropy(model(inputs), target))


def brute_force(network, inputs, target, moves, **rest):
    losses = []
    for number in range(len(moves)):
        undo = set_levels(network, moves.take(slice(number, number + 1)))
        losses.append(fresh_loss(network, inputs, target, **rest))
        set_levels(network, undo)
    return torch.tensor(losses, dtype=torch.float64)


def some(moves, count=60):
    chosen = torch.randperm(len(moves), generator=torch.Generator().manual_seed(1))[:count]
    return moves.take(chosen)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_equal_fresh_forward_calls(name):
    network, inputs, target = made(name)
    scorer = ExactScorer(network, inputs, target)
    assert scorer.loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-12)
    moves = some(every_move(network))
    expected = brute_force(network, inputs, target, moves)
    assert torch.allclose(scorer.score(moves), expected, rtol=1e-10, atol=0)
    assert expected.std() > 0


@pytest.mark.parametrize("name", ["norm3_tanh", "norm2_sign", "conv_norm"])
def test_statistics_of_the_batch_are_renewed_for_each_candidate(name):
    network, inputs, target = made(name)
    scorer = ExactScorer(network, inputs, target, batch_statistics=True)
    moves = some(every_move(network), 30)
    expected = brute_force(network, inputs, target, moves, batch=True)
    assert torch.allclose(scorer.score(moves), expected, rtol=1e-10, atol=0)
    scorer.write_back()  # the stored statistics are now those of the samples
    written = copy.deepcopy(network.model).double().eval()
    with torch.no_grad():
        loss = float(functional.cross_entropy(written(inputs), target))
    assert loss == pytest.approx(scorer.loss, rel=1e-5)


@pytest.mark.parametrize("values", ["binary", "powers_of_two", 9, [-2.5, 0.1, 0.3]])
def test_any_set_of_values(values):
    network, inputs, target = made("mlp3_tanh", values=values)
    moves = some(every_move(network))
    scores = ExactScorer(network, inputs, target).score(moves)
    assert torch.allclose(scores, brute_force(network, inputs, target, moves), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["mlp3_relu", "conv_sign", "residual", "norm2_tanh"])
def test_candidates_together_equal_one_by_one_and_in_small_pieces(name):
    network, inputs, target = made(name)
    moves = some(every_move(network), 40)
    together = ExactScorer(network, inputs, target).score(moves)
    scorer = ExactScorer(network, inputs, target)
    alone = torch.cat([scorer.score(moves.take(slice(n, n + 1))) for n in range(len(moves))])
    assert torch.allclose(together, alone, rtol=1e-12, atol=0)
    # 1 byte: one candidate at a time, one sample at a time.
    pieces = ExactScorer(network, inputs, target, memory_bytes=1).score(moves)
    assert torch.allclose(together, pieces, rtol=1e-12, atol=0)


def test_memory_limits_how_many_rows_are_worked_on(monkeypatch):
    network, inputs, target = made("mlp3_relu")
    scorer = ExactScorer(network, inputs, target, memory_bytes=20_000)
    rows = []
    onward = scorer.propagation.onward

    def watched(layer, value, *rest):
        rows.append(len(value))
        return onward(layer, value, *rest)

    monkeypatch.setattr(scorer.propagation, "onward", watched)
    scorer.score(every_move(network))
    assert 0 < max(rows) <= 20_000 // 8 // 9


def test_segments_leave_what_they_are_given_as_it_is():
    for name in (n for n in NETWORKS if n.endswith("in_place")):
        network, inputs, target = made(name)
        scorer = ExactScorer(network, inputs, target)
        for place in scorer.places[:2]:
            assert place.segment is not None
            channel = torch.randn(2, SAMPLES, dtype=torch.float64)
            before = channel.clone()
            mapped = place.segment(channel, 0)
            assert torch.equal(channel, before)
            assert torch.equal(mapped, before.relu())


@pytest.mark.parametrize("name", ["mlp3_relu", "conv_tanh", "residual"])
def test_memory_limits_columns_and_parts_with_gradients_too(name, monkeypatch):
    wide, _, target = made(name)
    network, inputs, target = made(name)
    moves = one_move_each(network)
    of_unit = moves.take((moves.layer == 0) & (moves.position < network.layers[0].index[0].numel()))
    plain = ExactScorer(wide, inputs, target)
    slopes, bends = gradients(plain, curvature=True)
    slope = unit_slope(plain, 0, 1)
    sizes = [1, 2, len(of_unit)]
    expected_losses = plain.prefixes(of_unit, sizes)
    # One channel of all samples is the least: three of the widest.
    widest = max(plain.propagation.sizes[p.node] / len(p.layer.index) for p in plain.places)
    limit = int(3 * 8 * SAMPLES * widest)
    scorer = ExactScorer(network, inputs, target, memory_bytes=limit)
    held, rows = [], []
    columns, run = Place.columns, scorer.propagation._run

    def watched_columns(self, given, position):
        found = columns(self, given, position)
        held.append(found.numel() * 8)
        return found

    def watched_run(node, values):
        found = run(node, values)
        rows.append(len(found) if torch.is_grad_enabled() else 0)
        return found

    monkeypatch.setattr(Place, "columns", watched_columns)
    monkeypatch.setattr(scorer.propagation, "_run", watched_run)
    assert torch.allclose(unit_slope(scorer, 0, 1), slope, rtol=1e-9, atol=1e-12)
    for found, expected in zip(gradients(scorer, True), (slopes, bends), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    everything = sum(scorer.propagation.sizes.values())
    assert 0 < max(rows) <= max(1, limit / (2 * 8 * everything))
    losses = scorer.prefixes(of_unit, sizes)
    assert torch.allclose(losses, expected_losses, rtol=1e-10)
    scorer.apply(of_unit)
    assert scorer.loss == pytest.approx(float(losses[-1]), rel=1e-10)
    Sweeper(network, SweepOptions(guided=3), torch.Generator(), lambda: False).guided(scorer)
    assert scorer.loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-9)
    assert 0 < max(held) <= limit


@pytest.mark.parametrize("name", ["mlp4_sign", "norm3_relu", "conv_tanh", "residual", "branches"])
def test_made_moves_keep_the_loss_of_a_fresh_forward_call(name):
    network, inputs, target = made(name)
    scorer = ExactScorer(network, inputs, target)
    moves = every_move(network)
    generator = torch.Generator().manual_seed(5)
    for _ in range(12):
        chosen = moves.take(torch.randint(len(moves), (1,), generator=generator))
        promised = float(scorer.score(chosen))
        scorer.apply(chosen)
        assert scorer.loss == pytest.approx(promised, rel=1e-10)
        assert scorer.loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-10)
    assert scorer.refresh() <= 1e-12


def one_move_each(network, seed=3):
    """Return one random move of each position, in random order."""
    moves = every_move(network)
    order = torch.randperm(len(moves), generator=torch.Generator().manual_seed(seed))
    seen, kept = set(), []
    for index in order.tolist():
        place = int(moves.layer[index]), int(moves.position[index])
        if place not in seen:
            seen.add(place)
            kept.append(index)
    return moves.take(torch.tensor(kept))


@pytest.mark.parametrize("name", ["mlp3_relu", "conv_sign", "residual"])
@pytest.mark.parametrize("one_unit", [True, False])
def test_prefixes_of_several_moves_have_their_true_loss(name, one_unit):
    network, inputs, target = made(name)
    scorer = ExactScorer(network, inputs, target)
    moves = one_move_each(network)
    if one_unit:
        first = network.layers[0]
        inside = (moves.layer == 0) & (moves.position < first.index[0].numel())
        moves = moves.take(inside)
    moves = moves.take(slice(8))
    before = [layer.index.clone() for layer in network.layers], scorer.loss
    losses = scorer.prefixes(moves, [1, 2, 4, len(moves)])
    for size, loss in zip([1, 2, 4, len(moves)], losses.tolist(), strict=True):
        undo = set_levels(network, moves.take(slice(size)))
        assert loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-10)
        set_levels(network, undo)
    assert all(torch.equal(a.index, b) for a, b in zip(network.layers, before[0], strict=True))
    assert scorer.loss == before[1]


def test_a_tried_move_is_undone_to_the_last_bit():
    network, inputs, target = made("mlp3_sign")
    scorer = ExactScorer(network, inputs, target)
    moves = some(every_move(network))
    before = scorer.score(moves)
    with scorer.tried(one_move_each(network)):
        assert not torch.equal(scorer.score(moves), before)
    assert torch.equal(scorer.score(moves), before)


def test_signs_that_do_not_flip_need_no_work():
    network, inputs, target = made("mlp3_sign")
    scorer = ExactScorer(network, inputs, target)
    moves = every_move(network)
    first = moves.take(moves.layer == 0)
    before = scorer.macs
    scorer.score(first)
    sign_work = scorer.macs - before
    tanh, inputs, target = made("mlp3_tanh")
    scorer = ExactScorer(tanh, inputs, target)
    before = scorer.macs
    scorer.score(first)
    assert sign_work < 0.6 * (scorer.macs - before)


def test_linear_model_and_mean_square_in_closed_form():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    target = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    network = DiscreteNetwork.from_model(nn.Linear(6, 1, bias=False), generator=generator)
    scorer = ExactScorer(network, inputs, target, "mse")
    moves = every_move(network)
    layer = network.layers[0]
    residual = inputs @ layer.weight().T - target
    step = layer.values[moves.level] - layer.values[layer.index.flatten()[moves.position].long()]
    column = inputs[:, moves.position]
    scaled = layer.scale * step
    change = (2 * scaled * (residual.T @ column) + scaled**2 * column.square().sum(0)) / 20
    expected = residual.square().mean() + change[0]
    assert torch.allclose(scorer.score(moves), expected, rtol=1e-10, atol=0)


def test_criteria_score_the_last_layer_as_a_forward_call_does():
    for name in ("cross_entropy", "zero_one", "zero_one_ties"):
        network, inputs, target = made("mlp2_relu")
        scorer = ExactScorer(network, inputs, target, name)
        own = ExactScorer(network, inputs, target, scorer.criterion.losses)
        moves = every_move(network)
        assert torch.allclose(scorer.score(moves), own.score(moves), rtol=1e-10, atol=0)


def test_zero_one_with_ties_counts_errors_first():
    network, inputs, target = made("mlp2_relu")
    plain = ExactScorer(network, inputs, target, "zero_one")
    ties = ExactScorer(network, inputs, target, "zero_one_ties")
    moves = every_move(network)
    errors, mixed = plain.score(moves), ties.score(moves)
    assert (mixed >= errors).all()
    assert (mixed < errors + 1 / SAMPLES).all()
    assert len(errors.unique()) < len(mixed.unique())


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.layer(x)
        return hidden - hidden.mean(0)


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x):
        return self.layer(self.layer(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Mixing(), "depends on the other samples"),
        (Deciding(), "cannot be followed step by step"),
        (Twice(), "is called 2 times"),
    ],
)
def test_models_that_cannot_be_treated_say_why(model, words):
    inputs, target = torch.randn(8, 5), torch.randint(3, (8,))
    with pytest.raises(NotApplicable, match=words):
        ExactScorer(DiscreteNetwork.from_model(model), inputs, target)


def test_data_that_do_not_fit_are_refused():
    network, inputs, target = made("mlp2_relu")
    with pytest.raises(SpecError, match="as many of both"):
        ExactScorer(network, inputs, target[:-1])
    with pytest.raises(NotApplicable, match="'mse'"):
        ExactScorer(network, inputs, target.double())
    with pytest.raises(NotApplicable, match="outputs' shape"):
        ExactScorer(network, inputs, target, "mse")
    with pytest.raises(SpecError, match="cross_entropy"):
        ExactScorer(network, inputs, target, "cross_entropi")
    with pytest.raises(SpecError, match="one loss for each sample"):
        ExactScorer(network, inputs, target, lambda z, y: z.sum())
