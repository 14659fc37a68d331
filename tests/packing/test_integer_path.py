"""Between two layers of integers there is no float: domains, exact sums, bits equal to torch."""

import numpy as np
import pytest
import torch
from torch import nn

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
    randomise,
)
from whit.packing import pack
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign

WEIGHTS = {"binary": 0, "ternary": 1, "int4": 7, "int8": 127}
ACTIVATIONS = {
    "sign": (Sign, "sign"),
    "three": (lambda: Quantiser(1.0, -1, 1), "int8"),
    "uint4": (lambda: nn.Sequential(nn.ReLU(), Quantiser(0.25, 0, 15)), "uint8"),
    "uint8": (lambda: nn.Sequential(nn.ReLU(), Quantiser(0.125, 0, 255)), "uint8"),
    "int8": (lambda: Quantiser(0.125, -128, 127), "int8"),
    "int12": (lambda: Quantiser(0.125, -2048, 2047), "int16"),
}


def pixels(count=20, channels=2, size=8):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


def convolutional(levels, activation, first=None):
    return nn.Sequential(
        first or Normalise(128.0, 128.0),
        on_grid(nn.Conv2d(2, 6, 3, padding=1, bias=False), levels, 0.25),
        nn.BatchNorm2d(6),
        activation(),
        nn.MaxPool2d(2),
        on_grid(nn.Conv2d(6, 8, 3, padding=1, bias=False), levels, 0.5, per_row=True),
        nn.BatchNorm2d(8),
        activation(),
        nn.Flatten(),
        on_grid(nn.Linear(8 * 16, 5), levels, 0.5),
    )


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_float_between_integer_layers_and_the_bits_of_torch(weights, activation):
    make, domain = ACTIVATIONS[activation]
    model = dyadic(convolutional(WEIGHTS[weights], make))
    packed = check(model, pixels(), exact=True)
    assert between(packed) <= INTEGERS
    assert domain in between(packed)
    places = matrices(packed)
    assert len(places) == 3
    assert [domains(packed)[place + 1] for place in places] == ["int32", "int32", "float32"]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ["sign", "uint4", "uint8", "int8"])
def test_any_batch_norm_gives_the_classes_of_torch(weights, activation):
    model = randomise(convolutional(WEIGHTS[weights], ACTIVATIONS[activation][0]))
    x = pixels(60)
    packed = pack(model, x[:2])
    assert between(packed) <= INTEGERS
    with torch.no_grad():
        expected = model(x).numpy()
    found = packed.program(x.numpy())
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
