import math

import pytest
import torch
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.level_draws import (
    RandomCoin,
    RegisterCoin,
    all_networks,
    draw_network,
    drawn_weight,
    neighbours,
)
from whit.parts.levels import Levels, add_levels
from whit.parts.linear_feedback_shift_register import ShiftRegister
from whit.parts.masks import add_masks

BINARY = torch.tensor([-1.0, 1.0])
TERNARY = torch.tensor([-1.0, 0.0, 1.0])
EIGHTHS = torch.arange(-8, 9) / 8
DRAWS = 20_000


def random_coin(seed=0, mirrored=False):
    return RandomCoin(torch.Generator().manual_seed(seed), mirrored)


def register_coin(seed=1, mirrored=False):
    return RegisterCoin(ShiftRegister(16, seed), mirrored)


COINS = {
    "random": random_coin,
    "mirrored": lambda: random_coin(mirrored=True),
    "register": register_coin,
    "mirrored register": lambda: register_coin(mirrored=True),
}


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("values", [BINARY, TERNARY, EIGHTHS], ids=len)
def test_the_mean_of_many_draws_is_the_weight(coin, values):
    toss = COINS[coin]()
    for weight in (-1.0, -0.7, -0.5, 0.0, 0.05, 0.3, 1.0):
        lower, share = neighbours(torch.full((DRAWS,), weight), values)
        drawn = values[lower + toss.upper(share)].double()
        low, high = float(values[lower[0]]), float(values[lower[0] + 1])
        variance = (high - weight) * (weight - low)
        # A register's shares are multiples of 1 / 65535.
        tolerance = 4 * math.sqrt(max(variance, 0) / DRAWS) + (high - low) * 1e-5
        exact = weight in (low, high)
        assert abs(float(drawn.mean()) - weight) <= (1e-9 if exact else tolerance)
        spread = float(drawn.var())
        assert spread == pytest.approx(max(variance, 0), abs=0.03 * (high - low) ** 2)


def layer(weight, **options):
    made = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        made.weight.copy_(weight)
    add_levels(made, Levels("binary", **options))
    return nn.Sequential(made)


def test_the_same_seed_gives_the_same_network_and_others_differ():
    model = layer(torch.rand(6, 20) * 1.8 - 0.9)
    one, same, other = (draw_network(model, random_coin(seed)) for seed in (1, 1, 2))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert set(one[0].weight.unique().tolist()) == {-1, 1}
    assert "0.weight" in one.state_dict(), "it is an ordinary network"
    assert torch.equal(one[0].bias, model[0].bias)


def test_decided_weights_give_the_sign_network():
    model = layer(torch.randint(0, 2, (6, 20)) * 2.0 - 1)
    for coin in COINS.values():
        drawn = draw_network(model, coin())
        assert torch.equal(drawn[0].weight, model.eval()[0].weight)


@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_scales_are_divided_out_and_multiplied_back(scale):
    torch.manual_seed(0)
    model = layer(torch.randn(5, 400) * torch.rand(5, 1), scale=scale)
    nearest = model.eval()[0].weight.detach()
    drawn = draw_network(model, random_coin())[0].weight
    assert torch.equal(drawn.abs(), nearest.abs())
    # Inside the scale, the mean over draws is the latent weight.
    levels = model[0].parametrizations.weight[0]
    coin = random_coin()
    mean = sum(drawn_weight(model[0], levels, coin).double() for _ in range(2000)) / 2000
    latent = model[0].parametrizations.weight.original.detach()
    inside = latent.abs() < nearest.abs()
    assert torch.allclose(mean[inside], latent[inside].double(), atol=0.12)


def test_a_mask_behind_the_levels_still_applies():
    model = layer(torch.rand(4, 6) - 0.5)
    (_, mask), *_ = add_masks(model).values()
    mask.mask[:, :2] = 0
    drawn = draw_network(model, random_coin())
    assert not drawn[0].weight[:, :2].any() and (drawn[0].weight[:, 2:] != 0).all()


@pytest.mark.parametrize("make", [random_coin, register_coin])
def test_antithetic_draws_are_mirrored(make):
    share = torch.full((50_000,), 0.3)
    one, other = make(5).upper(share), make(5, mirrored=True).upper(share)
    assert not (one & other).any(), "u < 0.3 and 1 - u < 0.3 exclude one another"
    assert float((one | other).float().mean()) == pytest.approx(0.6, abs=0.01)


def test_the_linear_oracle():
    """All 2^n networks: the exact mean is W x, and drawn averages come as near as they should."""
    torch.manual_seed(4)
    weight = torch.rand(1, 10, dtype=torch.float64) * 1.8 - 0.9
    weight[0, 3] = 1.0  # decided
    x = torch.randn(10, dtype=torch.float64)
    networks = list(all_networks(weight, BINARY))
    assert len(networks) == 2**9
    assert sum(chance for _, chance in networks) == pytest.approx(1)
    mean = sum(chance * (w @ x) for w, chance in networks)
    assert torch.allclose(mean, weight @ x)
    square = sum(chance * (w @ x).square() for w, chance in networks)
    variance = float(((1 - weight.square()) * x.square()).sum())
    assert float(square - mean.square()) == pytest.approx(variance)
    coin = random_coin()
    outputs = []
    lower, share = neighbours(weight, BINARY.double())
    for _ in range(4000):
        outputs.append(float(BINARY.double()[lower + coin.upper(share)] @ x))
    average = sum(outputs) / len(outputs)
    assert abs(average - float(mean)) < 4 * math.sqrt(variance / len(outputs))


def test_ternary_networks_are_enumerated_too():
    weight = torch.tensor([[0.25, -0.5, 1.0, 0.0]])
    networks = list(all_networks(weight, TERNARY))
    assert len(networks) == 4
    mean = sum(chance * w for w, chance in networks)
    assert torch.allclose(mean.float(), weight)


def test_bad_calls():
    with pytest.raises(NoEffect, match="nothing to draw"):
        draw_network(nn.Sequential(nn.Linear(2, 2)), random_coin())
    with pytest.raises(SpecError, match=r"2\^17"):
        list(all_networks(torch.zeros(17), BINARY))


@pytest.mark.parametrize("scale", ["none", "layer"])
def test_a_latent_weight_that_is_no_number_shows_in_the_draw(scale):
    model = layer(torch.tensor([[0.3, torch.nan], [0.2, -0.4]]), scale=scale)
    assert draw_network(model, random_coin())[0].weight[0, 1].isnan()
