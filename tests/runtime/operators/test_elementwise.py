import numpy as np
import pytest
import torch

from whit.errors import ArtifactError
from whit.runtime.layout import CHANNEL, FEATURE, NONE, SCALAR, Activation
from whit.runtime.operators import Affine, Normalize, Relu, Sign


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("granularity", "shape"), [(SCALAR, (1,)), (CHANNEL, (3, 1, 1)), (FEATURE, (3, 4, 5))]
)
def test_affine_and_normalize(run, granularity, shape):
    x = floats(2, 3, 4, 5)
    scale, shift = floats(*shape), floats(*shape, seed=1)
    flat = (scale.reshape(-1), shift.reshape(-1), granularity, granularity)
    np.testing.assert_array_equal(run(Affine(*flat), x), x * scale + shift)
    np.testing.assert_array_equal(run(Normalize(*flat), x), (x - shift) / scale)


def test_missing_operands_are_left_out(run):
    x = floats(2, 3)
    np.testing.assert_array_equal(run(Affine(None, None), x), x)
    shift = np.array([2.0], dtype=np.float32)
    np.testing.assert_array_equal(run(Normalize(None, shift, NONE, SCALAR), x), x - 2)
    with pytest.raises(ArtifactError, match="affine does not fit"):
        Affine(floats(3), None, CHANNEL, NONE).result(Activation((4,), "float32"))


def test_relu_and_sign(run):
    x = np.array([[-1.0, -0.0, 0.0, 1e-45, 2.0, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(run(Relu(), x), torch.relu(torch.from_numpy(x)).numpy())
    assert run(Sign(), x).tolist() == [[True, False, False, False, False, True]]
    assert run(Relu(), np.array([[-3, 3]], dtype=np.int32), "int32").tolist() == [[0, 3]]
    assert run(Sign(), np.array([[-3, 0, 3]], dtype=np.int8), "int8").tolist() == [
        [True, False, False]
    ]


@pytest.mark.parametrize("domain", ["uint8", "int8", "int16"])
def test_relu_keeps_whole_numbers(run, domain):
    x = np.array([[-7, 0, 9]]).astype(domain)
    np.testing.assert_array_equal(run(Relu(), x, domain), np.maximum(x, 0))


def test_relu_of_signs_is_a_float(run):
    assert run(Relu(), np.array([[True, False]]), "sign").tolist() == [[0.0, 1.0]]
