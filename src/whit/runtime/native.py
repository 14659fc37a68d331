"""The C++ core, as NumPy functions; the only file that imports `whit._native`.

The extension is optional: a machine without a compiler installs whit without it. Nothing falls
back by itself. A caller asks `available()` and chooses; `reason()` says why there is no extension,
and `whit doctor` prints it. With WHIT_REQUIRE_NATIVE=1 in the environment, importing this module
without the extension is an error, so that CI cannot pass on the slow path by accident.
"""

import os
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


def _load() -> tuple[ModuleType | None, str | None]:
    try:
        from whit import _native
    except ImportError as error:
        reason = f"the C++ extension whit._native could not be imported: {error}"
        if os.environ.get("WHIT_REQUIRE_NATIVE", "").lower() not in ("", "0", "false", "no", "off"):
            raise ImportError(
                f"{reason}. WHIT_REQUIRE_NATIVE is set, so this is an error: install a C++17 "
                "compiler and build whit again, or unset WHIT_REQUIRE_NATIVE"
            ) from error
        return None, reason
    return _native, None


_extension, _reason = _load()


def available() -> bool:
    """Say whether the C++ extension is here."""
    return _extension is not None


def reason() -> str | None:
    """Say why the extension is not here; None when it is."""
    return _reason


def cpu_features() -> list[str]:
    """Name the processor features that the kernels choose by; empty without the extension."""
    return [] if _extension is None else list(_extension.cpu_features())


def binary_gemm(a: NDArray[np.uint64], b: NDArray[np.uint64], n: int) -> NDArray[np.int32]:
    """Multiply two matrices of +1 and -1 that are stored as bits.

    `out[i, j] = n - 2 * popcount(a[i] xor b[j])`. Bit 1 means -1; words are 64 bits, lowest bit
    first. The pad bits after the first `n` must be equal in `a` and `b`.

    Args:
        a: words, `[rows_a, words]`.
        b: words, `[rows_b, words]`.
        n: true length of a row in values, 0 to 64 * words.

    Returns:
        The dot products, `[rows_a, rows_b]`, int32.

    Raises:
        RuntimeError: there is no extension; ask `available()` first.
        TypeError: `a` or `b` is not a uint64 matrix.
        ValueError: the shapes and `n` do not agree.
    """
    return _call("binary_gemm", a, b, n)


def binary_gemm_reference(
    a: NDArray[np.uint64], b: NDArray[np.uint64], n: int
) -> NDArray[np.int32]:
    """Compute the same as `binary_gemm`, bit by bit: the slow form that defines the result.

    It looks at the first `n` bits only, so it does not depend on the pads. See `binary_gemm` for
    arguments, result and errors.
    """
    return _call("binary_gemm_reference", a, b, n)


def _call(name: str, a: NDArray[np.uint64], b: NDArray[np.uint64], n: int) -> NDArray[np.int32]:
    if _extension is None:
        raise RuntimeError(f"{name} needs the C++ extension: {_reason}")
    for letter, words in (("a", a), ("b", b)):
        if words.dtype != np.uint64 or words.ndim != 2:
            raise TypeError(
                f"{letter} must be a uint64 matrix [rows, words]; "
                f"got {words.dtype} with {words.ndim} axes"
            )
    product: NDArray[np.int32] = getattr(_extension, name)(
        np.ascontiguousarray(a), np.ascontiguousarray(b), n
    )
    return product
