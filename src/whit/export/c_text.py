"""C text: names, numbers, arrays, comments and strings."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import WhitError

KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while asm typeof bool true false class namespace template "
    "new delete this private public protected virtual operator using try catch throw".split()
)
C_TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.int64): "int64_t",
    np.dtype(np.int32): "int32_t",
    np.dtype(np.int16): "int16_t",
    np.dtype(np.int8): "int8_t",
    np.dtype(np.uint32): "uint32_t",
    np.dtype(np.uint16): "uint16_t",
    np.dtype(np.uint8): "uint8_t",
}
_LINE = 100


def check_name(name: str) -> str:
    """Return the name if C and C++ take it as the beginning of a function name.

    Raises:
        WhitError: it is a keyword, or holds something else than letters, digits and underscores.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in KEYWORDS:
        raise WhitError(
            f"the name '{name}' cannot begin the names of C functions: give letters, digits and "
            "underscores, a letter first, and no keyword of C or C++, for example 'model'"
        )
    return name


def float_literal(value: float) -> str:
    """Return the shortest literal that a compiler reads as this float32."""
    number = np.float32(value)
    if np.isnan(number):
        return "NAN"
    if np.isinf(number):
        return "-INFINITY" if number < 0 else "INFINITY"
    return f"{number!s}f"


def int_literal(value: int) -> str:
    """Return a literal of an int32; the lowest has no literal of its own."""
    return "(-2147483647 - 1)" if value == -(1 << 31) else str(int(value))


def array_text(name: str, values: NDArray[Any]) -> str:
    """Return the definition of a constant array; an empty one gets a 0 that nobody reads."""
    flat = values.reshape(-1) if values.size else np.zeros(1, dtype=values.dtype)
    if flat.dtype == np.uint32:
        items = [f"0x{number:08x}u" for number in flat.tolist()]
    elif flat.dtype == np.float32:
        items = [float_literal(number) for number in flat]
    elif flat.dtype == np.int64:
        items = [f"INT64_C({number})" for number in flat.tolist()]
    else:
        items = [int_literal(number) for number in flat.tolist()]
    body = "\n".join(_lines(items))
    return f"static const {C_TYPES[flat.dtype]} {name}[{flat.size}] = {{\n{body}\n}};\n"


def int_list(numbers: Iterable[int]) -> str:
    """Return a compound literal of int32 numbers, for a call."""
    values = [str(int(number)) for number in numbers]
    return f"(const int32_t[{len(values)}]){{{', '.join(values)}}}"


def comment_text(text: str) -> str:
    """Return text that cannot end a comment or change what stands around it."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", plain)
    for pair in ("*/", "/*", "??"):
        while pair in plain:
            plain = plain.replace(pair, f"{pair[0]} {pair[1]}")
    return plain.rstrip("\\")


def string_literal(text: str) -> str:
    """Return a string literal of the UTF-8 bytes of a text, ASCII only."""
    safe = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in safe else f"\\{b:03o}" for b in text.encode("utf-8")) + '"'


def wrap_call(line: str, indent: str) -> str:
    """Break a long line of code behind commas."""
    if len(indent) + len(line) <= _LINE:
        return indent + line
    parts, current = [], ""
    for piece in re.split(r"(?<=,) ", line):
        if not current:
            current = indent + piece
        elif len(current) + 1 + len(piece) <= _LINE:
            current += f" {piece}"
        else:
            parts.append(current)
            current = f"{indent}        {piece}"
    return "\n".join([*parts, current])


def _lines(items: list[str]) -> list[str]:
    lines, current = [], "   "
    for item in items:
        if len(current) + len(item) + 2 > _LINE:
            lines.append(current)
            current = "   "
        current += f" {item},"
    return [*lines, current]
