"""Every operator and weight format as a small program: ONNX Runtime against the NumPy runtime."""

from dataclasses import replace

import numpy as np
import pytest

from whit.runtime.operators import (
    Add,
    Affine,
    AvgPool2d,
    Clamp,
    Concat,
    Conv2d,
    Curve,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    Levels,
    Linear,
    Lookup,
    MaxPool2d,
    Member,
    Multiply,
    Normalize,
    Pad2d,
    Quantize,
    Reduce,
    Relu,
    Reshape,
    Route,
    Sign,
    Softmax,
    Threshold,
    Transpose,
)
from whit.runtime.operators.activations import CURVES
from whit.runtime.weights import StoredWeight

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_programs import (  # noqa: E402
    BYTES,
    NAMES,
    SIGNS,
    SMALL,
    WORDS,
    both,
    operators_of,
    program_of,
    weight,
)

from whit.export.onnx_build import build  # noqa: E402
from whit.export.onnx_check import session_of  # noqa: E402
from whit.export.onnx_export import export_onnx  # noqa: E402
from whit.export.onnx_model import model_of  # noqa: E402

FLOATS_3 = [
    Relu(),
    Flatten(),
    Reshape((5, 21)),
    Transpose((2, 0, 1)),
    Sign(),
    LeakyRelu(np.array([0.1], np.float32)),
    LeakyRelu(np.array([0.1, -0.5, 2.0], np.float32)),
    Clamp(-0.25, 0.75),
    Softmax(0),
    Softmax(2, log=True),
    MaxPool2d((3, 2), (2, 3), (1, 1)),
    AvgPool2d((3, 2), (2, 2), (1, 1)),
    AvgPool2d((3, 3), (1, 2), (1, 0), inside_only=True),
    Reduce("mean", (1, 2)),
    Reduce("max", (0,), keep=True),
    Reduce("sum", (0, 2)),
    Pad2d((1, 2, 0, 3), -0.5),
    GroupNorm(3, 1e-5, None, None),
    GroupNorm(1, 1e-5, np.arange(3, dtype=np.float32), np.ones(3, dtype=np.float32)),
    LayerNorm(1, 1e-5, None, None, 5),
    LayerNorm(2, 1e-3, np.arange(35, dtype=np.float32), np.ones(35, dtype=np.float32), 35),
    Affine(np.array([2.0], np.float32), np.arange(3, dtype=np.float32), 1, 2),
    Affine(None, np.arange(105, dtype=np.float32), 0, 3),
    Normalize(np.arange(1, 4, dtype=np.float32), np.array([0.5], np.float32), 2, 1),
    Threshold(np.array([0.25], np.float32)),
    Threshold(np.array([-np.inf, 0.1, 0.2], np.float32), np.array([True, False, True])),
    *(Curve(name, 0.7 if name == "elu" else 1.0) for name in CURVES),
    BYTES,
    SMALL,
    WORDS,
    Quantize(0.0, 4.0, -8, 7),
]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("operator", FLOATS_3, ids=lambda op: f"{op.kind}")
def test_operators_on_floats(operator, batch):
    expected, found = both(program_of([operator], (3, 7, 5)), batch)
    assert np.allclose(expected, found, atol=2e-6, rtol=2e-6)
    if operator.kind in ("sign", "threshold", "quantize", "relu", "max_pool2d", "transpose"):
        assert np.array_equal(expected, found)


KEEPING = [
    Relu(),
    MaxPool2d((2, 3), (2, 2), (1, 1)),
    Reshape((7, 15)),
    Transpose((1, 2, 0)),
    Reduce("max", (1,)),
    Pad2d((0, 1, 2, 0), 1.0),
    Curve("square"),
    Sign(),
]


@pytest.mark.parametrize("first", [SIGNS, BYTES, SMALL, WORDS], ids=lambda op: op.kind)
@pytest.mark.parametrize("operator", KEEPING, ids=lambda op: op.kind)
def test_operators_on_signs_and_integers(first, operator):
    expected, found = both(program_of([first, operator], (3, 7, 5)), 5)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("operator", KEEPING, ids=lambda op: op.kind)
@pytest.mark.parametrize("columns_limit", [3, 127])
def test_operators_on_exact_sums(operator, columns_limit):
    """127 * 255 * 1000 passes 2^24: the sums must then be int32 in the graph."""
    dense = weight("int8", 105, 1000, low=-columns_limit, high=columns_limit)
    steps = [Linear(dense, None), Reshape((3, 7, 5)), operator]
    program = program_of(steps, (1000,), "uint8")
    assert ("MatMulInteger" in operators_of(program)) == (columns_limit == 127)
    expected, found = both(program, 3)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("operator", [Add(), Multiply(), Concat(0), Concat(2)])
@pytest.mark.parametrize("pair", [(BYTES, BYTES), (SIGNS, SMALL), (SIGNS, SIGNS), (WORDS, WORDS)])
def test_operators_on_two_values(operator, pair):
    steps = [(pair[0], 0), (pair[1], 0), (operator, 1, 2)]
    expected, found = both(program_of(steps, (3, 4, 5)), 5)
    assert np.array_equal(expected, found)


def test_add_repeats_axes_of_size_1():
    steps = [(Reduce("mean", (1, 2), keep=True), 0), (Multiply(), 0, 1)]
    expected, found = both(program_of(steps, (3, 4, 5)), 5)
    assert np.allclose(expected, found, atol=1e-6)


def test_concat_of_sums_of_both_widths():
    wide = weight("int8", 4, 600, low=100, high=127)
    narrow = weight("ternary", 4, 600)
    steps = [(Linear(wide, None), 0), (Linear(narrow, None), 0), (Concat(0), 1, 2)]
    program = program_of(steps, (600,), "uint8")
    assert operators_of(program).count("MatMulInteger") == 1
    expected, found = both(program, 3)
    assert np.array_equal(expected, found)


FORMAT_CASES = [
    (name, {"low": -8, "high": 7} if "int4" in name else {"low": -100, "high": 100})
    if "int" in name or name == "planes"
    else (name, {})
    for name in NAMES
]


@pytest.mark.parametrize(("name", "limits"), FORMAT_CASES, ids=list(NAMES))
@pytest.mark.parametrize("scaled", [0, 1, 9])
def test_every_format_in_linear(name, limits, scaled):
    matrix = weight(name, 9, 32, scaled if NAMES[name].integers else 0, **limits)
    bias = np.linspace(-1, 1, 9, dtype=np.float32)
    for steps, shape in (
        ([Linear(matrix, bias)], (32,)),
        ([Linear(matrix, None)], (3, 32)),
        ([SIGNS, Linear(matrix, None)], (32,)),
        ([BYTES, Linear(matrix, bias)], (2, 3, 32)),
    ):
        expected, found = both(program_of(steps, shape), 4)
        assert np.allclose(expected, found, rtol=1e-5, atol=2e-6 * np.abs(expected).max())
        if len(steps) == 2 and NAMES[name].integers:
            assert np.array_equal(expected, found)


@pytest.mark.parametrize(("name", "limits"), FORMAT_CASES, ids=list(NAMES))
def test_every_format_in_conv2d(name, limits):
    matrix = weight(name, 6, 2 * 9, 6 if NAMES[name].integers else 0, taps=9, **limits)
    conv = Conv2d(matrix, np.ones(6, np.float32), (3, 3), (2, 1), (2, 1), 1, 2)
    for steps in ([conv], [SIGNS, replace(conv, pad_value=0)], [BYTES, replace(conv, pad_value=9)]):
        expected, found = both(program_of(steps, (4, 9, 8)), 3)
        assert np.allclose(expected, found, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "limits"), FORMAT_CASES, ids=list(NAMES))
def test_every_format_in_embedding(name, limits):
    matrix = weight(name, 7, 12, 7 if NAMES[name].integers else 0, **limits)
    expected, found = both(program_of([Embedding(matrix)], (5,), "int32"), 3)
    assert np.array_equal(expected, found)
    table = build(program_of([Embedding(matrix)], (5,), "int32"), "qdq").graph.constants
    if "int" in name or "codebook" in name:
        assert max(array.nbytes for array in table.values() if array.size >= 7 * 12) == 7 * 12


def test_planes_above_8_bits_take_two_bytes_and_sum_exactly():
    values = np.array([[32767, -32768, 255, -1] * 5] * 3, np.int16)
    matrix = StoredWeight(NAMES["planes"], values)
    program = program_of([Linear(matrix, None)], (20,), "uint8")
    expected, found = both(program, 5)
    assert np.array_equal(expected, found)
    floats = program_of([Linear(replace(matrix, scale=np.array([0.5], np.float32)), None)], (20,))
    expected, found = both(floats, 5)
    assert np.allclose(expected, found, rtol=1e-5, atol=1e-2)
    sizes = [a.nbytes for a in build(floats, "qdq").graph.constants.values()]
    assert max(sizes) == 2 * values.size


@pytest.mark.parametrize("grouped", [1, 2, 4])
@pytest.mark.parametrize("low", [-3, -128])
def test_exact_convolutions_of_16_bit_values(grouped, low):
    per_group = 4 // grouped
    matrix = weight("planes", 8, per_group * 6, low=low, high=127, taps=6)
    conv = Conv2d(matrix, None, (2, 3), (1, 2), (1, 0), 5)
    expected, found = both(program_of([WORDS, conv], (4, 6, 7)), 3)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_integer_thresholds_with_flips(dtype):
    thresholds = np.array([np.iinfo(dtype).min, -2, 3, 0, np.iinfo(dtype).min], dtype)
    flipped = np.array([False, True, False, True, True])
    matrix = weight("ternary", 5, 40)
    steps = [SIGNS, Linear(matrix, None), Threshold(thresholds, flipped)]
    expected, found = both(program_of(steps, (40,)), 50)
    assert np.array_equal(expected, found)
    assert (found[:, 0] == 1).all()
    assert (found[:, 4] == -1).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 200, 255])
@pytest.mark.parametrize("channels", [1, 4])
def test_levels(count, channels):
    random = np.random.default_rng(count)
    thresholds = random.normal(size=(channels, count)).astype(np.float32)
    flipped = np.arange(channels) % 2 == 1 if channels > 1 else None
    step = 1 if count > 100 else 3
    for low in (0, -5):
        operator = Levels(thresholds, flipped, low, step)
        expected, found = both(program_of([operator], (4, 6)), 5)
        assert np.array_equal(expected, found)


def test_levels_of_exact_sums_beyond_float32():
    matrix = weight("int8", 4, 600, low=100, high=127)
    sums = 255 * matrix.values.astype(np.int64).sum(1)
    thresholds = (sums[:, None] + np.array([-1, 0, 1])).astype(np.int32)
    operator = Levels(thresholds, np.array([False, True, False, True]), 0, 1)
    program = program_of([Linear(matrix, None), operator], (600,), "uint8")
    x = np.full((1, 600), 255, np.uint8)
    model = model_of(program, build(program, "qdq"))
    (found,) = session_of(model.SerializeToString()).run(["output"], {"input": x})
    assert found.tolist() == program(x).tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize("entries", [1, 100, 256])
def test_lookup(entries):
    table = np.random.default_rng(0).normal(size=entries).astype(np.float32)
    expected, found = both(program_of([Lookup(table)], (3, 5), "uint8"), 20)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_route(groups, margin, temperature):
    def body(seed):
        return Linear(weight("float32", 4, 6, seed=seed), None)

    group_of = (0, 1, 255, 1) if groups else ()
    strategies = ((0,), (0, 1), (2, 2, 1)) if groups else ((0,), (1, 2))
    steps = [
        (body(0), 0),
        (Member(2), 0),
        (body(1), 2),
        (Relu(), 3),
        (Member(1), 0),
        (body(2), 5),
        (Route(margin, group_of, groups, strategies, 2, temperature), 1, 0),
    ]
    program = program_of(steps, (6,))
    expected, found = both(program, 50)
    assert np.allclose(expected, found, atol=2e-6)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
def test_a_route_with_deciding_scores(margin):
    strategies = ((0,), (0, 1), (1,), (0, 0, 1))
    steps = [
        (Linear(weight("float32", 4 + 3, 6, seed=0), None), 0),
        (Member(1), 0),
        (Linear(weight("float32", 4, 6, seed=1), None), 2),
        (Route(margin, (), 0, strategies, 1, 1.5, deciding=3), 1, 0),
    ]
    expected, found = both(program_of(steps, (6,)), 50)
    assert np.allclose(expected, found, atol=2e-6)


def test_a_route_inside_of_a_member():
    def body(seed):
        return Linear(weight("float32", 3, 6, seed=seed), None)

    steps = [
        (body(0), 0),
        (Member(4), 0),
        (body(1), 2),
        (Member(1), 2),
        (body(2), 4),
        (Route(0.4, (), 0, ((0,), (0, 1)), 1), 3, 2),
        (Member(1), 0),
        (body(3), 7),
        (Route(0.5, (), 0, ((0,), (1, 2)), 2), 1, 0),
    ]
    expected, found = both(program_of(steps, (6,)), 50)
    assert np.allclose(expected, found, atol=2e-6)


def test_the_leading_axis_stands_before_the_batch():
    program = program_of([Reshape((3, 4))], (12,), leading=1)
    expected, found = both(program, 5)
    assert found.shape == (3, 5, 4)
    assert np.array_equal(expected, found)


def test_a_program_without_operators_and_one_that_only_casts():
    for dtype in ("float32", "uint8", "int32"):
        expected, found = both(program_of([], (3, 2), dtype), 4)
        assert np.array_equal(expected, found)


def test_export_runs_its_check_on_every_kind_of_input(tmp_path):
    matrix = weight("float16", 7, 12)
    for dtype, steps, shape in (
        ("int32", [Embedding(matrix), Relu()], (5,)),
        ("uint8", [Lookup(np.ones(4, np.float32))], (3, 5)),
        ("float32", [Relu()], (3,)),
    ):
        done = export_onnx(program_of(steps, shape, dtype), tmp_path / f"{dtype}.onnx")
        assert done.checked == 16
        assert done.largest_difference == 0
