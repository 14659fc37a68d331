import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.layout import ABSENT, Activation, Record
from whit.runtime.operators import Clamp, Curve, LeakyRelu, Softmax

X = np.random.default_rng(0).normal(scale=3, size=(3, 4, 5)).astype(np.float32)
X[0, 0] = [np.nan, 0.0, -0.0, 100.0, -100.0]
X[1, 1, :3] = [1e-30, -1e-30, 1e30]
T = torch.from_numpy(X)


def same(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(found, expected.numpy(), rtol=tolerance, atol=tolerance)


def test_leaky_relu_with_one_slope_and_one_for_each_channel(run):
    one = np.array([0.1], dtype=np.float32)
    same(run(LeakyRelu(one), X), functional.leaky_relu(T, float(one[0])), 0)
    slopes = np.array([0.1, -2.0, 0.0, 1.5], dtype=np.float32)
    same(run(LeakyRelu(slopes), X), functional.prelu(T, torch.from_numpy(slopes)), 0)
    signs = run(LeakyRelu(one), np.array([[True, False]]), "sign")
    np.testing.assert_array_equal(signs, np.array([[-0.1, 1]], dtype=np.float32))


def test_clamp(run):
    same(run(Clamp(-0.5, 6.0), X), functional.hardtanh(T, -0.5, 6.0), 0)
    assert np.isnan(run(Clamp(0.0, 6.0), X)[0, 0, 0])
    same(run(Clamp(-math.inf, 1.0), X), T.clamp(max=1.0), 0)
    assert run(Clamp(2.0, 1.0), X[1:]).max() == 1.0  # the upper limit is applied last


CURVES = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "elu": functional.elu,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "softplus": functional.softplus,
    "abs": torch.abs,
    "square": torch.square,
}


@pytest.mark.parametrize("function", CURVES)
def test_curves_equal_torch(run, function):
    x = np.concatenate([X.reshape(-1), np.linspace(-12, 12, 4001, dtype=np.float32)])[None]
    expected = CURVES[function](torch.from_numpy(x).double())
    found = run(Curve(function), x)
    assert np.isnan(found[0, 0])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, expected.numpy().astype(np.float32), rtol=2e-6, atol=1e-6)


def test_gelu_keeps_its_lower_tail(run):
    x = np.array([[-4.0, -5.5, -8.0]], dtype=np.float32)
    expected = [[v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x[0].tolist()]]
    np.testing.assert_allclose(run(Curve("gelu"), x), expected, rtol=1e-6)


def test_elu_has_an_alpha(run):
    same(run(Curve("elu", 0.25), X), functional.elu(T, 0.25))


def test_curves_of_whole_numbers_are_floats(run):
    found = run(Curve("square"), np.array([[-5, 7]], dtype=np.int8), "int8")
    assert found.tolist() == [[25.0, 49.0]]


def test_unknown_curves_and_forms_are_refused():
    source = Activation((3,), "float32")
    with pytest.raises(ArtifactError, match="curve 11"):
        Curve.read(Record(19, size_h=11), None, source)
    with pytest.raises(ArtifactError, match="curve 'swish'"):
        Curve("swish").result(source)
    with pytest.raises(ArtifactError, match="unknown form"):
        Softmax.read(Record(20, size_w=2), None, source)
    with pytest.raises(ArtifactError, match="no axis 1"):
        Softmax(1).result(source)
    with pytest.raises(ArtifactError, match="slopes"):
        LeakyRelu.read(Record(17, operand=3, second=0), None, source)
    with pytest.raises(ArtifactError, match="no place"):
        LeakyRelu.read(Record(17, operand=1, second=ABSENT), None, source)
    with pytest.raises(ArtifactError, match="does not fit"):
        LeakyRelu(np.ones(2, dtype=np.float32)).result(source)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_and_its_logarithm(run, axis):
    x = X[1:]
    t = torch.from_numpy(x)
    same(run(Softmax(axis), x), t.softmax(axis + 1))
    same(run(Softmax(axis, log=True), x), t.log_softmax(axis + 1))
    large = np.array([[1000.0, 999.0], [-1e30, 1e30]], dtype=np.float32)
    same(run(Softmax(0), large), torch.from_numpy(large).softmax(1))
    same(run(Softmax(0, log=True), large), torch.from_numpy(large).log_softmax(1))
    assert np.isnan(run(Softmax(0), X)[0, :, 0]).all()
