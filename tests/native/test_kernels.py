"""Single kernels against NumPy, on random odd shapes, at each instruction set of this machine."""

import numpy as np
import pytest

from whit.runtime import native

INTEGERS = {  # kind: lowest and highest weight, lowest and highest left number, its type
    "ternary": (-1, 1, 0, 255, np.uint8),
    "int4": (-8, 7, 0, 255, np.uint8),
    "int8": (-128, 127, 0, 255, np.uint8),
    "wide": (-128, 127, -32768, 32767, np.int16),
}
FLOATS = ("float32", "two_four", "sparse")
SHAPES = ((1, 1, 4), (1, 300, 517), (3, 17, 36), (7, 130, 900), (65, 33, 260), (130, 70, 64))


def _shapes(generator: np.random.Generator, multiple: int = 1) -> list[tuple[int, int, int]]:
    drawn = [tuple(int(size) for size in generator.integers(1, (40, 90, 400))) for _ in range(8)]
    return [(m, n, -(-k // multiple) * multiple) for m, n, k in (*SHAPES, *drawn)]


def _product(
    level: str, kind: str, weights: np.ndarray, left: np.ndarray, **options: int
) -> np.ndarray:
    matrix = native.Matrix(kind, weights, level, max_rows=len(left), **options)
    assert matrix.level == level
    floats = kind in FLOATS or kind == "plane_floats"
    out = np.full((len(left), len(weights)), 77, dtype=np.float32 if floats else np.int32)
    matrix.multiply(left, out)
    return out


def _packed(signs: np.ndarray) -> np.ndarray:
    pads = -signs.shape[1] % 32
    bits = np.pad(signs < 0, ((0, 0), (0, pads)))
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint32)


def _exact(left: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return left.astype(np.int64) @ weights.astype(np.int64).T


@pytest.mark.parametrize("threads", [1, 2])
def test_signs_times_signs_are_exact(level: str, threads: int) -> None:
    generator = np.random.default_rng(threads)
    for m, n, k in _shapes(generator):
        weights, left = (generator.choice([-1, 1], (rows, k)).astype(np.int8) for rows in (n, m))
        out = _product(level, "signs", weights, _packed(left), threads=threads)
        np.testing.assert_array_equal(out, _exact(left, weights), err_msg=f"{m} {n} {k}")


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_kernels_are_exact(level: str, kind: str) -> None:
    lowest, highest, left_lowest, left_highest, dtype = INTEGERS[kind]
    generator = np.random.default_rng(3)
    for m, n, k in _shapes(generator):
        weights = generator.integers(lowest, highest, (n, k), dtype=np.int8, endpoint=True)
        left = generator.integers(left_lowest, left_highest, (m, k), dtype=dtype, endpoint=True)
        out = _product(level, kind, weights, left)
        np.testing.assert_array_equal(out, _exact(left, weights), err_msg=f"{m} {n} {k}")


@pytest.mark.parametrize("kind", INTEGERS)
def test_extreme_integers_do_not_saturate(level: str, kind: str) -> None:
    lowest, highest, left_lowest, left_highest, dtype = INTEGERS[kind]
    left = np.array([[left_highest] * 500, [left_lowest] * 500], dtype=dtype)
    weights = np.array([[lowest] * 500, [highest] * 500], dtype=np.int8)
    np.testing.assert_array_equal(_product(level, kind, weights, left), _exact(left, weights))


@pytest.mark.parametrize("planes", [2, 3, 5, 8, 16])
def test_bit_planes_use_as_many_as_asked(level: str, planes: int) -> None:
    generator = np.random.default_rng(planes)
    most = 2 ** (planes - 1)
    for m, n, k in ((1, 70, 300), (9, 33, 61)):
        weights = generator.integers(-most, most, (n, k), dtype=np.int16)
        left = generator.integers(0, 256, (m, k), dtype=np.uint8)
        matrix = native.Matrix("planes", weights, level, planes=planes)
        floats = native.Matrix("plane_floats", weights, level, planes=planes)
        for used in range(planes, 0, -1):
            whole, real = np.zeros((m, n), np.int32), np.zeros((m, n), np.float32)
            for kernel, rows, out in (
                (matrix, left, whole),
                (floats, left.astype(np.float32), real),
            ):
                kernel.use_planes(used)
                kernel.multiply(rows, out)
            expected = _exact(left, weights >> (planes - used))
            np.testing.assert_array_equal(whole, expected)
            largest = np.abs(left).astype(np.float64).sum(1).max() * 2.0 ** (used - 1)
            np.testing.assert_allclose(real, expected, rtol=0, atol=1e-6 * largest + 1e-9)


def _float_weights(kind: str, generator: np.random.Generator, n: int, k: int) -> np.ndarray:
    weights = generator.standard_normal((n, k)).astype(np.float32)
    if kind == "two_four":
        groups = generator.random((n, k // 4, 4)).argsort(axis=2) < 2
        weights *= groups.reshape(n, k)
    elif kind == "sparse":
        weights *= generator.random((n, k)) < 0.1
    return weights


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", FLOATS)
def test_float_kernels_are_as_exact_as_float32_sums(level: str, kind: str, threads: int) -> None:
    generator = np.random.default_rng(5)
    for m, n, k in _shapes(generator, multiple=4):
        weights = _float_weights(kind, generator, n, k)
        left = generator.standard_normal((m, k)).astype(np.float32)
        out = _product(level, kind, weights, left, threads=threads)
        expected = left.astype(np.float64) @ weights.astype(np.float64).T
        bound = np.abs(left).astype(np.float64) @ np.abs(weights).astype(np.float64).T
        assert np.all(np.abs(out - expected) <= 1e-6 * np.sqrt(k) * bound + 1e-30), (m, n, k)


@pytest.mark.parametrize("kind", FLOATS)
def test_nan_and_infinity_reach_the_result(level: str, kind: str) -> None:
    weights = np.array([[1.0, 2.0, 0.0, 0.0], [0.5, -1.0, 0.0, 0.0]], dtype=np.float32)
    left = np.array([[1.0, np.nan, 0, 0], [np.inf, 1.0, 0, 0], [1.0, 1.0, 0, 0]], np.float32)
    expected = [[np.nan, np.nan], [np.inf, np.inf], [3.0, -0.5]]
    np.testing.assert_array_equal(_product(level, kind, weights, left), np.float32(expected))


def test_two_threads_give_the_same_bits(level: str) -> None:
    generator = np.random.default_rng(8)
    weights = generator.standard_normal((1100, 1024)).astype(np.float32)
    left = generator.standard_normal((66, 1024)).astype(np.float32)
    one, two = (_product(level, "float32", weights, left, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
