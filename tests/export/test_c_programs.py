"""Whole programs as C: graphs, memory that is used again, subprograms, memory checked by clang."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whit.export import export_c
from whit.runtime import load
from whit.runtime.layout import CHANNEL, NONE
from whit.runtime.operators import (
    Add,
    Affine,
    Clamp,
    Concat,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Member,
    Pad2d,
    Quantize,
    Reduce,
    Relu,
    Requantize,
    Reshape,
    Route,
    Sign,
    Softmax,
    Threshold,
)
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight


def matrix(rows, columns, code=0, seed=0, taps=1):
    random = np.random.default_rng(seed)
    if FORMATS[code].integers:
        values = random.choice([-1, 1], (rows, columns)).astype(np.int8)
    else:
        values = random.normal(size=(rows, columns)).astype(np.float32)
    return StoredWeight(FORMATS[code], values, taps=taps)


def linear(rows, columns, code=0, seed=0):
    return Linear(matrix(rows, columns, code, seed), None)


def binary_network():
    """Convolutions and layers of signs on raw bytes, thresholds between them."""
    random = np.random.default_rng(0)
    return [
        Conv2d(matrix(9, 9, 9, 1, 9), None, (3, 3), pad=(1, 1)),
        Threshold(random.integers(-200, 200, 9).astype(np.int16)),
        Conv2d(matrix(14, 81, 1, 2, 9), None, (3, 3), (1, 1), (1, 1)),
        MaxPool2d((2, 2), (2, 2)),
        Threshold(random.integers(-9, 9, 14).astype(np.int8), random.random(14) < 0.5),
        Flatten(),
        linear(33, 14 * 25, 1, 3),
        Threshold(np.zeros(1, dtype=np.int32)),
        linear(5, 33, 1, 4),
    ]


def test_a_binary_network_needs_no_float_and_no_libm(check):
    model = check(binary_network(), (1, 10, 11), "uint8", exact=True)
    text = model.files.source.read_text()
    assert "math.h" not in text
    with_floats = {line for line in text.splitlines() if "float" in line and "output" not in line}
    assert with_floats == {
        "static void int32_to_float(const int32_t *x, float *y, int32_t count)",
        "        y[i] = (float)x[i];",
    }
    assert "no function of libm is called" in model.files.header.read_text()


def test_a_quantised_network_is_exact(check):
    scale = np.array([1 << 20], dtype=np.int32)
    random = np.random.default_rng(0)
    offsets = random.integers(-3000, 3000, 8) << 20
    values = random.integers(-128, 128, (8, 27)).astype(np.int8)
    again = random.integers(-8, 8, (10, 8 * 16)).astype(np.int8)
    operators = [
        Quantize(0.1, 31.0, -128, 127),
        Conv2d(StoredWeight(FORMATS[9], values, taps=9), None, (3, 3), (2, 2), (1, 1), -3),
        Requantize(scale, offsets, 28, 0, 127),
        MaxPool2d((2, 2), (2, 2)),
        Flatten(),
        Linear(StoredWeight(FORMATS[10], again), None),
        Requantize(scale, None, 26, -128, 127),
    ]
    check(operators, (3, 16, 16), exact=True)


def test_the_file_of_version_1(model_of):
    golden = Path(__file__).parents[1] / "golden"
    expected = np.load(golden / "binary_version1.npz")
    model = model_of(load(golden / "binary_version1.whit", "reference"))
    for found in model.run(expected[expected.files[0]]):
        np.testing.assert_allclose(found, expected[expected.files[1]], rtol=1e-5, atol=1e-5)


def residual_network():
    channels = np.linspace(0.5, 1.5, 4).astype(np.float32)
    convolution = Conv2d(matrix(4, 36, 0, 1, 9), None, (3, 3), pad=(1, 1))
    return [
        (Conv2d(matrix(4, 27, 0, 0, 9), None, (3, 3), pad=(1, 1)), 0),
        (Relu(), 1),
        (convolution, 2),
        (Affine(channels, None, CHANNEL, NONE), 3),
        (Relu(), 4),
        (convolution, 5),
        (Add(), 6, 2),
        (Relu(), 7),
        (Reshape((16, 4, 5)), 8),
        (Flatten(), 8),
        (Clamp(0.0, 2.0), 10),
        (Flatten(), 9),
        (Concat(0), 11, 12),
        (linear(6, 2 * 4 * 8 * 10), 13),
        (Softmax(0), 14),
    ]


def test_a_residual_network(check):
    model = check(residual_network(), (3, 8, 10))
    peak = model.program.activation_peak_bytes
    assert model.files.arena_bytes <= peak + 4 * 3 * 8 * 10


def test_values_that_live_long_keep_their_memory(check):
    steps = [(Affine(np.float32([k + 1.0]), None, 1, NONE), 0) for k in range(6)]
    steps += [(Relu(), 1), (Clamp(-1.0, 1.0), 1), (Add(), 7, 8), (Add(), 9, 1), (Sign(), 2)]
    steps += [(Add(), 10, 11), (Add(), 12, 3), (Add(), 13, 6), (Add(), 14, 4), (Add(), 15, 5)]
    check([*steps, (Add(), 16, 2)], (7, 3))


@pytest.mark.parametrize("operators", [[], [Flatten()], [Flatten(), Reshape((3, 2))], [Relu()]])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_programs_of_next_to_nothing(check, operators, dtype):
    model = check(operators, (2, 3), dtype, exact=True)
    in_arena = {"float32": 0, "uint8": 8, "int32": 24}[dtype] if operators == [Relu()] else 0
    assert model.files.arena_bytes == in_arena


def test_members_on_a_leading_axis(check):
    steps = [
        (linear(4, 6, 0, 0), 0),
        (Reshape((1, 4)), 1),
        (linear(4, 6, 0, 1), 0),
        (Reshape((1, 4)), 3),
        (Concat(0), 2, 4),
    ]
    check(steps, (6,), leading=1)


def route_steps(margin):
    """Return a route of a first network and three members, one of them with a route inside."""
    plain = ((0,), (1,))
    grouped = ((0,), (0, 1), (2,), (1, 2, 3))
    return [
        (linear(4, 6, 0, 0), 0),  # scores of the first network
        (Member(1), 0),
        (linear(4, 6, 0, 1), 2),
        (Member(3), 0),
        (Sign(), 4),
        (linear(9, 6, 1, 2), 5),
        (linear(4, 9, 0, 3), 6),
        (Member(6), 0),
        (Relu(), 8),
        (linear(4, 6, 0, 4), 9),
        (Member(2), 9),
        (Affine(np.float32([2.0]), None, 1, NONE), 11),
        (linear(4, 6, 0, 5), 12),
        (Route(margin, (), 0, plain, 1), 10, 9),
        (Route(margin, (0, 2, 1, 255), 3, grouped, 3), 1, 0),
        (Affine(np.float32([3.0]), None, 1, NONE), 15),
    ]


@pytest.mark.parametrize("margin", [0.0, 0.6, 1.1])
def test_routes_run_the_members_of_their_situation(check, margin):
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    check(route_steps(margin), (6,), x=x)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("margin", [0.0, 0.6, 1.1])
def test_a_route_with_a_temperature(check, margin, temperature):
    *steps, (outer, source, other), last = route_steps(margin)
    steps += [(replace(outer, temperature=temperature), source, other), last]
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    check(steps, (6,), x=x)


@pytest.mark.parametrize("margin", [0.0, 0.6, 1.1])
def test_a_route_with_deciding_scores(check, margin):
    strategies = ((0,), (0, 1), (1,), (0, 0, 1))
    steps = [
        (linear(4 + 3, 6, 0, 0), 0),
        (Member(1), 0),
        (linear(4, 6, 0, 1), 2),
        (Route(margin, (), 0, strategies, 1, 1.5, deciding=3), 1, 0),
    ]
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    check(steps, (6,), x=x)


def test_a_route_whose_scores_are_integers_and_whose_member_is_a_copy(check):
    steps = [
        (Sign(), 0),
        (linear(4, 4, 1, 0), 1),
        (Member(1), 1),
        (Flatten(), 3),
        (Member(1), 1),
        (linear(4, 4, 1, 1), 5),
        (Route(0.3, (0, 0, 1, 1), 2, ((0,), (1, 2), (2, 0)), 2), 2, 1),
    ]
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    check(steps, (4,), x=x)


def test_an_embedding_in_a_member_tells_a_bad_index(check):
    steps = [
        (Embedding(matrix(4, 5)), 0),
        (Reduce("mean", (0,)), 1),
        (Member(2), 0),
        (Embedding(matrix(3, 5, 0, 1)), 3),
        (Reduce("sum", (0,)), 4),
        (Route(1.0, (), 0, ((0,), (0, 1)), 1), 2, 0),
    ]
    model = check(steps, (2,), "int32", x=np.array([[0, 1], [2, 1]]))
    assert model.codes(np.array([3, 0])) == [-1, -1]


MAIN = """#include <stdio.h>
#include "model.h"

int main(void)
{
    static float output[MODEL_OUTPUT_SIZE];
    static NUMBER input[MODEL_INPUT_SIZE];
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < MODEL_INPUT_SIZE; i++) {
            input[i] = (NUMBER)((i * 7 + turn * 13) % 11 - 5);
        }
        if (model_predict(input, output) != 0) {
            return 1;
        }
    }
    printf("%d\\n", (int)MODEL_OUTPUT_SIZE);
    return 0;
}
"""

CHECKED = {
    "binary": (binary_network, (1, 10, 11), "uint8"),
    "residual": (residual_network, (3, 8, 10), "float32"),
    "route": (lambda: route_steps(0.6), (6,), "float32"),
    "sparse": (
        lambda: [
            Pad2d((1, 1, 1, 1), -2.0),
            Quantize(0.0, 9.0, -128, 127),
            Conv2d(matrix(4, 8, 2, 0, 4), None, (2, 2), (2, 1), (1, 1), 3, 2),
            Requantize(np.array([2**31 - 1], dtype=np.int32), None, 32, -128, 127),
        ],
        (2, 5, 6),
        "float32",
    ),
}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", CHECKED)
def test_no_undefined_behaviour_and_no_access_outside(
    compiler, name, program_of, tmp_path, installed
):
    if compiler not in installed():
        pytest.skip(f"{compiler} is not installed: apt-get install {compiler}")
    build, shape, dtype = CHECKED[name]
    export_c(program_of(build(), shape, dtype), tmp_path)
    c_type = "float" if dtype == "float32" else "uint8_t"
    (tmp_path / "main.c").write_text(MAIN.replace("NUMBER", c_type))
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1"]
    command += ["-fsanitize=undefined,address", "-fno-sanitize-recover=all", "main.c", "model.c"]
    subprocess.run([*command, "-lm", "-o", "main"], cwd=tmp_path, check=True)
    result = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0
