"""Every operator against torch: integers exactly, floats to 1e-5 relative to the largest."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.bits import binary_gemm_reference
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import CHANNEL, FEATURE, NONE, SCALAR, Activation
from whit.runtime.operators import (
    OPERATORS,
    Affine,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Normalize,
    Pad2d,
    Relu,
    Reshape,
    Sign,
    Threshold,
)
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight


def run(operator, x, domain="float32"):
    """Run, with shape inference and a write-read round trip on the way."""
    source = Activation(x.shape[1:], domain)
    writer = DataWriter()
    record = operator.write(writer)
    again = type(operator).read(record, DataReader(writer.to_bytes()), source)
    result = again.result(source)
    found = again.run(x, binary_gemm_reference)
    assert found.shape[1:] == result.shape
    dtype = {"float32": np.float32, "int32": np.int32, "sign": np.bool_, "uint8": np.uint8}
    assert found.dtype == dtype[result.domain]
    return found


def close(found, expected):
    expected = expected.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def levels(*shape, choices=(-1, 1), seed=0):
    return np.random.default_rng(seed).choice(choices, size=shape).astype(np.int8)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6])
def test_linear_on_floats(code):
    form = FORMATS[code]
    weight = levels(9, 21, choices=(-1, 1) if code == 1 else (-1, 0, 1))
    values = weight if form.levels else weight * floats(9, 21, seed=1)
    scale = np.abs(floats(9)) if form.levels else np.empty(0, dtype=np.float32)
    stored = StoredWeight(form, values, scale)
    x, bias = floats(4, 21), floats(9, seed=3)
    expected = functional.linear(*map(torch.from_numpy, (x, stored.dense(), bias)))
    close(run(Linear(stored, bias), x), expected)


@pytest.mark.parametrize("count", range(1, 131))
def test_linear_on_signs_is_exact(count):
    weight, x = levels(6, count), levels(3, count, seed=1)
    found = run(Linear(StoredWeight(FORMATS[1], weight), None), x < 0, "sign")
    np.testing.assert_array_equal(found, x.astype(int) @ weight.T.astype(int))


@pytest.mark.parametrize("code", [2, 4, 6])
def test_linear_on_signs_with_zeros_is_exact(code):
    weight, x = levels(6, 33, choices=(-1, 0, 1)), levels(3, 33, seed=1)
    found = run(Linear(StoredWeight(FORMATS[code], weight), None), x < 0, "sign")
    np.testing.assert_array_equal(found, x.astype(int) @ weight.T.astype(int))


CONVOLUTIONS = [
    {"stride": (1, 1), "pad": (1, 1)},
    {"stride": (2, 1), "pad": (0, 2)},
    {"stride": (1, 3), "pad": (2, 2), "dilation": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("channels", [1, 3, 8, 13, 64])
@pytest.mark.parametrize("code", [1, 2])
def test_conv2d_on_signs_is_exact(options, pad_value, channels, code):
    weight = levels(5, channels * 6, choices=(-1, 1) if code == 1 else (-1, 0, 1))
    x = levels(2, channels, 9, 8, seed=1)
    found = run(
        Conv2d(StoredWeight(FORMATS[code], weight), None, (3, 2), pad_value=pad_value, **options),
        x < 0,
        "sign",
    )
    expected = torch_conv(x, weight.reshape(5, channels, 3, 2), None, pad_value, options)
    np.testing.assert_array_equal(found, expected.numpy())
    assert found.dtype == np.int32


def torch_conv(x, weight, bias, pad_value, options, groups=1):
    x, weight = torch.from_numpy(x).double(), torch.from_numpy(weight).double()
    pad_h, pad_w = options["pad"]
    x = functional.pad(x, (pad_w, pad_w, pad_h, pad_h), value=pad_value)
    bias = None if bias is None else torch.from_numpy(bias).double()
    dilation = options.get("dilation", 1)
    return functional.conv2d(x, weight, bias, options["stride"], 0, dilation, groups)


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv2d_on_floats(options, groups):
    weight, bias, x = floats(8, 4 // groups, 3, 2), floats(8), floats(2, 4, 9, 8, seed=2)
    stored = StoredWeight(FORMATS[0], weight.reshape(8, -1))
    found = run(Conv2d(stored, bias, (3, 2), **options), x)
    close(found, torch_conv(x, weight, bias, 0, options, groups))


def test_conv2d_on_signs_in_groups_is_exact():
    weight, x = levels(4, 2 * 9), levels(2, 4, 6, 6, seed=1)
    operator = Conv2d(StoredWeight(FORMATS[1], weight), None, (3, 3), pad=(1, 1))
    options = {"stride": 1, "pad": (1, 1)}
    expected = torch_conv(x, weight.reshape(4, 2, 3, 3), None, 0, options, groups=2)
    np.testing.assert_array_equal(run(operator, x < 0, "sign"), expected.numpy())


@pytest.mark.parametrize(
    ("granularity", "shape"), [(SCALAR, ()), (CHANNEL, (3, 1, 1)), (FEATURE, (3, 4, 5))]
)
def test_affine_and_normalize(granularity, shape):
    x = torch.from_numpy(floats(2, 3, 4, 5))
    scale, shift = (
        floats(*shape) if shape else floats(1),
        floats(*shape, seed=1) if shape else floats(1),
    )
    flat = (scale.reshape(-1), shift.reshape(-1), granularity, granularity)
    found = run(Affine(*flat), x.numpy())
    np.testing.assert_array_equal(
        found, (x * torch.from_numpy(scale) + torch.from_numpy(shift)).numpy()
    )
    found = run(Normalize(*flat), x.numpy())
    np.testing.assert_array_equal(
        found, ((x - torch.from_numpy(shift)) / torch.from_numpy(scale)).numpy()
    )


def test_missing_operands_are_left_out():
    x = floats(2, 3)
    np.testing.assert_array_equal(run(Affine(None, None), x), x)
    shift = np.array([2.0], dtype=np.float32)
    np.testing.assert_array_equal(run(Normalize(None, shift, NONE, SCALAR), x), x - 2)


def test_relu_and_sign():
    x = np.array([[-1.0, -0.0, 0.0, 1e-45, 2.0, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(run(Relu(), x), torch.relu(torch.from_numpy(x)).numpy())
    assert run(Sign(), x).tolist() == [[True, False, False, False, False, True]]
    assert run(Relu(), np.array([[-3, 3]], dtype=np.int32), "int32").tolist() == [[0, 3]]


def test_threshold_flips_and_constants():
    least = np.iinfo(np.int8).min
    operator = Threshold(
        np.array([2, 2, least, least], dtype=np.int8), np.array([False, True, False, True])
    )
    x = np.array([[1, 1, -128, -9], [2, 2, 0, 0], [3, 3, 9, 9]], dtype=np.int32)
    negative = [[True, False, False, True], [False, False, False, True], [False, True, False, True]]
    assert run(operator, x, "int32").tolist() == negative
    with pytest.raises(ArtifactError, match="integer thresholds"):
        operator.result(Activation((4,), "float32"))
    single = Threshold(np.array([0.5], dtype=np.float32))
    assert run(single, np.array([[0.5, 0.4]], dtype=np.float32)).tolist() == [[False, True]]


@pytest.mark.parametrize("size, stride, pad", [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1))])
def test_max_pool2d(size, stride, pad):
    x = floats(2, 3, 7, 6)
    operator = MaxPool2d(size, stride, pad)
    expected = functional.max_pool2d(torch.from_numpy(x), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(operator, x), expected)
    signs = functional.max_pool2d(torch.from_numpy(np.sign(x)), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(operator, x < 0, "sign"), signs < 0)
    whole = (x * 10).astype(np.int32)
    expected = functional.max_pool2d(torch.from_numpy(whole).float(), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(operator, whole, "int32"), expected)


def test_flatten_reshape_pad():
    x = floats(2, 3, 4, 5)
    np.testing.assert_array_equal(run(Flatten(), x), x.reshape(2, 60))
    np.testing.assert_array_equal(run(Reshape((5, 12)), x), x.reshape(2, 5, 12))
    expected = functional.pad(torch.from_numpy(x), (2, 0, 1, 3), value=0.5).numpy()
    np.testing.assert_array_equal(run(Pad2d((1, 2, 3, 0), 0.5), x), expected)
    assert run(Pad2d((1, 1, 1, 1), -1.0), x < 0, "sign")[0, 0, 0, 0]
    assert run(Pad2d((1, 1, 1, 1), 0.0), x < 0, "sign").dtype == np.float32


BAD_SHAPES = [
    (Linear(StoredWeight(FORMATS[0], floats(2, 3)), None), (4,)),
    (Conv2d(StoredWeight(FORMATS[0], floats(2, 9)), None, (3, 3)), (1, 2, 2)),
    (Conv2d(StoredWeight(FORMATS[0], floats(2, 9)), None, (3, 3), stride=(0, 1)), (1, 5, 5)),
    (Conv2d(StoredWeight(FORMATS[0], floats(2, 10)), None, (3, 3)), (1, 5, 5)),
    (MaxPool2d((2, 2), (2, 2), (2, 2)), (1, 5, 5)),
    (MaxPool2d((9, 9), (2, 2)), (1, 5, 5)),
    (MaxPool2d((2, 2), (2, 2)), (5,)),
    (Reshape((7,)), (1, 5, 5)),
    (Affine(floats(3), None, CHANNEL, NONE), (4,)),
    (Threshold(floats(3)), (4,)),
    (Pad2d((1, 1, 1, 1), 0.0), (4,)),
]


@pytest.mark.parametrize(("operator", "shape"), BAD_SHAPES)
def test_impossible_shapes_are_refused(operator, shape):
    with pytest.raises(ArtifactError):
        operator.result(Activation(shape, "float32"))


def test_codes_are_unique():
    assert len({operator.kind for operator in OPERATORS.values()}) == len(OPERATORS)
