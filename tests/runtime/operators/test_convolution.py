import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.layout import Activation
from whit.runtime.operators import Conv2d
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

CODES = {form.name: code for code, form in FORMATS.items()}
CONVOLUTIONS = [
    {"stride": (1, 1), "pad": (1, 1)},
    {"stride": (2, 1), "pad": (0, 2)},
    {"stride": (1, 3), "pad": (2, 2), "dilation": 2},
]


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def levels(*shape, choices=(-1, 1), seed=0):
    return np.random.default_rng(seed).choice(choices, size=shape).astype(np.int8)


def stored(name, values, taps=1):
    return StoredWeight(FORMATS[CODES[name]], values, taps=taps)


def torch_conv(x, weight, bias, pad_value, options, groups=1):
    x, weight = torch.from_numpy(x).double(), torch.from_numpy(weight).double()
    pad_h, pad_w = options["pad"]
    x = functional.pad(x, (pad_w, pad_w, pad_h, pad_h), value=pad_value)
    bias = None if bias is None else torch.from_numpy(bias).double()
    dilation = options.get("dilation", 1)
    return functional.conv2d(x, weight, bias, options["stride"], 0, dilation, groups).numpy()


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("channels", [1, 3, 8, 13, 64])
@pytest.mark.parametrize("name", ["bits", "ternary"])
def test_signs_are_exact(run, options, pad_value, channels, name):
    weight = levels(5, channels * 6, choices=(-1, 1) if name == "bits" else (-1, 0, 1))
    x = levels(2, channels, 9, 8, seed=1)
    operator = Conv2d(stored(name, weight, 6), None, (3, 2), pad_value=pad_value, **options)
    found = run(operator, x < 0, "sign")
    expected = torch_conv(x, weight.reshape(5, channels, 3, 2), None, pad_value, options)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize(
    "domain, pad_value", [("uint8", 0), ("uint8", 127), ("int8", -128), ("int8", 0), ("int16", -7)]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_whole_numbers_are_exact(run, options, domain, pad_value, groups):
    limits = np.iinfo(domain)
    random = np.random.default_rng(1)
    x = random.integers(limits.min, limits.max + 1, (2, 4, 9, 8)).astype(domain)
    weight = random.integers(-128, 128, (6, 4 // groups * 6)).astype(np.int8)
    operator = Conv2d(stored("int8", weight, 6), None, (3, 2), pad_value=pad_value, **options)
    found = run(operator, x, domain)
    kernels = weight.reshape(6, 4 // groups, 3, 2)
    np.testing.assert_array_equal(found, torch_conv(x, kernels, None, pad_value, options, groups))
    assert found.dtype == np.int32


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_floats(run, options, groups):
    weight, bias, x = floats(8, 4 // groups, 3, 2), floats(8), floats(2, 4, 9, 8, seed=2)
    operator = Conv2d(stored("float32", weight.reshape(8, -1), 6), bias, (3, 2), **options)
    expected = torch_conv(x, weight, bias, 0, options, groups)
    np.testing.assert_allclose(run(operator, x), expected, atol=1e-5 * np.abs(expected).max())


def test_two_four_rows_have_their_channels_fastest(run):
    weight = np.zeros((3, 8, 3, 3), dtype=np.float32)
    weight[:, ::2] = floats(3, 4, 3, 3)  # two of four along the channels
    flat, x = weight.reshape(3, -1), floats(2, 8, 5, 5, seed=1)
    operator = Conv2d(stored("two_four_float32", flat, 9), None, (3, 3), pad=(1, 1))
    expected = torch_conv(x, weight, None, 0, {"stride": 1, "pad": (1, 1)})
    np.testing.assert_allclose(run(operator, x), expected, atol=1e-4)


def test_signs_in_groups_are_exact(run):
    weight, x = levels(4, 2 * 9), levels(2, 4, 6, 6, seed=1)
    operator = Conv2d(stored("bits", weight, 9), None, (3, 3), pad=(1, 1))
    options = {"stride": 1, "pad": (1, 1)}
    expected = torch_conv(x, weight.reshape(4, 2, 3, 3), None, 0, options, groups=2)
    np.testing.assert_array_equal(run(operator, x < 0, "sign"), expected)


ONE = stored("float32", floats(2, 9), 9)


@pytest.mark.parametrize(
    ("operator", "shape", "domain"),
    [
        (Conv2d(ONE, None, (3, 3)), (1, 2, 2), "float32"),
        (Conv2d(ONE, None, (3, 3)), (1, 5), "float32"),
        (Conv2d(ONE, None, (3, 3), stride=(0, 1)), (1, 5, 5), "float32"),
        (Conv2d(ONE, None, (3, 3), dilation=0), (1, 5, 5), "float32"),
        (Conv2d(stored("float32", floats(2, 10)), None, (3, 3)), (1, 5, 5), "float32"),
        (Conv2d(ONE, None, (3, 3)), (3, 5, 5), "float32"),
        (Conv2d(ONE, floats(3), (3, 3)), (1, 5, 5), "float32"),
        (Conv2d(ONE, None, (3, 3), pad=(1, 1), pad_value=2), (1, 5, 5), "float32"),
        (Conv2d(ONE, None, (3, 3), pad=(1, 1), pad_value=-1), (1, 5, 5), "uint8"),
        (Conv2d(ONE, None, (3, 3), pad=(1, 1), pad_value=2), (1, 5, 5), "sign"),
        (Conv2d(ONE, None, (3, 3), pad_value=1), (1, 5, 5), "float32"),
        (Conv2d(ONE, None, (3, 3), pad=(255, 255)), (1, 1 << 14, 1 << 14), "float32"),
    ],
)
def test_impossible_convolutions_are_refused(operator, shape, domain):
    with pytest.raises(ArtifactError):
        operator.result(Activation(shape, domain))
