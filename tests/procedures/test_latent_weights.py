import math

import pytest
import torch
from torch import nn

from whit.core.hook import Plan
from whit.errors import NoEffect, SpecError
from whit.parts.levels import Levels, add_levels
from whit.parts.masks import add_masks, latent_weight
from whit.procedures.latent_weights import Bop, ClipLatentWeights, start_at_signs


def plan(optimizer):
    return Plan(10, 10, optimizer, torch.device("cpu"), torch.Generator())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("values", ["binary", "ternary", 5])
def test_latent_weights_of_any_levels_are_clipped(values):
    model = network()
    add_levels(model[0], Levels(values))
    with torch.no_grad():
        latent_weight(model[0]).mul_(100)
        model[3].weight.mul_(100)
    ClipLatentWeights(model, limit=1.3).after_step()
    size = latent_weight(model[0]).detach().abs()
    assert float(size.max()) == torch.tensor(1.3) and bool((size < 1.3).any())
    assert float(model[3].weight.detach().abs().max()) > 2, "real weights stay"


@pytest.mark.parametrize("limit", [0, -1, math.inf, "1"])
def test_bad_limits(limit):
    with pytest.raises(SpecError, match="limit"):
        ClipLatentWeights(network(), limit=limit)


def test_only_latent_weights_leave_the_decay():
    model = network()
    add_levels(model[0], Levels("binary"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.3)
    ClipLatentWeights(model, plan(optimizer))
    decay = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {p for p in decay if decay[p] == 0.0} == {latent_weight(model[0])}
    assert len(decay) == len(list(model.parameters()))


def signs():
    model = network()
    start_at_signs([model[0]])
    return model


def test_it_starts_at_signs_and_finds_them_by_their_values():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = 0.0
    start_at_signs([model[0]])
    assert float(model[0].weight[0, 0].detach()) == 1
    assert Bop(model).weights == [model[0].weight]
    with pytest.raises(NoEffect, match="nothing to flip"):
        Bop(network())


def test_flips_by_hand():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0, -1.0, -1.0]]))
    bop = Bop(model, gamma=0.5, threshold=0.2)
    model[0].weight.grad = torch.tensor([[1.0, -1.0, -0.3, 0.5]])
    bop.before_step()
    # m = 0.5, -0.5, -0.15, 0.25: the first agrees in sign and is above the threshold.
    assert torch.allclose(bop.momenta[0], torch.tensor([[0.5, -0.5, -0.15, 0.25]]))
    assert model[0].weight.tolist() == [[-1, 1, -1, -1]]
    assert model[0].weight.grad is None
    model[0].weight.grad = torch.tensor([[0.0, 0.0, -0.3, -1.5]])
    bop.before_step()
    # m = 0.25, -0.25, -0.225, -0.625: both last ones flip; the first has the other sign now.
    assert model[0].weight.tolist() == [[-1, 1, 1, 1]]


def test_an_infinite_threshold_flips_nothing():
    model = signs()
    before = model[0].weight.detach().clone()
    bop = Bop(model, gamma=1.0, threshold=math.inf)
    for _ in range(5):
        model(torch.randn(8, 4)).square().sum().backward()
        bop.before_step()
    assert torch.equal(model[0].weight, before) and bool(bop.momenta[0].any())


def test_weights_stay_signs_whatever_the_optimiser_does():
    model = signs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=0.5)
    bop = Bop(model, plan(optimizer), gamma=0.3, threshold=0.0)
    before, real = model[0].weight.detach().clone(), model[3].weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        bop.before_step()
        optimizer.step()
    assert bool((model[0].weight.abs() == 1).all()) and not torch.equal(model[0].weight, before)
    assert not torch.equal(model[3].weight, real)
    assert model[0].weight not in optimizer.state, "the averages are the only state"


def test_gamma_follows_the_schedule_of_the_learning_rate():
    model = signs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bop = Bop(model, plan(optimizer), gamma=0.5, threshold=math.inf)
    optimizer.param_groups[0]["initial_lr"] = 0.4
    model[0].weight.grad = torch.ones(6, 4)
    bop.before_step()
    assert torch.allclose(bop.momenta[0], torch.full((6, 4), 0.125))


def test_it_goes_on_where_it_was():
    model = signs()
    bop = Bop(model, gamma=0.5, threshold=math.inf)
    model[0].weight.grad = torch.randn(6, 4)
    bop.before_step()
    other = Bop(model, gamma=0.5, threshold=math.inf)
    other.load_state_dict(bop.state_dict())
    assert torch.equal(other.momenta[0], bop.momenta[0])
    assert list(bop.state_dict()) == ["momenta"]


def test_masks_on_signs_are_refused_and_on_other_layers_not():
    model = signs()
    add_masks(model, skip=["0"])
    assert len(Bop(model).weights) == 1
    model = signs()
    add_masks(model)
    with pytest.raises(SpecError, match="'0' is to be pruned.*by position.*optimizer='latent'"):
        Bop(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"gamma": 0}, "gamma"), ({"gamma": 1.5}, "gamma"), ({"threshold": -1e-9}, "threshold"),
     ({"threshold": math.nan}, "threshold")],
    ids=str,
)  # fmt: skip
def test_bad_options_of_bop(options, words):
    with pytest.raises(SpecError, match=words):
        Bop(signs(), **options)
