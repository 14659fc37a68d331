import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.errors import SpecError
from whit.parts.levels import (
    VALUE_SETS,
    CodeBook,
    Levels,
    add_levels,
    are_whole,
    check_values,
    eight_bits,
    find_levels,
    fit_scale,
    nearest_level,
    spread_latent,
    stochastic_level,
)
from whit.parts.surgery import bake

SETS = {**{name: name for name in VALUE_SETS}, "five": 5, "own": [-0.3, 0.1, 0.25, 4.0]}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "no value"),
        ([1.0], "one value"),
        (1, "1 levels"),
        (257, "257 levels"),
        ([1.0, -1.0], r"ascending order. Write \[-1, 1\]"),
        ([0.0, 0.0, 1.0], "twice"),
        ([0.0, math.inf], "finite"),
        ([0.0, math.nan], "finite"),
        ([-1e300, 1e300], "float32"),
        ([-1e30, 1e30], "float32"),
        ([1.0, 1 + 1e-12], "twice in float32"),
        ("binry", "no set of values 'binry'"),
        (None, "expected numbers"),
        ([0, "a"], "expected numbers"),
        (True, "expected numbers"),
        (list(range(300)), "too many"),
    ],
)
def test_bad_sets_are_refused_in_words(values, said):
    with pytest.raises(SpecError, match=said):
        check_values(values)


def test_sets_by_name_by_number_and_by_value():
    assert check_values("ternary") == (-1.0, 0.0, 1.0)
    assert check_values(2) == VALUE_SETS["binary"] and check_values(3) == VALUE_SETS["ternary"]
    assert check_values(5) == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert check_values(4) == (-3.0, -1.0, 1.0, 3.0)
    assert len(check_values(256)) == 256 and are_whole(check_values(256))
    assert not are_whole((0.0, 0.5))
    assert check_values(torch.tensor([-2, 0, 7])) == (-2.0, 0.0, 7.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "levels",
    [
        torch.arange(-7, 8),
        torch.arange(-127, 128),
        torch.arange(-255, 256, 2),
        torch.linspace(-0.3, 0.7, 100),
        torch.arange(0, 4000) * 0.1,
        torch.arange(16) * 2.0**-40 + 2.0**-40,
    ],
)
def test_division_finds_what_a_search_finds(levels, dtype):
    levels = levels.to(dtype)
    middles = (levels[1:] + levels[:-1]) / 2
    infinite = torch.tensor([torch.inf, -torch.inf, 3e38, -3e38, 0.0, -0.0], dtype=dtype)
    x = torch.randn(5000, generator=generator(), dtype=dtype) * levels[-1]
    around = [middles.nextafter(infinite[:1]), middles.nextafter(infinite[1:2])]
    x = torch.cat([x, levels, middles, *around, infinite])
    assert torch.equal(nearest_level(x, levels), torch.bucketize(x, middles, right=True))
    assert nearest_level(torch.tensor([torch.nan, 9e9], dtype=dtype), levels).tolist() == [
        0,
        len(levels) - 1,
    ]


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
@pytest.mark.parametrize("repeat", [1, 5], ids=["few", "many"])
def test_the_nearest_level_is_the_one_of_a_search_over_all(values, repeat):
    numbers = check_values(values)
    # The larger sets take the paths by division, or by bisection where they are uneven.
    levels = torch.tensor([v + 20.0 * k for k in range(repeat) for v in numbers]).double()
    x = torch.randn(2000, generator=generator(), dtype=torch.float64) * 3
    x = torch.cat([x, levels, (levels[1:] + levels[:-1]) / 2])
    distance = (x[:, None] - levels).abs()
    best = distance.flip(1).argmin(1)  # of equally near ones the upper
    assert torch.equal(nearest_level(x, levels), len(levels) - 1 - best)


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_stochastic_levels_are_neighbours_and_right_on_average(values):
    levels = torch.tensor(check_values(values)).double()
    x = torch.linspace(float(levels[0]) - 0.5, float(levels[-1]) + 0.5, 21).double()
    draws = 20_000
    index = stochastic_level(x.expand(draws, -1), levels, generator())
    chosen = levels[index]
    inside = x.clamp(levels[0], levels[-1])
    upper = torch.bucketize(inside, levels).clamp_max(len(levels) - 1)
    below = (upper - 1).clamp_min(0)
    assert ((index == upper) | (index == below) | (chosen == inside)).all()
    gap = levels[upper] - levels[below]
    fraction = torch.where(gap > 0, (inside - levels[below]) / gap.clamp_min(1e-9), 0.0)
    spread = gap * (fraction * (1 - fraction)).sqrt()
    error = (chosen.mean(0) - inside).abs()
    assert (error <= 4 * spread / math.sqrt(draws) + 1e-12).all()


def test_binary_scale_is_the_mean_magnitude():
    weight = torch.randn(8, 3, 3, 3, generator=generator())
    binary = torch.tensor([-1.0, 1.0])
    assert torch.equal(fit_scale(weight, binary), weight.abs().mean())
    by_channel = weight.abs().flatten(1).mean(1).reshape(8, 1, 1, 1)
    assert torch.equal(fit_scale(weight, binary, per_channel=True), by_channel)


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_the_fitted_scale_is_near_the_best_of_a_grid(values):
    levels = torch.tensor(check_values(values)).double()
    weight = torch.randn(4000, generator=generator(), dtype=torch.float64) * 0.05

    def error(scale):
        return float(
            (weight - scale * levels[nearest_level(weight / scale, levels)]).square().sum()
        )

    start = float(weight.std() / levels.square().mean().sqrt())
    best = min(error(start * factor) for factor in torch.linspace(0.2, 3, 300).tolist())
    fitted = float(fit_scale(weight, levels))
    assert fitted > 0
    # Alternating least squares finds a stationary point; from this start it is a good one.
    assert error(fitted) <= 1.1 * best


def test_scales_of_zeros_and_of_constants_are_finite():
    for weight in (torch.zeros(3, 4), torch.full((3, 4), 2.0), torch.zeros(3, 4).add_(-1e-30)):
        for name in VALUE_SETS:
            for scale in ("none", "layer", "channel"):
                assert Levels(name, scale)(weight).isfinite().all()


@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_a_weight_takes_the_scaled_values_and_its_gradient_goes_straight_through(values, scale):
    layer = nn.Linear(50, 6)
    add_levels(layer, Levels(values, scale))
    numbers = find_levels(layer).values
    weight = layer.weight
    for row in weight.detach():
        assert len(row.unique()) <= len(numbers)
    incoming = torch.randn(6, 50, generator=generator())
    weight.backward(incoming)
    gradient = layer.parametrizations.weight.original.grad
    if scale == "none":
        assert torch.equal(weight.detach(), numbers[nearest_level(weight.detach(), numbers)])
        assert torch.equal(gradient, incoming)
        return
    # d(s V[j])/dw is s straight through, and V[j] ds/dw.
    original = layer.parametrizations.weight.original.detach().requires_grad_()
    fitted = fit_scale(original, numbers, scale == "channel")
    rounded = eight_bits(fitted).detach()
    chosen = weight.detach() / rounded
    fitted.backward((incoming * chosen).sum((1,) if scale == "channel" else (0, 1)).view_as(fitted))
    assert torch.allclose(gradient, rounded * incoming + original.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_scale_holds_the_levels_fixed():
    weight = torch.randn(300, generator=generator()).requires_grad_()
    binary = torch.tensor([-1.0, 1.0])
    fit_scale(weight, binary).backward()
    assert torch.allclose(weight.grad, weight.detach().sign() / 300)


def test_stochastic_rounding_is_for_training_only():
    layer = nn.Linear(40, 4)
    add_levels(layer, Levels("binary", rounding="stochastic"))
    torch.manual_seed(0)
    assert not torch.equal(layer.weight, layer.weight)
    layer.eval()
    assert torch.equal(layer.weight, layer.weight)


def test_levels_are_drawn_for_each_member_under_vmap():
    levels = Levels("ternary", "layer")
    weights = torch.randn(5, 8, 3, generator=generator())
    batched = torch.func.vmap(levels)(weights)
    assert torch.equal(batched, torch.stack([levels(w) for w in weights]))
    batched = torch.func.vmap(torch.func.grad(lambda w: levels(w).square().sum()))(weights)
    assert batched.shape == weights.shape and batched.isfinite().all()


def test_stochastic_levels_may_be_batched():
    levels = Levels("ternary", rounding="stochastic")
    weights = torch.rand(4, 50, generator=generator()) * 2 - 1
    drawn = torch.func.vmap(levels, randomness="different")(weights)
    assert set(drawn.unique().tolist()) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
@pytest.mark.parametrize("values", ["binary", "ternary", 5])
def test_a_layer_that_starts_at_zero_learns(values, scale):
    torch.manual_seed(0)
    layer = nn.Linear(6, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0] = 0.0 if scale == "layer" else 0.3  # and a channel of zeros among others
    if scale == "none":
        spread_latent(layer.weight, torch.tensor(check_values(values)))
    add_levels(layer, Levels(values, scale))
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(x), y).backward()
        optimizer.step()
    latent = layer.parametrizations.weight.original
    assert latent.isfinite().all() and bool((latent[1:] != 0).all())
    assert len(layer.weight.unique()) > 1


def test_a_code_book_sums_the_gradients_of_its_places():
    book = torch.tensor([-0.5, 0.25, 2.0])
    place = torch.randint(-1, 3, (7, 9), generator=generator())
    layer = nn.Linear(9, 7)
    shared = CodeBook(book, place)
    parametrize.register_parametrization(layer, "weight", shared)
    expected = torch.where(place < 0, 0.0, book[place.clamp_min(0)])
    assert torch.equal(layer.weight.detach(), expected)
    incoming = torch.randn(7, 9, generator=generator(1))
    layer.weight.backward(incoming)
    sums = torch.stack([incoming[place == k].sum() for k in range(3)])
    assert torch.allclose(shared.book.grad, sums)
    assert layer.parametrizations.weight.original.grad is None
    bake(layer)
    assert torch.equal(layer.weight.detach(), expected)


def test_options_are_checked():
    with pytest.raises(SpecError, match="scale"):
        Levels(scale="row")
    with pytest.raises(SpecError, match="rounding"):
        Levels(rounding="up")
    assert "ternary" not in repr(Levels()) and "[-1, 0, 1]" in repr(Levels())


@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
@pytest.mark.parametrize(
    "values", ["binary", "ternary", 15, [-1.0, 0.1, 0.2, 3.0, 4, 5, 6, 7, 8, 9]]
)
def test_a_weight_that_is_no_number_shows(values, scale):
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nan
    add_levels(layer, Levels(values, scale))
    assert layer.weight[1, 2].isnan()
    assert layer(torch.ones(1, 4))[0, 1].isnan()
