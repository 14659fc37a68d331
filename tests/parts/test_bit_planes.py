import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.errors import SpecError
from whit.parts.bit_planes import FixedPoint, highest_planes, planes_of, quantised


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def popcount_product(weights, count, x, activation_bits):
    """The paper's double sum over weight planes and activation planes, by counting ones."""
    planes, coefficients = planes_of(weights, count)
    bits, factors = planes_of(x, activation_bits)
    total = torch.zeros(x.shape[0], weights.shape[0], dtype=torch.int64)
    for c, plane in zip(coefficients.tolist(), planes, strict=True):
        for e, bit in zip(factors.tolist(), bits, strict=True):
            ones = (plane[None] & bit[:, None]).sum(2)
            total += int(c) * int(e) * ones
    return total


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 16),
    activation_bits=st.integers(2, 8),
    rows=st.sampled_from([1, 3, 33]),
    columns=st.sampled_from([1, 31, 32, 65]),
    seed=st.integers(0, 1000),
)
def test_planes_give_the_integers_and_their_products(count, activation_bits, rows, columns, seed):
    half, top = 1 << (count - 1), 1 << (activation_bits - 1)
    weights = torch.randint(-half, half, (rows, columns), generator=generator(seed))
    weights[0] = 0
    weights.view(-1)[-1] = -half
    x = torch.randint(-top, top, (4, columns), generator=generator(seed + 1))
    planes, coefficients = planes_of(weights, count)
    again = (planes * coefficients.long().reshape(-1, 1, 1)).sum(0)
    assert torch.equal(again, weights)
    assert torch.equal(popcount_product(weights, count, x, activation_bits), x @ weights.T)


@pytest.mark.parametrize("count", [3, 6, 10])
def test_fewer_planes_keep_the_middle_and_err_less_and_less(count):
    half = 1 << (count - 1)
    weights = torch.randint(-half, half, (20, 40), generator=generator(count))
    x = torch.randn(5, 40, generator=generator(1))
    planes, coefficients = planes_of(weights, count)
    exact = x.double() @ weights.double().T
    bounds = []
    for used in range(1, count + 1):
        kept = (planes[:used] * coefficients[:used].reshape(-1, 1, 1)).sum(0)
        open_range = sum(c for c in coefficients[used:].tolist())
        narrowed = highest_planes(weights, count, used)
        assert torch.equal(narrowed.double(), kept + open_range / 2)
        bound = (open_range / 2 + 1e-9) * x.abs().double().sum(1, keepdim=True)
        assert ((x.double() @ narrowed.double().T - exact).abs() <= bound).all()
        bounds.append(open_range)
    assert bounds == sorted(bounds, reverse=True) and bounds[-1] == 0
    assert torch.equal(highest_planes(weights, count, count), weights.float())


def paper_quantised(weight, n):
    """Steps 1 and 2 of the card, number by number."""
    fixed = [int(v * 65536) for v in weight.double().flatten().tolist()]  # int cuts towards 0
    largest = max(abs(f) for f in fixed)
    p = max(n, int(np.ceil(np.log2(largest))) + 1)
    unit = 2 ** (p - n)
    result = []
    for f in fixed:
        magnitude = (abs(f) + unit // 2) // unit if unit > 1 else abs(f)
        if n == 1:
            magnitude = max(magnitude, 1)
        result.append((-magnitude if f < 0 else magnitude) * unit / 65536)
    return torch.tensor(result).reshape(weight.shape)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 15])
@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0])
def test_the_papers_rounding_is_that_of_its_steps(n, scale):
    weight = torch.randn(6, 17, generator=generator(n)) * scale
    integers, step = quantised(weight, n, "power_of_two")
    assert torch.equal(integers * step, paper_quantised(weight, n))
    assert integers.abs().max() <= 2**n and (integers == integers.round()).all()
    if n == 1:
        assert (integers != 0).all()


@pytest.mark.parametrize("step", ["layer", "channel"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_cutoff_never_raises_the_mean_error(step, bits):
    weight = torch.randn(7, 50, generator=generator()) * torch.linspace(0.01, 1, 7)[:, None]
    weight[3] = 0
    errors = []
    for cutoff in (True, False):
        integers, size = quantised(weight, bits, step, cutoff)
        assert integers.abs().max() <= 2**bits - 1 and (integers == integers.round()).all()
        errors.append((integers * size - weight).abs().mean())
    assert errors[0] <= errors[1] + 1e-7
    assert quantised(weight, bits, step)[1].shape == ((7, 1) if step == "channel" else ())


def test_eight_bits_are_near_and_one_is_far():
    weight = torch.randn(10, 100, generator=generator())
    errors = [
        float((i * s - weight).abs().mean())
        for i, s in (quantised(weight, bits) for bits in (1, 2, 3, 4, 6, 8))
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01 < 0.2 < errors[0]


def test_activations_saturate_and_round():
    module = FixedPoint(8)
    module.calibrate(12.7)
    x = torch.tensor([0.0, 0.04, 0.06, -12.7, -20.0, 100.0])
    assert torch.allclose(module(x), torch.tensor([0.0, 0.0, 0.1, -12.7, -12.8, 12.7]))
    module.calibrate(0.0)
    assert module.step == 1 and "bits=8" in repr(module)


def test_bad_options_are_refused():
    for bits in (0, 16, 2.0, True):
        with pytest.raises(SpecError, match="bits"):
            quantised(torch.ones(2, 2), bits, "layer")
    with pytest.raises(SpecError, match="1 to 11"):
        quantised(torch.ones(2, 2), 12, "channel")
    with pytest.raises(SpecError, match="step"):
        quantised(torch.ones(2, 2), 4, "row")
    with pytest.raises(SpecError, match="more than 3"):
        planes_of(torch.tensor([4]), 3)
    with pytest.raises(SpecError, match="activation_bits"):
        FixedPoint(1)
