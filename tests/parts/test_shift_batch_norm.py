import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.shift_batch_norm import (
    ShiftBatchNorm1d,
    ShiftBatchNorm2d,
    ShiftBatchNorm3d,
    power_of_two,
    shift_batch_norms,
)
from whit.parts.straight_through import Sign, binary_sign

sys.path.insert(0, str(Path(__file__).parent))
from every_backend import check_bits, kinds  # noqa: E402


def test_powers_of_two_by_hand():
    x = torch.tensor([0.0, 3.0, 1.41, 1.42, -0.7, 6.0, -0.0])
    assert power_of_two(x).tolist() == [0, 4, 1, 2, -0.5, 8, 0]


def test_every_power_of_two_is_its_own():
    exponents = torch.arange(-126, 128)
    powers = torch.tensor([2.0**e for e in exponents.tolist()])
    assert torch.equal(power_of_two(powers), powers)
    assert torch.equal(power_of_two(-powers), -powers)


@given(st.floats(2.0**-100, 2.0**100, width=32))
@settings(max_examples=50, deadline=None)
def test_the_power_is_within_the_root_of_two(number):
    ratio = float(power_of_two(torch.tensor(number))) / number
    assert 1 / math.sqrt(2) * (1 - 1e-6) <= ratio <= math.sqrt(2) * (1 + 1e-6)


def test_the_gradient_passes_the_power_straight():
    x = torch.tensor([0.3, -5.0, 0.0], requires_grad=True)
    power_of_two(x).backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad.tolist() == [1, 2, 3]
    batched = torch.func.vmap(torch.func.grad(lambda row: (power_of_two(row) * 2).sum()))
    assert torch.equal(batched(torch.randn(3, 4)), torch.full((3, 4), 2.0))


def naive(x, gamma, beta, eps):
    """The formula, number by number."""
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        centred = [v - mean for v in values]
        spread = sum(v * ap2(v) for v in centred) / len(values)
        factor = ap2(float(gamma[c])) * ap2(1 / math.sqrt(spread + eps))
        out[:, c] = torch.tensor([factor * v for v in centred]).reshape(x[:, c].shape) + beta[c]
    return out


def ap2(z):
    return math.copysign(2.0 ** round(math.log2(abs(z))), z) if z else 0.0


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(ShiftBatchNorm1d, (16, 3)), (ShiftBatchNorm1d, (8, 3, 5)), (ShiftBatchNorm2d, (4, 3, 5, 2)),
     (ShiftBatchNorm3d, (3, 3, 2, 2, 2))],
)  # fmt: skip
def test_the_formula(kind, shape):
    torch.manual_seed(0)
    norm = kind(3, eps=1e-4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.7, -1.3, 0.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, -2.0]))
    x = torch.randn(shape) * 3 + 1
    expected = naive(x, norm.weight.detach(), norm.bias.detach(), 1e-4)
    assert torch.allclose(norm(x), expected, atol=1e-5)
    mean = x.transpose(0, 1).flatten(1).mean(1)
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6)
    assert int(norm.num_batches_tracked) == 1


def test_it_is_within_two_roots_of_two_of_the_real_one():
    torch.manual_seed(1)
    real, shift = nn.BatchNorm1d(8), ShiftBatchNorm1d(8)
    x = torch.randn(500, 8) * torch.linspace(0.1, 20, 8)
    expected, found = real(x).detach(), shift(x).detach()
    ratio = (found / expected)[expected.abs() > 0.01]  # rounding of the mean outweighs less
    # c AP2(c) is within sqrt(2) of c^2, so its root within 2^(1/4), and AP2 adds sqrt(2).
    assert float(ratio.min()) > 2**-0.75 * 0.999 and float(ratio.max()) < 2**0.75 * 1.001


def test_evaluation_uses_the_running_values_and_a_plain_average_works():
    norm = ShiftBatchNorm1d(2, momentum=None)
    batches = [torch.randn(20, 2) + k for k in range(3)]
    for batch in batches:
        norm(batch)
    means = torch.stack([b.mean(0) for b in batches]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-6)
    norm.eval()
    x = torch.randn(4, 2)
    factor = power_of_two(torch.rsqrt(norm.running_var + norm.eps))
    assert torch.equal(norm(x), (x - norm.running_mean) * factor.reshape(1, 2) + 0.0)
    assert torch.equal(norm(x)[:1], norm(x[:1])), "a sample does not depend on the others"


def test_gradients_reach_input_and_parameters():
    norm = ShiftBatchNorm1d(3)
    x = torch.randn(10, 3, requires_grad=True)
    (norm(x) * torch.randn(10, 3)).sum().backward()
    assert all(float(t.grad.abs().sum()) > 0 for t in (x, norm.weight, norm.bias))


def test_swapping_keeps_the_very_parameters():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2), nn.ReLU())
    old = model[1]
    old.running_mean.normal_()
    assert shift_batch_norms(model.eval()) == ["1"]
    new = model[1]
    assert isinstance(new, ShiftBatchNorm2d) and isinstance(new, nn.BatchNorm2d)
    assert new.weight is old.weight and new.bias is old.bias and not new.training
    assert torch.equal(new.running_mean, old.running_mean)
    assert (new.eps, new.momentum) == (1e-3, 0.2)
    bare = nn.Sequential(nn.BatchNorm1d(3, affine=False))
    shift_batch_norms(bare)
    assert bare[0].weight is None and bare[0](torch.randn(5, 3)).shape == (5, 3)


def test_what_cannot_be_swapped_is_refused():
    with pytest.raises(NoEffect, match="none"):
        shift_batch_norms(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(SpecError, match="track_running_stats"):
        shift_batch_norms(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)))
    with pytest.raises(SpecError, match="larger batch"):
        ShiftBatchNorm1d(3)(torch.randn(1, 3))


def integers(model):
    """Give shift norms values that are exact in binary, gamma < 0 and = 0 and ties among them."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            channels = norm.num_features
            with torch.no_grad():
                norm.weight.copy_(torch.randn(channels))
                norm.weight[::3] *= -1
                norm.weight[1] = 0
                norm.bias.copy_(torch.randint(-8, 9, (channels,)) / 8)
                norm.running_mean.copy_(torch.randint(-4, 5, (channels,)).float())
                norm.running_var.uniform_(0.5, 20)
    return model


def test_it_folds_into_integer_thresholds_with_the_same_bits(tmp_path):
    torch.manual_seed(3)
    first, second = nn.Conv2d(2, 9, 3, bias=False), nn.Linear(9 * 4, 12, bias=False)
    last = nn.Linear(12, 8, bias=False)
    with torch.no_grad():
        for layer in (first, second, last):
            layer.weight.copy_(binary_sign(torch.randn_like(layer.weight)))
    model = integers(
        nn.Sequential(
            Sign(), first, nn.MaxPool2d(2), ShiftBatchNorm2d(9), Sign(), nn.Flatten(),
            second, ShiftBatchNorm1d(12), Sign(), last, ShiftBatchNorm1d(8),
        )
    )  # fmt: skip
    with torch.no_grad():
        model[7].bias[::2] = 0  # sums that are the mean are ties: b(0) = +1
    x = torch.randn(100, 2, 6, 6)
    assert bool((model.eval()[:8](x) == 0).any()), "the example has no tie"
    packed = check_bits(model, x, tmp_path)
    assert kinds(packed)[:7] == [
        "sign", "conv2d", "max_pool2d", "threshold", "flatten", "linear", "threshold"
    ]  # fmt: skip
    thresholds = [s.operator for s in packed.program.steps if s.operator.kind == "threshold"]
    assert all(t.thresholds.dtype.kind == "i" for t in thresholds)
    assert all(t.flipped is not None and t.flipped.any() for t in thresholds), "gamma < 0"
