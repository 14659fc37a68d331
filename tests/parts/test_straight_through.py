import math

import pytest
import torch

from whit.parts.straight_through import Sign, binary_sign, straight_through_sign

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
