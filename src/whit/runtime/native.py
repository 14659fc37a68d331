"""The C++ core, as NumPy functions; the only file that imports `whit._native`.

The extension is optional: a machine without a compiler installs whit without it. Nothing falls
back by itself. A caller asks `available()` and chooses; `reason()` says why there is no extension,
and `whit doctor` prints it. With WHIT_REQUIRE_NATIVE=1 in the environment, importing this module
without the extension is an error, so that CI cannot pass on the slow path by accident.
"""

import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError, WhitError

INSTRUCTION_SETS = ("scalar", "neon", "avx2", "avx512bw", "avx512vnni", "avx512vpopcntdq")


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


def isa() -> str:
    """Name the instruction set of the kernels in use, one of ``INSTRUCTION_SETS``.

    It is the best that the processor has, or the one that the environment variable WHIT_ISA names;
    chosen once in a process.

    Raises:
        WhitError: WHIT_ISA names one that is unknown, or that this processor lacks.
    """
    extension = _needed()
    try:
        return str(extension.isa())
    except RuntimeError as error:
        raise WhitError(
            f"{error}; WHIT_ISA is '{os.environ.get('WHIT_ISA', '')}': unset it for the best one"
        ) from error


def peak_gflops() -> float:
    """Measure the most multiply-adds of one thread, in 10^9 operations a second (two each).

    With the instruction set in use, by the time of this thread alone; takes some milliseconds.
    """
    return float(_needed().peak_gflops())


def peak_logic_gbits() -> float:
    """Measure the most vector logic of one thread, in 10^9 result bits a second."""
    return float(_needed().peak_logic_gbits())


def program(content: bytes, threads: int) -> Any:
    """Load a network into the C++ core.

    Args:
        content: the bytes of a .whit file that the Python reader has accepted.
        threads: that one call may use, 1 or more.

    Returns:
        An object with `run(x, out, planes)`: x is C-contiguous, [batch, ...] in the dtype of the
        program; out is float32 [batch, ...]; planes 0 uses all. It raises ValueError for numbers
        that are not finite and for an index outside of an embedding.

    Raises:
        ArtifactError: the C++ reader refuses the file.
    """
    try:
        return _needed().Program(content, threads)
    except ValueError as error:
        raise ArtifactError(str(error)) from error


class Matrix:
    """One packed matrix of weights and its product with rows of activations.

    For tests and benchmarks of single kernels; networks run as a whole.

    Args:
        kind: "signs", "ternary", "int4", "int8", "wide", "planes", "plane_floats", "float32",
            "two_four" or "sparse".
        values: [n, k]; int8 for the first five, int16 for planes, float32 for the others.
        level: instruction set, None for the one in use.
        kernel: of "signs" the kernel by name, None for the level's choice.
        planes: bits of the integers of "planes" and "plane_floats", 2 to 16.
        threads: that a product may use.
        max_rows: the most rows of one product; 0 for 256.

    Raises:
        ValueError: an unknown kind, level or kernel, or values that do not fit the kind.
    """

    def __init__(
        self,
        kind: str,
        values: NDArray[Any],
        level: str | None = None,
        *,
        kernel: str | None = None,
        planes: int = 0,
        threads: int = 1,
        max_rows: int = 0,
    ) -> None:
        """Pack the values; see the class for the arguments."""
        values = np.ascontiguousarray(values)
        self._matrix = _needed().Matrix(kind, values, level, kernel, planes, threads, max_rows)
        self.level: str = self._matrix.level
        self.bytes: int = self._matrix.bytes

    def multiply(self, left: NDArray[Any], out: NDArray[Any]) -> None:
        """Write left times the transposed values into out.

        Args:
            left: [m, ...] rows in the type that the kind reads: uint32 words of sign bits
                [m, ceil(k / 32)] (bit 1 for -1, pads 0), uint8, int16 or float32 [m, k].
            out: [m, n], float32 for kinds of floats, else int32.
        """
        self._matrix.multiply(left, out)

    def use_planes(self, used: int) -> None:
        """Use only the highest ``used`` bit planes from now on."""
        self._matrix.use_planes(used)


def _needed() -> ModuleType:
    if _extension is None:
        raise RuntimeError(f"this needs the C++ extension: {_reason}")
    return _extension
