"""Which matrix product the runtime uses for packed signs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from whit.errors import WhitError
from whit.runtime.bits import binary_gemm_reference

BinaryGemm = Callable[[NDArray[np.uint64], NDArray[np.uint64], int], NDArray[np.int32]]


def choose_binary_gemm(backend: str, threads: int) -> tuple[str, BinaryGemm]:
    """Pick the binary matrix product of a backend.

    Args:
        backend: "native", "reference", or "auto" for native where it is available.
        threads: threads that the native product may use.

    Returns:
        The name of the backend taken and its function (left, right, count) -> products.

    Raises:
        WhitError: an unknown backend, or native was asked for and is not available.
    """
    if backend not in ("auto", "native", "reference"):
        raise WhitError(f"backend '{backend}' is unknown; give 'native', 'reference' or 'auto'")
    if threads < 1:
        raise WhitError(f"threads is {threads}; give 1 or more")
    if backend == "reference":
        return "reference", binary_gemm_reference
    try:
        from whit.runtime import native

        reason = native.reason() if not native.available() else ""
    except ImportError as error:
        reason = str(error)
    if not reason:
        return "native", native.binary_gemm
    if backend == "native":
        raise WhitError(
            f"the native backend is not available here ({reason}); use backend='reference'"
        )
    return "reference", binary_gemm_reference
