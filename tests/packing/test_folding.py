"""Folded quantisers against torch, for every integer sum and around every float threshold."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_networks import Function, Quantiser, check, domains, kinds, on_grid, randomise
from torch import nn

from whit.errors import CannotPack
from whit.packing import pack
from whit.parts.straight_through import Sign
from whit.runtime.operators import Levels, Requantize, Threshold

FLOAT = st.floats(-100, 100, width=32)
SUMS = 24  # inputs of the counting network: its sums are -24, -22, ..., 24


class Counted(nn.Module):
    """Signs into rows of ones, so that every sum of signs can be reached in every row."""

    def __init__(self, rows, quantiser, *, scale=1.0, bias=True, norm=True):
        super().__init__()
        self.sign = Sign()
        self.linear = nn.Linear(SUMS, rows, bias=bias)
        with torch.no_grad():
            self.linear.weight.fill_(scale)
        self.norm = nn.BatchNorm1d(rows) if norm else nn.Identity()
        self.quantiser = quantiser

    def forward(self, x):
        return self.quantiser(self.norm(self.linear(self.sign(x))))


def every_sum():
    return torch.tril(torch.full((SUMS + 1, SUMS), 2.0), -1) - 1


def batch_norm(gamma, beta, mean, variance):
    norm = nn.BatchNorm1d(len(gamma)).eval()
    with torch.no_grad():
        for target, values in (
            (norm.weight, gamma),
            (norm.bias, beta),
            (norm.running_mean, mean),
            (norm.running_var, variance),
        ):
            target.copy_(torch.tensor(values))
    return norm


def steps(low, high, scale=0.5):
    return Quantiser(scale, low, high)


QUANTISERS = {
    "sign": Sign(),
    "binary_above": Function(lambda x: (x > 0).float()),
    "binary_from": Function(lambda x: (x >= 0.25).float() * 3 - 1),
    "three_values": Function(torch.sign),
    "three": steps(-1, 1),
    "four": Function(lambda x: (torch.clamp(torch.round(x - 0.5), -2, 1) + 0.5) / 2),
    "sixteen": steps(-8, 7, 0.25),
    "unsigned_sixteen": nn.Sequential(nn.ReLU(), steps(0, 15, 0.25)),
    "floored": Function(lambda x: torch.clamp(torch.floor(x * 2), -3, 3)),
    "ceiled": Function(lambda x: torch.ceil(torch.clamp(x, -2, 2))),
    "clamped_before": Function(lambda x: torch.round(torch.clamp(x, -2, 2) * 3) / 3),
    "clamped_after": Function(lambda x: torch.clamp(torch.round(x * 3), -6, 6) / 3),
    "clamped_twice": Function(lambda x: torch.round(torch.clamp(x, -9, 9)).clamp(-2.5, 2.5)),
    "relu_after": nn.Sequential(steps(-4, 4), nn.ReLU()),
    "uneven": Function(lambda x: (x >= 0).float() + 2 * (x >= 1).float() + 5 * (x > 2).float()),
    "falling": Function(lambda x: torch.clamp(torch.round(-x), -2, 2)),
    "tanh": Function(lambda x: torch.round(torch.tanh(x) * 3) / 3),
    "dorefa": Function(lambda x: torch.round(torch.clamp(x, 0, 1) * 3) / 3),
    "straight_through": Function(lambda x: x + (torch.clamp(torch.round(x), -2, 2) - x).detach()),
    "straight_through_sign": Function(lambda x: (torch.where(x >= 0, 1.0, -1.0) - x).detach() + x),
    "fake": Function(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.3, 3, 0, 15)),
    "fake_signed": Function(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.4, 0, -7, 7)),
    "fake_tensors": Function(
        lambda x: torch.fake_quantize_per_tensor_affine(
            x, torch.tensor(0.3), torch.tensor(5), 0, 15
        )
    ),
    "by_where": nn.Sequential(
        Function(lambda x: torch.where(x > 2, 2.0, x)),
        Function(lambda x: torch.where(x >= -2, x, torch.tensor(-2.0)).round()),
    ),
    "by_minimum": Function(
        lambda x: torch.maximum(torch.minimum(x, torch.tensor(2.0)), torch.tensor(-1.0)).round()
    ),
}


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("name", QUANTISERS)
def test_every_integer_sum_gives_the_level_of_torch(name, scale):
    model = randomise(Counted(30, QUANTISERS[name], scale=scale, norm=True))
    with torch.no_grad():
        model.norm.running_var.mul_(8)
        model.norm.weight[4] = 0
    packed = check(model, every_sum(), exact=True)
    assert kinds(packed)[:2] == ["sign", "linear"]
    assert domains(packed)[2] == "int32"
    assert kinds(packed)[2] in ("threshold", "levels", "requantize")


@pytest.mark.parametrize("name", QUANTISERS)
def test_floats_around_every_threshold_give_the_level_of_torch(name):
    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(9), QUANTISERS[name])
    randomise(model)
    packed = pack(model, torch.zeros(2, 9))
    around = [torch.randn(500, 9) * 4]
    operator = packed.program.steps[0].operator
    if isinstance(operator, Threshold | Levels):
        found = torch.from_numpy(operator.thresholds.copy())
        at = found.reshape(len(found), -1).T.expand(-1, 9).clamp(-1e30, 1e30)
        around += [at, torch.nextafter(at, at + 1e9), torch.nextafter(at, at - 1e9), at * 0, at + 1]
    check(model, torch.cat(around), exact=True)


@given(
    st.lists(
        st.tuples(FLOAT, FLOAT, FLOAT, st.floats(2**-10, 100, width=32)), min_size=8, max_size=8
    )
)
@settings(max_examples=10, deadline=None)
def test_a_threshold_of_real_numbers_is_the_exact_change_of_torch(rows):
    gamma, beta, mean, variance = (list(column) for column in zip(*rows, strict=True))
    gamma[0], gamma[1], beta[1], mean[1] = 0.0, 1.0, 0.0, 0.0  # one is constant, one is not
    model = nn.Sequential(batch_norm(gamma, beta, mean, variance), nn.Hardtanh(), Sign())
    operator = pack(model, torch.zeros(2, 8)).program.steps[0].operator
    assert isinstance(operator, Threshold)
    at = torch.from_numpy(operator.thresholds.copy()).expand(8).clamp(-1e30, 1e30)
    around = [at, torch.nextafter(at, at + 1e9), torch.nextafter(at, at - 1e9), at * 0, at + 1]
    check(model, torch.stack(around), exact=True)


def test_gamma_zero_is_constant():
    norm = batch_norm([0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0] * 3, [1.0] * 3)
    packed = check(nn.Sequential(norm, Sign()), torch.randn(5, 3), exact=True)
    operator = packed.program.steps[0].operator
    assert operator.thresholds.tolist() == [-math.inf] * 3
    assert operator.flipped.tolist() == [False, True, False]


def test_constant_channels_among_integers():
    model = Counted(4, steps(-2, 2)).eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.0, 0.0, 1.0, 1e-20]))
        model.norm.bias.copy_(torch.tensor([0.4, -9.0, 0.0, 0.6]))
    check(model, every_sum(), exact=True)


def test_a_dead_layer_is_the_constant_that_it_is_in_torch():
    for limit, sign in ((1e9, 1.0), (-1e9, 1.0), (1e9, -2.0)):
        quantiser = Function(lambda x, t=limit, s=sign: (x >= t).float() * s + 0.5)
        model = nn.Sequential(Counted(3, quantiser), on_grid(nn.Linear(3, 2), 0)).eval()
        check(model, every_sum(), exact=True)


def test_thresholds_of_a_tensor_one_for_each_channel():
    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.limits = nn.Parameter(torch.randn(6, 1, 1))
            self.conv = on_grid(nn.Conv2d(2, 6, 3), 1)
            self.linear = on_grid(nn.Linear(96, 3), 0)

        def forward(self, x):
            x = self.conv(torch.where(x >= 0, 1.0, -1.0))
            return self.linear(torch.where(x >= self.limits, 1.0, -1.0).flatten(1))

    packed = check(Compared(), torch.randn(20, 2, 6, 6), exact=True)
    assert kinds(packed) == ["sign", "conv2d", "threshold", "flatten", "linear"]
    assert len(packed.program.steps[2].operator.thresholds) == 6


def test_zero_and_one_become_signs_with_an_offset():
    above = Function(lambda x: (x > 0).float())
    model = nn.Sequential(nn.BatchNorm1d(9), above, on_grid(nn.Linear(9, 8), 1))
    model = nn.Sequential(*model, nn.BatchNorm1d(8), above, on_grid(nn.Linear(8, 3), 1))
    packed = check(randomise(model), torch.randn(40, 9), tolerance=1e-5)
    assert kinds(packed) == ["threshold", "linear", "threshold", "linear"]
    assert domains(packed)[1:] == ["sign", "int32", "sign", "float32"]


def test_three_values_of_torch_sign_become_levels():
    model = nn.Sequential(
        Function(torch.sign), on_grid(nn.Linear(5, 4, bias=False), 1), Function(torch.sign)
    )
    x = torch.randint(-1, 2, (30, 5)).float()
    packed = check(model, x, exact=True)
    assert kinds(packed) == ["levels", "linear", "levels"]
    assert domains(packed)[1:] == ["int8", "int32", "int8"]
    assert isinstance(packed.program.steps[2].operator, Levels)


@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_max_pool_stays_between_the_sum_and_the_threshold(gamma):
    model = nn.Sequential(
        Sign(),
        on_grid(nn.Conv2d(2, 3, 3, bias=False), 0),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(3),
        Sign(),
    )
    with torch.no_grad():
        model[3].weight.fill_(gamma)
    packed = check(model.eval(), torch.randn(20, 2, 6, 6), exact=True)
    operator = packed.program.steps[-1].operator
    assert kinds(packed) == ["sign", "conv2d", "max_pool2d", "threshold"] or (
        kinds(packed)[-1] == "sign" and gamma > 0
    )
    if gamma < 0:
        assert operator.flipped.all()


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-100, 120), (-300, 300)])
def test_many_levels_are_one_multiplication(low, high):
    model = Counted(40, Quantiser(2.0, low, high), scale=0.25)
    randomise(model)
    with torch.no_grad():
        model.norm.weight.mul_(2)
        model.linear.bias.mul_(100)
    packed = pack(model, every_sum())
    operator = packed.program.steps[2].operator
    assert isinstance(operator, Requantize)
    sums = torch.arange(-SUMS, SUMS + 1, 2).double()[:, None]
    scale = model.norm.weight.double() / (model.norm.running_var.double() + 1e-5).sqrt()
    factors = 0.25 * scale / 2.0
    shifts = model.linear.bias.double() - model.norm.running_mean.double()
    shifts = (shifts * scale + model.norm.bias.double()) / 2.0
    wanted = (factors * sums + shifts).clamp(low, high)
    found = torch.from_numpy(packed.program(every_sum().numpy())).double() / 2.0
    assert bool(((found - wanted).abs() <= 0.5 + 1e-6).all())
    check(model, every_sum(), exact=True)


@pytest.mark.parametrize("shift", [100, 0, -3])
@pytest.mark.parametrize("factor", [0.25, -0.25, 0.3])
def test_rounding_of_raw_integers_is_exact_with_ties(shift, factor):
    x = torch.arange(256, dtype=torch.uint8)[:, None]
    by = Function(lambda x: torch.clamp(torch.round((x.float() - shift) * factor), -20, 30))
    assert kinds(check(by, x, exact=True)) == ["quantize"]
    back = Function(lambda x: torch.clamp(torch.round((shift - x.float()) / 4), -20, 30))
    assert kinds(check(back, x, exact=True))[-1] == "quantize"


@pytest.mark.parametrize("first", [(-128, 127, 1 / 16), (-3, 3, 0.5), (0, 15, 0.25)])
@pytest.mark.parametrize("second", [(-60, 60, 1 / 8), (0, 255, 1 / 64), (-2, 2, 1.0)])
@pytest.mark.parametrize("matrix", [False, True])
def test_a_quantiser_behind_a_quantiser(first, second, matrix):
    both = nn.Sequential(
        Quantiser(first[2], *first[:2]), nn.PReLU(), Quantiser(second[2], *second[:2])
    )
    if matrix:
        model = Counted(20, both, scale=0.25)
        check(randomise(model), every_sum(), exact=True)
    else:
        check(randomise(nn.Sequential(nn.BatchNorm1d(9), both)), torch.randn(300, 9), exact=True)


def test_limits_between_two_integers_stay():
    model = Function(lambda x: torch.clamp(torch.round(x * 4), -20.5, 30.25))
    check(model, torch.randn(300, 4) * 9, exact=True)


def test_a_negative_scale_behind_a_matrix_turns_its_rows():
    model = Counted(5, Quantiser(1 / 64, -128, 127), scale=1 / 256, norm=True).eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([1.0, -1.0, 2.0, -0.5, 0.0]))
        model.norm.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.7]))
        model.linear.bias.zero_()
    packed = check(model, every_sum(), tolerance=1.0 / 30)
    assert kinds(packed)[:3] == ["sign", "linear", "requantize"]


@pytest.mark.parametrize("gamma", [0.01, -0.01])
def test_a_pool_before_a_quantiser_with_negative_scales_rounds_floats(gamma):
    model = nn.Sequential(
        Sign(), on_grid(nn.Conv2d(2, 3, 3), 0), nn.MaxPool2d(2), nn.BatchNorm2d(3)
    )
    with torch.no_grad():
        model[3].weight.fill_(gamma)
    model = nn.Sequential(*model, Quantiser(1 / 32, -128, 127)).eval()
    packed = check(model, torch.randn(5, 2, 8, 8), exact=gamma < 0, tolerance=1e-5 + 1 / 4)
    assert kinds(packed).count("quantize") == (gamma < 0)
    assert kinds(packed).count("requantize") == (gamma > 0)


def test_rounding_without_limits_is_refused():
    for function in (torch.round, torch.floor, lambda x: torch.round(x).relu()):
        model = nn.Sequential(nn.Linear(4, 3), Function(function), nn.Linear(3, 2))
        with pytest.raises(CannotPack, match="clamp") as caught:
            pack(model, torch.zeros(2, 4))
        assert caught.value.module == "1"


@pytest.mark.parametrize("kernel", [1, 3])
def test_batch_norm_behind_a_matrix_becomes_a_part_of_it(kernel):
    model = nn.Sequential(nn.Conv2d(3, 6, kernel), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
    size = 6 * (9 - kernel) ** 2
    model = nn.Sequential(*model, nn.Linear(size, 4), nn.BatchNorm1d(4))
    packed = check(randomise(model), torch.randn(9, 3, 8, 8), tolerance=1e-5)
    assert kinds(packed) == ["conv2d", "relu", "flatten", "linear"]


def test_batch_norm_of_a_value_that_others_read_stays_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            x = self.linear(x)
            return self.norm(x) + x

    packed = check(randomise(Twice()), torch.randn(9, 5), tolerance=1e-5)
    assert kinds(packed) == ["linear", "affine", "add"]


def test_a_comparison_that_is_always_true_is_a_constant():
    always = Function(lambda x: torch.where((x > 1) | (x <= 1), 2.0, 3.0))
    check(nn.Sequential(nn.Linear(4, 3), always, nn.Linear(3, 2)), torch.randn(9, 4))
