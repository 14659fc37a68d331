import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from whit.runtime import native

needs_extension = pytest.mark.skipif(
    not native.available() and os.environ.get("WHIT_REQUIRE_NATIVE") != "1",
    reason=str(native.reason()),
)


def signs(rows: int, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int32), size=(rows, n))


def words(values: np.ndarray, pad: int = 0) -> np.ndarray:
    """Pack signs into 64-bit words, lowest bit first, bit 1 for -1, in the slow and obvious way."""
    rows, n = values.shape
    packed = np.zeros((rows, -(-n // 64)), dtype=np.uint64)
    for k in range(packed.shape[1] * 64):
        bits = (values[:, k] < 0) if k < n else np.full(rows, pad, dtype=bool)
        packed[:, k // 64] |= bits.astype(np.uint64) << np.uint64(k % 64)
    return packed


@needs_extension
@pytest.mark.parametrize("rows", [1, 7], ids=["batch of one", "batch of many"])
def test_fast_and_reference_equal_numpy_for_every_tail(rows: int) -> None:
    for n in range(1, 131):
        a, b = signs(rows, n, seed=n), signs(9, n, seed=1000 + n)
        expected = a @ b.T
        for pad in (0, 1):
            packed_a, packed_b = words(a, pad), words(b, pad)
            fast = native.binary_gemm(packed_a, packed_b, n)
            assert fast.dtype == np.int32
            np.testing.assert_array_equal(fast, expected)
            np.testing.assert_array_equal(
                native.binary_gemm_reference(packed_a, packed_b, n), expected
            )


@needs_extension
@pytest.mark.parametrize("rows_b", [1, 2, 3, 4, 5, 8, 11])
def test_every_remainder_of_the_four_row_tile(rows_b: int) -> None:
    a, b = signs(5, 300, seed=1), signs(rows_b, 300, seed=2)
    np.testing.assert_array_equal(native.binary_gemm(words(a), words(b), 300), a @ b.T)


@needs_extension
def test_long_rows_and_strided_input() -> None:
    a, b = signs(6, 5000, seed=3), signs(10, 5000, seed=4)
    strided = np.repeat(words(a), 2, axis=0)[::2]
    assert not strided.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(native.binary_gemm(strided, words(b), 5000), a @ b.T)


@needs_extension
def test_no_rows_and_no_values() -> None:
    nothing = np.zeros((0, 2), dtype=np.uint64)
    some = np.zeros((3, 2), dtype=np.uint64)
    assert native.binary_gemm(nothing, some, 100).shape == (0, 3)
    assert native.binary_gemm(some, nothing, 100).shape == (3, 0)
    empty = np.zeros((2, 0), dtype=np.uint64)
    np.testing.assert_array_equal(native.binary_gemm(empty, empty, 0), np.zeros((2, 2)))


@needs_extension
def test_the_result_outlives_its_call_and_threads_do_not_disturb_one_another() -> None:
    a, b = words(signs(64, 1000, seed=5)), words(signs(64, 1000, seed=6))
    expected = native.binary_gemm_reference(a, b, 1000)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: native.binary_gemm(a, b, 1000), range(32)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


@needs_extension
def test_wrong_input_is_refused_with_what_was_given() -> None:
    good = np.zeros((2, 2), dtype=np.uint64)
    with pytest.raises(ValueError, match="equally many words"):
        native.binary_gemm(good, np.zeros((2, 3), dtype=np.uint64), 100)
    for n in (-1, 129, 2**40):
        with pytest.raises(ValueError, match="n must be between 0 and the 128 bits"):
            native.binary_gemm(good, good, n)
    with pytest.raises(TypeError, match="uint64 matrix.*got int64"):
        native.binary_gemm(np.zeros((2, 2), dtype=np.int64), good, 100)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="with 1 axes"):
        native.binary_gemm(good[0], good, 100)


@needs_extension
def test_cpu_features_are_known_names() -> None:
    assert set(native.cpu_features()) <= {"popcnt", "avx2", "avx512f", "avx512vpopcntdq"}


WITHOUT_EXTENSION = """
import sys
sys.modules["whit._native"] = None
from whit.runtime import native
assert not native.available()
print(native.reason())
assert native.cpu_features() == []
import numpy as np
one = np.zeros((1, 1), dtype=np.uint64)
try:
    native.binary_gemm(one, one, 1)
except RuntimeError as error:
    assert "needs the C++ extension" in str(error)
else:
    raise AssertionError("binary_gemm ran without an extension")
"""


@pytest.mark.parametrize(("required", "fails"), [("0", False), ("1", True)])
def test_a_missing_extension_has_a_reason_or_is_an_error(required: str, fails: bool) -> None:
    environment = {**os.environ, "WHIT_REQUIRE_NATIVE": required}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr
    if fails:
        assert "WHIT_REQUIRE_NATIVE is set" in done.stderr
    else:
        assert "could not be imported" in done.stdout
