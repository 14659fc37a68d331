"""One C file while it is put together: kernels, constants, buffers."""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.export.c_memory import Buffer
from whit.export.c_text import array_text

# Snippets that a snippet needs before it.
_NEEDS = {
    "unpack_signs": ("sign_bit",),
    "signs_to_float": ("sign_bit",),
    "sign": ("put_sign",),
    "threshold": ("put_sign",),
    "copy_bits": ("sign_bit", "put_sign"),
    "dot_bits": ("count_bits",),
    "dot_bits_inside": ("count_bits",),
    "linear_bits": ("copy_bits", "dot_bits"),
    "gather_patch": ("sign_bit", "put_sign"),
    "conv_bits": ("gather_patch",),
    "max_pool": ("window_limits",),
    "max_pool_signs": ("sign_bit", "put_sign", "window_limits"),
    "avg_pool": ("window_limits",),
    "pad2d_signs": ("sign_bit", "put_sign"),
    "transpose_signs": ("sign_bit", "put_sign"),
    "concat_signs": ("sign_bit", "put_sign"),
    "reduce_max_signs": ("sign_bit", "put_sign"),
}


class Unit:
    """Collects what a C file holds; every kernel once, in an order in which C can read them.

    Attributes:
        types: text of each structure type.
        kernels: text of each kernel under its function name.
        constants: text of each constant array, in order.
        constant_bytes: bytes of all constants.
        buffers: pieces of the arenas.
        functions: functions of subprograms and routes.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.types: dict[str, str] = {}
        self.kernels: dict[str, str] = {}
        self.constants: list[str] = []
        self.constant_bytes = 0
        self.buffers: list[Buffer] = []
        self.functions: list[str] = []

    def kernel(self, snippet: str, name: str = "", **parts: str | int) -> str:
        """Add a kernel, with what it needs before it.

        Args:
            snippet: name of the file in ``export/c``, without ``.c``.
            name: name of the function, that of the snippet if empty.
            parts: what replaces the ``$`` parts of the snippet.

        Returns:
            The name of the function.
        """
        name = name or snippet
        if name not in self.kernels:
            for needed in _NEEDS.get(snippet, ()):
                self.kernel(needed)
            self.kernels[name] = Template(_snippet(snippet)).substitute(parts, name=name)
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant array and return its name."""
        self.constants.append(array_text(name, values))
        self.constant_bytes += max(1, values.size) * values.dtype.itemsize
        return name

    def floats(self, name: str, values: NDArray[Any]) -> str:
        """Add an array of float32 constants and return its name."""
        return self.constant(name, values.astype(np.float32))

    def structure(self, kind: str, name: str, fields: dict[str, int]) -> str:
        """Add a constant structure of integers and return its address."""
        self.types[kind] = _snippet(kind)
        body = ", ".join(f".{field} = {value}" for field, value in fields.items())
        self.constants.append(f"static const struct {kind} {name} = {{\n    {body},\n}};\n")
        self.constant_bytes += 4 * len(fields)
        return f"&{name}"

    def buffer(self, c_type: str, count: int, first: int, last: int) -> Buffer:
        """Add a piece of an arena that is in use from one step to another."""
        self.buffers.append(Buffer(len(self.buffers), c_type, count, first, last))
        return self.buffers[-1]


@cache
def _snippet(name: str) -> str:
    return files("whit.export").joinpath("c", f"{name}.c").read_text(encoding="utf-8")
