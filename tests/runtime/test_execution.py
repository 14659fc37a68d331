"""Graphs: order, lifetimes of values, members' axis, planes, and input of every dtype."""

import tracemalloc

import numpy as np
import pytest

from whit.errors import ArtifactError, WhitError
from whit.runtime import decode_program
from whit.runtime import program as program_module
from whit.runtime.execution import make_schedule
from whit.runtime.operators import (
    Add,
    Affine,
    Concat,
    Curve,
    Embedding,
    Flatten,
    Linear,
    Member,
    Multiply,
    Quantize,
    Reduce,
    Relu,
    Reshape,
    Route,
    Sign,
    Threshold,
    Transpose,
)
from whit.runtime.scopes import chain
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

CODES = {form.name: code for code, form in FORMATS.items()}
X = np.random.default_rng(0).normal(size=(33, 6)).astype(np.float32)


def linear(rows, columns, seed=0, name="float32", bias=None):
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, columns)).astype(np.float32)
    if FORMATS[CODES[name]].integers:
        values = random.integers(-8, 8, size=(rows, columns)).astype(np.int8)
    return Linear(StoredWeight(FORMATS[CODES[name]], values), bias)


def test_a_residual_network(program):
    first, second = linear(6, 6, 1), linear(6, 6, 2)
    steps = [(first, 0, 0), (Relu(), 1, 0), (second, 2, 0), (Add(), 3, 0), (Multiply(), 4, 2)]
    hidden = np.maximum(X @ first.weight.values.T, 0)
    expected = (hidden @ second.weight.values.T + X) * hidden
    np.testing.assert_allclose(program(steps, (6,))(X), expected, rtol=1e-5, atol=1e-5)


def test_one_value_may_be_both_inputs(program):
    np.testing.assert_array_equal(program([(Add(), 0, 0)], (6,))(X), 2 * X)
    np.testing.assert_array_equal(program([(Concat(0), 0, 0)], (6,))(X), np.tile(X, 2))


def test_values_that_nobody_reads_do_no_harm(program):
    loaded = program([(Relu(), 0, 0), (Sign(), 0, 0), (Curve("square"), 0, 0)], (6,))
    np.testing.assert_array_equal(loaded(X), X * X)


def test_a_program_without_operators_gives_its_input(program):
    loaded = program([], (6,))
    np.testing.assert_array_equal(loaded(X), X)
    assert loaded.activation_peak_bytes == 0
    assert loaded.steps == () and loaded.trace(X) == []


def test_every_value_is_freed_after_its_last_reader(program):
    steps = [(Relu(), 0, 0), (Sign(), 1, 0), (Curve("tanh"), 1, 0), (Add(), 3, 0), (Relu(), 4, 0)]
    loaded = program(steps, (6,))
    schedule = make_schedule(loaded.steps, chain(5))
    # value 2 has no reader; 1 is read last by step 2, the input and 3 by step 3.
    found = {index: set(numbers) for index, numbers in schedule.released.items()}
    assert found == {1: {2}, 2: {1}, 3: {0, 3}, 4: {4}}


def test_memory_holds_the_live_values_only(program):
    x = np.ones((2, 1 << 20), dtype=np.float32)
    loaded = program([(Affine(np.float32([2]), None, 1, 0), k, 0) for k in range(20)], (1 << 20,))
    tracemalloc.start()
    loaded(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * x.nbytes  # 20 values would be 20 times


def test_peak_bytes_count_what_is_kept_for_later(program):
    # Input 6 floats (24 bytes). A chain holds source and result.
    assert program([Relu(), Relu()], (6,)).activation_peak_bytes == 48
    # Kept for the add: input (24) + signs of one byte, then result 24 + 24 + 1.
    steps = [(Sign(), 0, 0), (Curve("tanh"), 0, 0), (Add(), 2, 1)]
    assert program(steps, (6,)).activation_peak_bytes == 24 + 24 + 1
    quantize = Quantize(0.0, 1.0, -3, 3)
    steps = [(quantize, 0, 0), (Relu(), 1, 0), (Concat(0), 2, 1)]
    assert program(steps, (6,)).activation_peak_bytes == max(24 + 6, 6 + 6, 6 + 6 + 12)


def test_peak_bytes_count_the_bodies_of_members(program):
    route = Route(0.5, (), 0, ((0,), (1,)), 1)
    steps = [
        (linear(3, 6), 0, 0),
        (Member(2), 0, 0),
        (linear(100, 6, 1), 2, 0),
        (linear(3, 100, 2), 3, 0),
        (route, 1, 0),
    ]
    loaded = program(steps, (6,))
    # Input 24, scores 12, answer 12; in the body 400 and 12.
    assert loaded.activation_peak_bytes == 24 + 12 + 12 + 400 + 12
    assert [c.macs for c in loaded.operators] == [18, 0, 600, 300, 0]
    assert [c.conditional for c in loaded.operators] == [False, False, True, True, False]


def test_any_chunk_gives_the_same_rows(program, monkeypatch):
    route = Route(0.9, (), 0, ((0,), (0, 1)), 1)
    steps = [(linear(3, 6), 0, 0), (Member(1), 0, 0), (linear(3, 6, 1), 2, 0), (route, 1, 0)]
    whole = program(steps, (6,))(X)
    monkeypatch.setattr(program_module, "_CHUNK_BYTES", 1)
    np.testing.assert_allclose(program(steps, (6,))(X), whole, atol=1e-6)
    assert program(steps, (6,))(X[:0]).shape == (0, 3)


def test_a_leading_axis_stands_before_the_batch(program, monkeypatch):
    steps = [Reshape((2, 3)), Relu()]
    expected = np.maximum(X, 0).reshape(33, 2, 3).transpose(1, 0, 2)
    loaded = program(steps, (6,), leading=1)
    assert loaded.leading == 1 and loaded.output_shape == (2, 3)
    np.testing.assert_array_equal(loaded(X), expected)
    assert loaded(X[:0]).shape == (2, 0, 3)
    monkeypatch.setattr(program_module, "_CHUNK_BYTES", 1)
    np.testing.assert_array_equal(program(steps, (6,), leading=1)(X), expected)
    assert program([Relu()], (6,), leading=1)(X).shape == (6, 33)


def test_fewer_planes_change_planes_only(program):
    random = np.random.default_rng(3)
    values = random.integers(-128, 128, size=(5, 6)).astype(np.int8)
    values[0, 0] = -128
    planes = Linear(StoredWeight(FORMATS[CODES["planes"]], values), None)
    last = linear(3, 5, 1, name="int8")
    loaded = program([planes, last], (6,))
    whole = loaded(X)
    np.testing.assert_array_equal(loaded(X, planes=8), whole)
    np.testing.assert_array_equal(loaded(X, planes=99), whole)
    for count in (1, 3, np.int64(7), 3):
        step = 2 ** (8 - int(count))
        coarse = values.astype(int) // step * step + (step - 1) / 2
        expected = X @ coarse.T.astype(np.float32) @ last.weight.values.T.astype(np.float32)
        np.testing.assert_allclose(loaded(X, planes=count), expected, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(loaded(X), whole)


@pytest.mark.parametrize("planes", [0, -1, 2.0, "3", True, np.nan])
def test_planes_that_are_no_count_are_explained(program, planes):
    with pytest.raises(WhitError, match="planes is"):
        program([linear(3, 6)], (6,))(X, planes=planes)


def test_indices_are_read_as_int32(program):
    table = StoredWeight(FORMATS[0], np.arange(12, dtype=np.float32).reshape(4, 3))
    loaded = program([Embedding(table), Reduce("sum", (0,))], (2,), dtype="int32")
    assert loaded.input.dtype == "int32"
    for dtype in (np.int64, np.uint8, np.int32):
        indices = np.array([[0, 3], [1, 1]], dtype=dtype)
        assert loaded(indices).tolist() == [[9, 11, 13], [6, 8, 10]]
    assert loaded.operators[0].macs == loaded.operators[0].accumulation_length == 0
    assert loaded.operators[0].weight_count == 12
    with pytest.raises(WhitError, match="indices from 0 to 3"):
        loaded(np.array([[0, 4]]))
    for bad in (np.array([[0, 2**31]]), np.zeros((1, 2)), np.array([[True, False]])):
        with pytest.raises(WhitError, match="integers from -2147483648 to 2147483647"):
            loaded(bad)


def test_bytes_are_read_from_0_to_255(program):
    loaded = program([linear(2, 6, 1, name="int8"), Relu()], (6,), dtype="uint8")
    x = np.random.default_rng(0).integers(0, 256, (3, 6))
    weight = loaded.steps[0].operator.weight.values.astype(int)
    np.testing.assert_array_equal(loaded(x), np.maximum(x @ weight.T, 0))
    assert loaded.trace(x)[0].dtype == np.int32
    for bad in (x - 300, x + 256, x.astype(float)):
        with pytest.raises(WhitError, match="integers from 0 to 255"):
            loaded(bad)


def test_costs_of_linear_on_several_axes(program):
    steps = [Transpose((1, 0)), linear(4, 3, name="int8", bias=np.ones(4, dtype=np.float32))]
    cost = program(steps, (3, 5)).operators[1]
    assert (cost.macs, cost.accumulation_length, cost.weight_bits) == (60, 3, 8)
    assert (cost.weight_bytes, cost.constant_bytes) == (12, 16)


def test_costs_of_planes_and_sixteen_bits(program):
    values = np.array([[-4, 3, 1, 0, 0, 2]], dtype=np.int8)
    steps = [Quantize(0.0, 1.0, -300, 300), Linear(StoredWeight(FORMATS[11], values), None)]
    cost = program(steps, (6,)).operators[1]
    assert (cost.weight_bits, cost.activation_bits, cost.nonzero_weights) == (3, 16, 4)


def test_steps_say_what_they_read(program):
    steps = [(Relu(), 0, 0), (Sign(), 0, 0), (Add(), 1, 2)]
    found = program(steps, (6,)).steps
    assert [(step.source, step.other) for step in found] == [(0, 0), (0, 0), (1, 2)]
    assert [step.result.domain for step in found] == ["float32", "sign", "float32"]
    assert [step.cost.name for step in found] == ["relu_0", "sign_1", "add_2"]


def test_members_that_answer_with_another_shape_are_refused(build_file):
    route = Route(0.5, (), 0, ((0,), (1,)), 1)
    steps = [(linear(3, 6), 0, 0), (Member(1), 0, 0), (linear(4, 6), 2, 0), (route, 1, 0)]
    with pytest.raises(ArtifactError, match=r"answers with the shape \(4,\)"):
        decode_program(build_file(steps, (6,)))


def test_version_1_reads_whole_numbers_as_floats(build_file):
    signs = StoredWeight(FORMATS[1], np.ones((2, 6), dtype=np.int8))
    x = np.random.default_rng(0).integers(0, 256, (3, 6))
    old = decode_program(build_file([Linear(signs, None)], (6,), dtype="uint8", version=1))
    assert [step.result.domain for step in old.steps] == ["float32", "float32"]
    np.testing.assert_array_equal(old(x), np.tile(x.sum(1, keepdims=True), 2))
    assert old.info["format_version"] == "1"
    new = decode_program(build_file([Linear(signs, None)], (6,), dtype="uint8"))
    assert [step.result.domain for step in new.steps] == ["int32"]
    np.testing.assert_array_equal(new(x), old(x))
    assert new.info["format_version"] == "3"


def test_version_1_keeps_exact_sums_of_signs(build_file):
    signs = StoredWeight(FORMATS[1], np.ones((6, 6), dtype=np.int8))
    chain_1 = [Sign(), Linear(signs, None), Relu(), Threshold(np.array([1], dtype=np.int8))]
    old = decode_program(build_file([*chain_1, Linear(signs, None)], (6,), version=1))
    domains = [step.result.domain for step in old.steps]
    assert domains == ["sign", "int32", "int32", "sign", "int32"]
    sums = [Sign(), Linear(signs, None), Linear(signs, None)]
    old = decode_program(build_file(sums, (6,), version=1), "reference")
    assert [step.result.domain for step in old.steps][-1] == "float32"
    np.testing.assert_array_equal(old(X), np.tile(6 * np.where(X >= 0, 1, -1).sum(1)[:, None], 6))


BEYOND_1 = {
    "beyond what version 1 knows": [
        ([Curve("tanh")], {}),
        ([linear(2, 6, name="int8")], {}),
    ],
    "chains only": [([(Relu(), 0, 0), (Relu(), 0, 0)], {})],
    "linear reads one axis": [([Reshape((1, 6)), linear(2, 6)], {})],
    "impossible input description": [([Flatten()], {"leading": 1}), ([], {"dtype": "int32"})],
}


@pytest.mark.parametrize(
    ("message", "case"), [(m, k) for m in BEYOND_1 for k in range(len(BEYOND_1[m]))]
)
def test_version_1_does_not_know_version_2(build_file, message, case):
    steps, header = BEYOND_1[message][case]
    with pytest.raises(ArtifactError, match=message):
        decode_program(build_file(steps, (6,), version=1, **header))


def test_a_second_value_of_an_operator_that_reads_one_is_refused(build_file):
    with pytest.raises(ArtifactError, match="holds values it does not use"):
        decode_program(build_file([(Relu(), 0, 0), (Relu(), 1, 1)], (6,)))


@pytest.mark.parametrize("source, other", [(1, 0), (0, 1), (65535, 0)])
def test_values_that_come_later_are_refused(build_file, source, other):
    with pytest.raises(ArtifactError, match="does not exist before it"):
        decode_program(build_file([(Add(), source, other)], (6,)))
