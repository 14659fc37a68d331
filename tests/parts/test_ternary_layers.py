"""Blocks, what is drawn for them, rounding and fitting: layer by layer, against torch itself."""

import copy
import itertools

import pytest
import torch
from torch import nn

from whit.errors import NoEffect, NotApplicable, SpecError
from whit.parts.firing_blocks import blocks, make_teacher
from whit.parts.layer_samples import draw_places, observe, patches, whole_numbers
from whit.parts.levels import Levels, add_levels
from whit.parts.normalise import Normalise
from whit.parts.stochastic_firing import StochasticFire, TernaryInput, stochastic_fire
from whit.parts.ternary_layers import (
    HiddenFit,
    in_batches,
    is_ternary,
    round_block,
    rounded_weight,
)
from whit.parts.ternary_thresholds import TernaryThresholds


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(11)


def spread(model):
    """Give batch norms parameters and statistics that matter, gamma < 0 included; return eval."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.3, 1.5)
                module.weight[::3] *= -1
                module.bias.normal_(0, 0.5)
                module.running_mean.normal_(0, 1)
                module.running_var.uniform_(0.5, 4)
    return model.eval()


def settle(model, x):
    """Give batch norms the statistics of the samples, as training does; gamma of both signs."""
    spread(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def ternary_weights(model):
    """Give every layer weights of -a, 0 and +a."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            factor = torch.rand(module.weight.shape[0], *[1] * (module.weight.dim() - 1)) + 0.1
            with torch.no_grad():
                module.weight.copy_(torch.randint(-1, 2, module.weight.shape) * factor)
                module.weight.flatten(1)[:, 0] = factor.flatten()
    return model


def images():
    return torch.randint(-1, 2, (300, 3, 10, 10)).float()


# The order of pool and batch norm, groups, strides and padding all matter to signs and places.
TEACHERS = {
    "linear": lambda: (
        nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), StochasticFire(), nn.Linear(20, 3)),
        torch.randint(-1, 2, (60, 30)).float(),
    ),
    "no norm": lambda: (
        nn.Sequential(nn.Linear(30, 20), StochasticFire("hardtanh"), nn.Linear(20, 3)),
        torch.randint(-1, 2, (60, 30)).float(),
    ),
    "norm, pool": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), nn.MaxPool2d(2), StochasticFire(),
            nn.Flatten(), nn.Linear(225, 3),
        ),
        images(),
    ),
    "pool, norm": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 9, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(9), StochasticFire(),
            nn.Flatten(), nn.Linear(225, 3),
        ),
        images(),
    ),
    "two norms around a pool": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.MaxPool2d(3, 2), nn.BatchNorm2d(9),
            StochasticFire(), nn.Flatten(), nn.Linear(81, 3),
        ),
        images(),
    ),
    "groups and strides": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 9, 3, stride=2, groups=3, padding=(1, 0), bias=False), nn.BatchNorm2d(9),
            StochasticFire(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3),
        ),
        images(),
    ),
    "one dimension": lambda: (
        nn.Sequential(
            nn.Conv1d(3, 9, 3, padding="same", dilation=2), nn.MaxPool1d(2), nn.BatchNorm1d(9),
            StochasticFire(), nn.Flatten(), nn.Linear(45, 3),
        ),
        images()[:, :, 0],
    ),
}  # fmt: skip


def fired(model, x):
    """Return what the first firing gives."""
    seen = []
    fire = blocks(model)[0].fire.module
    handle = fire.register_forward_hook(lambda m, given, output: seen.append(output.detach()))
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", TEACHERS)
def test_rounding_a_teacher_with_ternary_weights_is_exact(name):
    model, x = TEACHERS[name]()
    model = ternary_weights(spread(model.double()))
    x = x.double()
    expected = fired(model, x)
    round_block(blocks(model)[0])
    model.float()
    assert torch.equal(fired(model, x.float()).double(), expected)
    assert set(model[0].weight.unique().tolist()) <= {-1, 0, 1}
    assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model)
    assert len(expected.unique()) == 3


@pytest.mark.parametrize("name", TEACHERS)
def test_what_is_drawn_is_what_the_layer_reads(name):
    model, x = TEACHERS[name]()
    spread(model)
    block = blocks(model)[0]
    layer = block.layer
    seen = observe(model, model, 0, in_batches(x, 16), 200, torch.Generator().manual_seed(0))
    weight = layer.weight.detach().flatten(1).double()
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    per_group, columns = len(weight) // groups, weight.shape[1]
    rates = torch.from_numpy(seen.rates)
    assert seen.inputs.shape == (columns * groups, len(rates) * seen.window)
    # Sums of what was drawn, through the teacher's own pools and norms, are its firing rates.
    affine = copy.deepcopy(model).double()
    for channel in range(len(weight)):
        first = channel // per_group * columns
        inputs = torch.from_numpy(seen.inputs[first : first + columns]).double()
        sums = weight[channel] @ inputs
        sums = sums if layer.bias is None else sums + layer.bias[channel].detach().double()
        for link in block.inside:
            if isinstance(link.module, nn.MaxPool1d | nn.MaxPool2d):
                sums = sums.reshape(-1, seen.window).amax(1)
            else:
                norm = affine.get_submodule(link.path)
                sums = (sums - norm.running_mean[channel]) / (
                    norm.running_var[channel] + norm.eps
                ).sqrt() * norm.weight[channel] + norm.bias[channel]
        expected = block.firing.firing_rate(sums)
        assert torch.allclose(rates[:, channel], expected, atol=1e-5)


def rates(model, x):
    """Return the firing rates of the first block at all places."""
    seen = []
    fire = blocks(model)[0].fire.module
    handle = fire.register_forward_pre_hook(lambda m, given: seen.append(given[0].detach()))
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return fire.firing_rate(seen[0])


def expected_agreement(student, rho):
    """Return how often a firing by chance with these rates is what the student fires."""
    chance = torch.where(student > 0, rho, torch.where(student < 0, -rho, 1 - rho.abs()))
    return float(chance.clamp_min(0).double().mean())


@pytest.mark.parametrize("name", TEACHERS)
def test_a_fit_agrees_with_the_teacher_more_than_rounding(name):
    model, x = TEACHERS[name]()
    settle(model, x)
    teacher = copy.deepcopy(model)
    seen = observe(teacher, teacher, 0, in_batches(x), 5000, torch.Generator().manual_seed(0))
    rho = rates(teacher, x)
    rounded = copy.deepcopy(model)
    round_block(blocks(rounded)[0])
    fit = HiddenFit(model, 0)
    fit.fit(range(fit.channels), seen)
    agreement = expected_agreement(fired(model, x), rho)
    assert agreement > expected_agreement(fired(rounded, x), rho)
    assert agreement > 0.85 * float(fit.bounds.mean())
    assert bool((fit.scores <= fit.bounds + 1e-12).all()) and fit.work > 0
    assert isinstance(blocks(model)[0].fire.module, TernaryThresholds)
    assert set(model[0].weight.unique().tolist()) <= {-1, 0, 1}
    assert not any(p.requires_grad for p in model[0].parameters())


def test_the_score_is_the_agreement_with_firing_by_chance():
    model, x = TEACHERS["linear"]()
    spread(model)
    teacher = copy.deepcopy(model)
    seen = observe(teacher, teacher, 0, in_batches(x, 8), len(x), torch.Generator().manual_seed(0))
    fit = HiddenFit(model, 0)
    fit.fit(range(fit.channels), seen)
    rho = rates(teacher, x)
    student = fired(model, x)
    assert abs(expected_agreement(student, rho) - fit.mean_score()) < 1e-6
    generator = torch.Generator().manual_seed(1)
    drawn = [float((stochastic_fire(rho, generator) == student).double().mean()) for _ in range(99)]
    assert abs(sum(drawn) / len(drawn) - fit.mean_score()) < 0.005


def test_patches_times_weights_are_the_convolution():
    conv = nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), bias=False)
    x = torch.randn(3, 4, 9, 8)
    expected = conv(x).flatten(2)
    found = conv.weight.flatten(1) @ patches(conv, x)
    assert torch.allclose(found, expected, atol=1e-5)


def test_places_of_a_pool():
    pool = nn.MaxPool2d(2)
    places = draw_places((4, 6), pool, 100, torch.Generator())
    assert places.outputs.tolist() == list(range(6)) and places.windows.shape == (6, 4)
    assert places.windows[4].tolist() == [14, 15, 20, 21]
    assert draw_places((), None, 5, torch.Generator()).windows.tolist() == [[0]]
    few = draw_places((9, 9), None, 7, torch.Generator().manual_seed(1)).outputs.tolist()
    assert len(set(few)) == 7


def test_rounding_of_rows():
    weight = torch.tensor([[0.5, -0.5, 0.0, 0.5], [1.0, -0.2, 0.1, -0.9], [0.0, 0.0, 0.0, 0.0]])
    rounded, alpha = rounded_weight(weight)
    assert rounded.tolist() == [[1, -1, 0, 1], [1, 0, 0, -1], [0, 0, 0, 0]]
    assert torch.allclose(alpha.float(), torch.tensor([0.5, 0.95, 1.0]))
    assert is_ternary(weight[:1]) and not is_ternary(weight)


def test_the_quantiser_stands_behind_the_normalisation():
    layers = [Normalise(8.0, 8.0), nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)]
    model = nn.Sequential(*layers)
    make_teacher(model, "tanh", TernaryInput())
    kinds = [type(m).__name__ for m in model]
    assert kinds[:3] == ["Normalise", "TernaryInput", "Flatten"] and "ReLU" not in kinds
    nested = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
    make_teacher(nested, "tanh", TernaryInput())
    assert [type(m).__name__ for m in nested[0]] == ["TernaryInput", "Linear", "StochasticFire"]
    assert nested(torch.randn(5, 4)).shape == (5, 2)


L = nn.Linear


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([nn.Flatten()], NoEffect, "no linear"),
        ([L(2, 2)], NoEffect, "no activation"),
        ([L(2, 2), nn.ReLU(), L(2, 2), L(2, 2)], NotApplicable, "no activation stands between '2'"),
        ([L(2, 2), nn.LayerNorm(2), nn.ReLU(), L(2, 2)], NotApplicable, "'1' .LayerNorm"),
        ([L(2, 2), nn.ReLU(), nn.LayerNorm(2), L(2, 2)], NotApplicable, "other numbers than -1"),
        ([L(2, 2), nn.ReLU(), L(2, 2), nn.ReLU()], NotApplicable, "has no activation"),
        ([L(2, 2), nn.ReLU(), L(2, 2), nn.BatchNorm1d(2)], NotApplicable, "nothing may follow"),
        ([nn.ReLU(), L(2, 2), nn.ReLU(), L(2, 2)], NotApplicable, "no linear or conv"),
        (
            [nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(2, 1, 1)],
            NotApplicable,
            "circular",
        ),
        (
            [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1)],
            NotApplicable,
            "padding, dilation",
        ),
        ([nn.Embedding(3, 2), L(2, 2), nn.ReLU(), L(2, 2)], None, ""),
    ],
    ids=str,
)
def test_layers_that_cannot_be_ternary_are_named(layers, error, words):
    if error is None:
        make_teacher(nn.Sequential(*layers), "tanh", None)
        return
    with pytest.raises(error, match=words):
        make_teacher(nn.Sequential(*layers), "tanh", None)


def test_models_that_cannot_be_ternary():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

    with pytest.raises(NotApplicable, match=r"Own.*nn\.Sequential"):
        make_teacher(Own(), "tanh", None)
    levelled = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    add_levels(levelled[0], Levels("binary"))
    with pytest.raises(SpecError, match="'0' has a Levels already"):
        make_teacher(levelled, "tanh", None)


def test_inputs_that_are_no_whole_numbers():
    model, _ = TEACHERS["linear"]()
    with pytest.raises(NotApplicable, match="input='ternary'"):
        observe(model, model, 0, [torch.randn(4, 30)], 4, torch.Generator())
    with pytest.raises(NotApplicable, match="no whole numbers"):
        observe(model, model, 0, [torch.full((4, 30), 128.0)], 4, torch.Generator())


def test_all_of_a_layer_is_drawn_once():
    model, x = TEACHERS["linear"]()
    spread(model)
    seen = observe(model, model, 0, in_batches(x, 7), 60, torch.Generator().manual_seed(0))
    assert (torch.from_numpy(seen.inputs).T == x).all()
    sizes = [len(batch) for batch in in_batches(x, 7)]
    assert sizes == [7] * 8 + [4] and list(itertools.accumulate(sizes))[-1] == 60


def test_one_activation_at_two_places_becomes_two_firings():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 5), shared, nn.Linear(5, 6), shared, nn.Linear(6, 2))
    make_teacher(model, "tanh", TernaryInput())
    fires = [b.firing for b in blocks(model)[:-1]]
    assert all(isinstance(fire, StochasticFire) for fire in fires) and fires[0] is not fires[1]
    assert model(torch.randn(3, 4)).shape == (3, 2)


def test_a_sequence_at_two_places_is_refused():
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(NotApplicable, match=r"'0.0' and '1.0' are one layer"):
        make_teacher(nn.Sequential(shared, shared, nn.Linear(4, 2)), "tanh", None)


def test_inputs_that_are_not_finite_are_named():
    with pytest.raises(NotApplicable, match="NaN or infinite"):
        whole_numbers(torch.tensor([1.0, float("nan")]), "first")
