import math

import pytest
import torch

from whit.errors import SpecError
from whit.parts.straight_through import (
    Sign,
    binary_sign,
    straight_through,
    straight_through_sign,
)

POINTS = torch.tensor([-1.5, -1.0001, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.0001, 1.5])
SIGNS = [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
INSIDE = [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_signs_are_never_zero():
    assert binary_sign(POINTS).tolist() == SIGNS
    assert straight_through_sign(POINTS).tolist() == SIGNS
    with torch.no_grad():
        assert straight_through_sign(POINTS).tolist() == SIGNS
    tiny = torch.tensor([-1e-45, 1e-45, -0.0])
    assert binary_sign(tiny).tolist() == [-1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    assert binary_sign(POINTS.to(dtype)).dtype == dtype
    assert straight_through_sign(POINTS.to(dtype, copy=True).requires_grad_()).dtype == dtype


def test_the_gradient_passes_inside_the_window_bounds_included():
    x = POINTS.clone().requires_grad_()
    incoming = torch.arange(1.0, 11.0)
    straight_through_sign(x).backward(incoming)
    assert torch.equal(x.grad, incoming * torch.tensor(INSIDE))


@pytest.mark.parametrize("window", [0.25, 1.2, math.inf])
def test_the_window_is_the_derivative_of_a_clip(window):
    x = (torch.randn(200, generator=torch.Generator().manual_seed(0)) * 2).requires_grad_()
    y = x.detach().clone().requires_grad_()
    straight_through_sign(x, window).sum().backward()
    y.clamp(-window, window).sum().backward()
    assert torch.equal(x.grad, y.grad)


def test_vmap_and_grad_transforms_agree_with_a_loop():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)) * 1.5
    weight = torch.arange(1.0, 8.0)

    def loss(row):
        return (straight_through_sign(row, 1.0) * weight).sum()

    batched = torch.func.vmap(torch.func.grad(loss))(x)
    assert torch.equal(batched, weight * (x.abs() <= 1))
    assert torch.equal(torch.func.vmap(straight_through_sign)(x), binary_sign(x))


def test_sign_module():
    layer = Sign(0.5)
    x = torch.tensor([-0.6, 0.0, 0.5], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [-1, 1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1]
    assert "0.5" in repr(layer) and not layer.state_dict()


@pytest.mark.parametrize("window", [1.0, 1.5])
def test_approxsign_is_the_derivative_of_a_parabola_on_each_side(window):
    x = torch.linspace(-2, 2, 401, dtype=torch.float64).requires_grad_()
    y = x.detach().clone().requires_grad_()
    signs = straight_through_sign(x, window, "approxsign")
    assert torch.equal(signs, binary_sign(x))
    signs.sum().backward()
    inner = y.clamp(-window, window) / window
    (window * inner * (2 - inner.abs())).sum().backward()
    inside = x.detach().abs() < window
    assert torch.allclose(x.grad[inside], y.grad[inside])
    assert not x.grad[~inside].any()


def test_the_paper_s_approxsign_by_hand():
    x = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.25, 1.0, 1.1], requires_grad=True)
    straight_through_sign(x, gradient="approxsign").backward(torch.full((7,), 2.0))
    assert x.grad.tolist() == [0, 0, 2, 4, 3, 0, 0]


@pytest.mark.parametrize("point", [-2.0, -1.0, -0.6, 0.0, 0.3, 1.0, 7.0])
def test_the_mean_of_stochastic_signs_is_the_clipped_value(point):
    torch.manual_seed(0)
    draws = 100_000
    signs = straight_through_sign(torch.full((draws,), point), rounding="stochastic")
    assert set(signs.unique().tolist()) <= {-1.0, 1.0}
    mean = min(max(point, -1.0), 1.0)
    assert abs(float(signs.mean()) - mean) <= 3 * math.sqrt((1 - mean**2) / draws)
    if abs(point) >= 1:
        assert bool((signs == mean).all()), "certain signs are never wrong"


def test_stochastic_signs_have_the_gradient_of_the_window_and_repeat_under_a_seed():
    x = POINTS.clone().requires_grad_()
    torch.manual_seed(4)
    signs = straight_through_sign(x, rounding="stochastic")
    signs.sum().backward()
    assert x.grad.tolist() == INSIDE
    torch.manual_seed(4)
    with torch.no_grad():
        assert torch.equal(straight_through_sign(x, rounding="stochastic"), signs)


def test_stochastic_signs_of_members_differ():
    torch.manual_seed(0)
    x = torch.zeros(2, 200)
    stochastic = torch.func.vmap(
        lambda row: straight_through_sign(row, rounding="stochastic"), randomness="different"
    )
    first, second = stochastic(x)
    assert not torch.equal(first, second)


def test_a_stochastic_sign_module_is_a_plain_sign_in_evaluation():
    layer, x = Sign(rounding="stochastic"), torch.zeros(500)
    assert len(layer(x).unique()) == 2
    assert torch.equal(layer.eval()(x), binary_sign(x))
    assert "stochastic" in repr(layer) and "approxsign" in repr(Sign(gradient="approxsign"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window"),
        ({"window": True}, "window"),
        ({"window": math.nan}, "window"),
        ({"gradient": "relu"}, "approxsign"),
        ({"rounding": "up"}, "stochastic"),
        ({"gradient": "approxsign", "window": math.inf}, "finite"),
    ],
    ids=str,
)
def test_bad_options_of_a_sign(options, words):
    with pytest.raises(SpecError, match=words):
        Sign(**options)


def test_any_value_may_stand_in_with_the_gradient_of_what_it_came_from():
    x = torch.tensor([-0.4, 0.2, 1.7], requires_grad=True)
    y = straight_through(x, torch.round(x.detach()))
    y.backward(torch.tensor([1.0, -2.0, 3.0]))
    assert y.tolist() == [0, 0, 2] and x.grad.tolist() == [1, -2, 3]
    with torch.no_grad():
        assert torch.equal(straight_through(x, torch.ones(3)), torch.ones(3))
