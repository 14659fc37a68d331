"""Every operator as C against the NumPy reference: integers and signs exactly, floats to 1e-5."""

import numpy as np
import pytest

from whit.export.c_operators import WRITERS
from whit.export.c_values import ALIASES
from whit.runtime.layout import CHANNEL, FEATURE, NONE, SCALAR
from whit.runtime.operators import (
    OPERATORS,
    Add,
    Affine,
    AvgPool2d,
    Clamp,
    Concat,
    Curve,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    Levels,
    Lookup,
    MaxPool2d,
    Multiply,
    Normalize,
    Pad2d,
    Quantize,
    Reduce,
    Relu,
    Requantize,
    Reshape,
    Sign,
    Softmax,
    Threshold,
    Transpose,
)

INT8 = Quantize(0.125, 40.0, -128, 127)
UINT8 = Quantize(-1.0, 50.0, 0, 255)
INT16 = Quantize(0.0, 9000.0, -32768, 32767)
DOMAINS = {"float32": [], "uint8": [UINT8], "int8": [INT8], "int16": [INT16], "sign": [Sign()]}


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_no_operator_is_forgotten():
    kinds = {operator.kind for operator in OPERATORS.values()}
    assert kinds == {*WRITERS, *ALIASES, "member"}


@pytest.mark.parametrize("kind", [Affine, Normalize])
@pytest.mark.parametrize("domain", DOMAINS)
def test_constants(check, kind, domain):
    x = DOMAINS[domain]
    one, channel, feature = floats(1) + 3, floats(3), floats(3, 5, 3).reshape(-1) + 5
    check(
        [
            *x,
            kind(channel, feature, CHANNEL, FEATURE),
            kind(None, one, NONE, SCALAR),
            kind(feature, None, FEATURE, NONE),
            kind(None, None),
        ],
        (3, 5, 3),
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_affine_without_constants_is_a_conversion(check, domain):
    check([*DOMAINS[domain], Affine(None, None)], (37,), exact=True)


@pytest.mark.parametrize("domain", DOMAINS)
def test_moving_and_choosing(check_branches, domain):
    operators = [
        Relu(),
        Sign(),
        MaxPool2d((3, 2), (2, 1), (1, 1)),
        MaxPool2d((2, 2), (3, 2)),
        Flatten(),
        Reshape((5, 21)),
        Transpose((2, 0, 1)),
        Transpose((1, 2, 0)),
        Pad2d((1, 0, 2, 3), 1.0),
        Pad2d((0, 2, 0, 1), 7.0 if domain == "uint8" else -1.0),
        Reduce("max", (1, 2)),
        Reduce("max", (0,), keep=True),
        Reduce("max", (0, 2)),
    ]
    branches = [[operator] for operator in operators]
    check_branches(DOMAINS[domain], branches, (3, 5, 7), exact=True)


@pytest.mark.parametrize("domain", DOMAINS)
def test_operators_that_read_floats(check_branches, domain):
    operators = [
        LeakyRelu(floats(1)),
        LeakyRelu(floats(3)),
        Clamp(-0.5, 1.5),
        AvgPool2d((2, 3), (2, 1), (1, 1)),
        AvgPool2d((3, 3), (2, 2), (1, 1), inside_only=True),
        Reduce("mean", (1, 2)),
        Reduce("sum", (0, 2), keep=True),
        Softmax(0),
        Softmax(2, log=True),
        Pad2d((1, 1, 1, 1), 0.3),
    ]
    check_branches(DOMAINS[domain], [[operator] for operator in operators], (3, 5, 7))


CURVES = "sigmoid tanh silu gelu gelu_tanh elu hardsigmoid hardswish softplus abs square".split()


def test_curves(check_branches):
    x = np.concatenate([np.linspace(-30, 30, 91), [0.0, -0.0, 3.0, -3.0]]).astype(np.float32)
    branches = [[Curve(name, 0.7 if name == "elu" else 1.0)] for name in CURVES]
    check_branches([], branches, (19,), x=x.reshape(5, 19))


def test_curves_of_not_a_number(check_branches):
    before = [Affine(np.array([np.inf], dtype=np.float32), None, SCALAR, NONE)]  # 0 * inf
    x = np.array([[0.0, 1.0, -1.0]], dtype=np.float32)
    operators = [Relu(), Clamp(-1.0, 1.0), LeakyRelu(floats(1)), Sign(), Reduce("max", (0,), True)]
    branches = [[operator] for operator in operators] + [[Curve(name)] for name in CURVES]
    check_branches(before, branches, (3,), x=x)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm(check, axes):
    columns = {1: 7, 2: 35, 3: 105}[axes]
    weight, shift = floats(columns), floats(columns, seed=1)
    operators = [LayerNorm(axes, 1e-5, weight, shift, columns)]
    check([*operators, LayerNorm(axes, 0.1, None, None, columns)], (3, 5, 7))
    check([INT8, *operators], (3, 5, 7))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(check, groups):
    weight, shift = floats(6), floats(6, seed=1)
    check([GroupNorm(groups, 1e-5, weight, shift), GroupNorm(groups, 0.1, weight, None)], (6, 5, 2))
    check([Sign(), GroupNorm(groups, 1e-5, None, None)], (6, 5, 2))


@pytest.mark.parametrize("kind", [Add, Multiply])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 5), (1, 4, 1), (1, 1, 1)])
def test_two_values(check, kind, shape):
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    second = [Reduce("mean", axes, keep=True)] if axes else [Relu()]
    check([*second, (kind(), 0, 1), (INT8, 2), (kind(), 2, 3), (kind(), 4, 4)], (3, 4, 5))


@pytest.mark.parametrize("first", DOMAINS)
@pytest.mark.parametrize("second", ["float32", "int8", "sign"])
def test_concat(check, first, second):
    left = [*DOMAINS[first], Affine(None, None)][0]
    right = [*DOMAINS[second], Affine(None, None)][0]
    joined = [(Concat(axis), 1, 2) for axis in range(3)]
    flat = [(Flatten(), 3), (Flatten(), 4), (Flatten(), 5)]
    ends = [(Concat(0), 6, 7), (Concat(0), 9, 8)]
    check([left, (right, 0), *joined, *flat, *ends], (3, 5, 7), exact=True)


def integer_sums(scale):
    """Return operators that give int32 numbers of about the scale."""
    from whit.runtime.operators import Linear
    from whit.runtime.storage import FORMATS
    from whit.runtime.weights import StoredWeight

    values = np.random.default_rng(3).integers(-scale, scale + 1, (6, 12)).astype(np.int8)
    return [INT16, Linear(StoredWeight(FORMATS[9], values), None)]


@pytest.mark.parametrize("flipped", [False, True])
def test_thresholds_and_levels(check_branches, flipped):
    random, branches = np.random.default_rng(1), []
    for dtype, high in {"f4": 1000, "i1": 100, "i2": 20000, "i4": 10**6}.items():
        for count in (1, 6):
            ordered = np.sort(random.integers(-high, high, (count, 3)), axis=1).astype(dtype)
            flips = None
            if flipped:
                flips = random.random(count) < 0.5
                flips[0] = True
                ordered = np.where(flips[:, None], ordered[:, ::-1], ordered)
            branches.append([Threshold(ordered[:, 1], flips)])
            branches.append([Levels(ordered, flips, -4, 3)])
    check_branches(integer_sums(4), branches, (12,), exact=True)


@pytest.mark.parametrize("domain", ["uint8", "int8", "sign"])
def test_integer_thresholds_of_small_integers(check, domain):
    thresholds = np.array([[-1, 1], [0, 3], [0, 100]], dtype=np.int8)
    check([*DOMAINS[domain], Levels(thresholds, None, -1, 1), Sign()], (3, 5), exact=True)
    check([*DOMAINS[domain], Threshold(thresholds[:, 1])], (3, 5), exact=True)


def test_float_thresholds_with_every_special_number(check):
    infinity = np.float32(np.inf)
    thresholds = np.array([-infinity, infinity, 0.0, 1e-45, 3.4e38], dtype=np.float32)
    x = np.array([[0.0, -0.0, 1e-45, -1e-45, 3.4e38]], dtype=np.float32)
    x = np.ascontiguousarray(np.repeat(x[:, None], 5, axis=1))
    not_a_number = [Affine(np.array([infinity]), None, SCALAR, NONE)]  # 0 * inf
    for flips in (None, np.array([True, True, False, True, False])):
        check([Threshold(thresholds, flips)], (5, 5), x=x, exact=True)
        check([*not_a_number, Threshold(thresholds, flips)], (5, 5), x=x, exact=True)
        levels = np.sort(thresholds)[None, :]
        if flips is not None:
            flips, levels = np.array([True]), levels[:, ::-1]
        check([*not_a_number, Levels(levels, flips, -2, 7)], (5, 5), x=x, exact=True)


LIMITS = [(0, 255), (-128, 127), (-7, 7), (-32768, 32767), (3, 3)]


def test_quantize_rounds_half_to_even_and_clamps(check_branches):
    halves = np.arange(-600, 600, dtype=np.float32) / 2
    wide = np.array([1e30, -1e30, 70000.0, -70000.0, 32766.5, -32767.5, 1e-40, -0.0], "f4")
    x = np.concatenate([halves, wide])[None]
    infinite = Affine(np.array([np.inf], dtype=np.float32), None, SCALAR, NONE)
    branches = [[Quantize(0.0, 1.0, *limits)] for limits in LIMITS]
    branches += [[Quantize(0.3, 1.7, *limits)] for limits in LIMITS]
    branches += [[infinite, Quantize(0.0, 1.0, *limits)] for limits in LIMITS]
    check_branches([], branches, (x.size,), x=x, exact=True)


def test_requantize(check_branches):
    branches = []
    for exponent in (1, 20, 31, 62):
        random = np.random.default_rng(exponent)
        top = min(2**29, 1 << exponent)
        for one, two in ((1, 0), (1, 1), (6, 0), (6, 1), (1, 6), (6, 6)):
            multipliers = random.integers(0, top, one).astype(np.int32)
            offsets = random.integers(-(2**60), 2**60, two) if two else None
            branches.append([Requantize(multipliers, offsets, exponent, -100, 115)])
    check_branches(integer_sums(100), branches, (12,), exact=True, x=floats(50, 12))


@pytest.mark.parametrize("domain", ["uint8", "int8", "int16", "sign"])
def test_requantize_of_every_domain(check, domain):
    operator = Requantize(np.array([1 << 30], dtype=np.int32), None, 34, 0, 200)
    check([*DOMAINS[domain], operator], (3, 5), exact=True)


@pytest.mark.parametrize("entries", [1, 17, 256])
def test_lookup(check, entries):
    check([Lookup(floats(entries))], (40,), "uint8", exact=True)
