"""Between two layers of integers there is no float: domains, exact sums, bits equal to torch."""

import numpy as np
import pytest
import torch
from packing_networks import (
    INTEGERS,
    Function,
    Quantiser,
    between,
    check,
    domains,
    dyadic,
    kinds,
    matrices,
    on_grid,
    settle,
)
from torch import nn

from whit.packing import pack
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign

WEIGHTS = {"binary": 0, "ternary": 1, "int4": 7, "int8": 127}
ACTIVATIONS = {
    "sign": (Sign, "sign"),
    "three": (lambda: Quantiser(1.0, -1, 1), "int8"),
    "uint4": (lambda: nn.Sequential(nn.ReLU(), Quantiser(0.25, 0, 15)), "uint8"),
    "uint8": (lambda: nn.Sequential(nn.ReLU(), Quantiser(1 / 16, 0, 255)), "uint8"),
    "int8": (lambda: Quantiser(1 / 16, -128, 127), "int8"),
    "int12": (lambda: Quantiser(1 / 256, -2048, 2047), "int16"),
}


def pixels(count=20, channels=2, size=8):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def convolutional(levels, activation, first=None):
    scale = 0.5 / (levels + 1 if levels > 1 else 1)
    return nn.Sequential(
        first or Normalise(128.0, 128.0),
        on_grid(nn.Conv2d(2, 6, 3, padding=1, bias=False), levels, scale),
        nn.BatchNorm2d(6),
        activation(),
        nn.MaxPool2d(2),
        on_grid(nn.Conv2d(6, 8, 3, padding=1, bias=False), levels, scale, per_row=True),
        nn.BatchNorm2d(8),
        activation(),
        nn.Flatten(),
        on_grid(nn.Linear(8 * 16, 5), levels, scale),
    )


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_powers_of_two_have_the_bits_of_torch(weights, activation):
    make, domain = ACTIVATIONS[activation]
    model = dyadic(convolutional(WEIGHTS[weights], make))
    packed = check(model, pixels(), exact=True)
    assert domain in between(packed)
    assert between(packed) <= INTEGERS


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "int12"])
def test_no_float_between_integer_layers(weights, activation):
    make, domain = ACTIVATIONS[activation]
    x = pixels(60)
    model = settle(convolutional(WEIGHTS[weights], make), x)
    packed = pack(model, x[:2])
    assert domain in between(packed)
    assert between(packed) <= INTEGERS
    places = matrices(packed)
    assert [domains(packed)[place + 1] for place in places] == ["int32", "int32", "float32"]
    with torch.no_grad():
        expected = model(x).numpy()
    found = packed.program(x.numpy())
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.96
    assert np.abs(found - expected).mean() <= 0.01 * np.abs(expected).max()


def test_sixteen_bits_between_layers():
    x = pixels(60)
    model = settle(convolutional(127, ACTIVATIONS["int12"][0]), x)
    packed = check(model, x, tolerance=2e-3)
    assert between(packed) == {"int32", "int16"}


def test_coarse_sums_are_shifted_by_parts_of_a_sum():
    x = pixels(60)
    model = settle(convolutional(0, ACTIVATIONS["int12"][0]), x)
    packed = check(model, x, tolerance=2e-3)
    assert between(packed) == {"int32", "int16"}


NORMALISATIONS = {
    "none": Function(lambda x: x.float()),
    "centred": Normalise(128.0, 128.0),
    "by_255": Function(lambda x: x / 255),
    "by_255_and_back": Function(lambda x: (x / 255 - 0.5) / 0.25),
    "doubled": Function(lambda x: 2 * (x.float() / 256) - 1),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
@pytest.mark.parametrize("pad", [0, 1])
def test_raw_bytes_enter_the_first_matrix_as_integers(name, pad):
    x = pixels(60)
    first = on_grid(nn.Conv2d(2, 6, 3, padding=pad, bias=False), 7, 1 / 16)
    model = nn.Sequential(NORMALISATIONS[name], first, nn.BatchNorm2d(6), Sign())
    model = settle(nn.Sequential(*model, on_grid(nn.Conv2d(6, 5, 3), 0), nn.Flatten()), x)
    packed = check(model, x, tolerance=0.05)
    if pad and name == "by_255_and_back":  # a padding of 0 would be the pixel 127.5
        assert kinds(packed)[:3] == ["normalize", "normalize", "conv2d"]
        return
    assert kinds(packed)[:1] == ["conv2d"] or kinds(packed)[:2] == ["quantize", "conv2d"]
    assert domains(packed)[matrices(packed)[0] + 1] == "int32"
    assert "float32" not in between(packed)


def test_a_padding_that_is_no_integer_of_the_input_stays_exact():
    x = pixels()
    model = nn.Sequential(
        Function(lambda x: (x / 255 - 0.45) / 0.22), nn.Conv2d(2, 3, 3, padding=1)
    )
    on_grid(model[1], 7, 1 / 8)
    check(nn.Sequential(*model, nn.Flatten()), x)


@pytest.mark.parametrize("shift", [0.0, 1.0, 128.0, 200.0, 255.0])
def test_zero_padding_stands_for_the_zero_point(shift):
    first = on_grid(nn.Conv2d(2, 4, 3, padding=1, bias=False), 7, 1 / 16)
    second = on_grid(nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False), 1)
    model = nn.Sequential(
        Normalise(shift, 128.0), first, nn.BatchNorm2d(4), Sign(), second, nn.Flatten()
    )
    packed = check(dyadic(model), pixels(), exact=True)
    assert domains(packed)[matrices(packed)[0] + 1] == "int32"


def test_quantised_activations_with_a_zero_point_are_padded_by_it():
    def asymmetric(x):
        return torch.fake_quantize_per_tensor_affine(x, 1 / 64, 37, 0, 255)

    model = nn.Sequential(
        Function(asymmetric),
        on_grid(nn.Conv2d(2, 4, 3, padding=1, bias=False), 7, 1 / 16),
        nn.BatchNorm2d(4),
        Sign(),
        nn.Flatten(),
        on_grid(nn.Linear(4 * 64, 3), 0),
    )
    packed = check(dyadic(model), torch.randn(20, 2, 8, 8), exact=True)
    conv = packed.program.steps[matrices(packed)[0]].operator
    assert conv.pad == (1, 1)
    assert conv.pad_value == 0  # the zero point was taken out before: numbers from -37 to 218
    assert between(packed) <= INTEGERS


def test_max_pool_works_on_bits():
    model = nn.Sequential(
        Normalise(128.0, 128.0),
        on_grid(nn.Conv2d(2, 6, 3, bias=False), 1),
        nn.BatchNorm2d(6),
        Sign(),
        nn.MaxPool2d(2),
        on_grid(nn.Conv2d(6, 4, 2, bias=False), 0),
        nn.MaxPool2d(2, ceil_mode=False),
        nn.BatchNorm2d(4),
        Sign(),
        nn.Flatten(),
        on_grid(nn.Linear(4, 3), 1),
    )
    packed = check(dyadic(model), pixels(), exact=True)
    pools = [step for step in packed.program.steps if step.operator.kind == "max_pool2d"]
    assert [pool.result.domain for pool in pools] == ["sign", "int32"]


@pytest.mark.parametrize("activation", ["sign", "three", "uint4", "int8"])
def test_residual_sums_of_integers_agree(activation):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            make = ACTIVATIONS[activation][0]
            self.first = nn.Sequential(
                Normalise(128.0, 128.0), on_grid(nn.Conv2d(2, 4, 3, padding=1), 1, 0.5)
            )
            self.quantise, self.again = make(), make()
            self.conv = on_grid(nn.Conv2d(4, 4, 3, padding=1), 1, 0.5)
            self.head = on_grid(nn.Linear(4 * 64, 3), 1, 0.5)

        def forward(self, x):
            x = self.quantise(self.first(x))
            x = self.again(x + self.conv(x))
            return self.head(x.flatten(1))

    packed = check(Residual().eval(), pixels(), exact=activation != "int8", tolerance=0.02)
    assert "add" in kinds(packed)
    assert sum(domain in ("sign", "int8", "uint8") for domain in domains(packed)[1:]) >= 2


@pytest.mark.parametrize("columns", [1, 3, 200])
def test_one_dimensional_networks_are_integers_too(columns):
    model = nn.Sequential(
        Normalise(8.0, 8.0),
        on_grid(nn.Linear(columns, 7), 7, 1 / 8, per_row=True),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        Quantiser(0.25, 0, 3),
        on_grid(nn.Linear(7, 4), 1),
    )
    x = torch.randint(0, 17, (30, columns), dtype=torch.uint8)
    packed = check(dyadic(model), x, exact=True)
    assert between(packed) <= INTEGERS
    assert kinds(packed) == ["linear", "levels", "linear"]


def test_a_float_network_around_integer_layers_stays_float():
    model = nn.Sequential(nn.Linear(6, 5), Sign(), on_grid(nn.Linear(5, 4), 0), nn.Tanh())
    packed = check(nn.Sequential(*model, nn.Linear(4, 3)), torch.randn(9, 6))
    assert domains(packed)[-2:] == ["float32", "float32"]
