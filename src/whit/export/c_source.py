"""A packed network as one C99 file and its header: no malloc, no dependence on anything else."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from whit.atomic_files import require_writable, write_atomically
from whit.export.c_compile import c_sections
from whit.export.c_header import header_text, label_function
from whit.export.c_memory import ARENA_TYPES, ARENA_WIDTHS, place_buffers
from whit.export.c_operators import ProgramWriter
from whit.export.c_text import check_name, string_literal, wrap_call
from whit.export.c_unit import Unit
from whit.export.c_values import DOMAIN_TYPES, find_members, lay_out_values
from whit.runtime.program import Program

_MATH = re.compile(r"\b(INFINITY|NAN|(exp|expm1|log|log1p|sqrt|tanh|erfc)f\()")


@dataclass(frozen=True)
class CExport:
    """What ``export_c`` wrote.

    Args:
        source: the ``.c`` file.
        header: the ``.h`` file.
        arena_bytes: static memory for values between operators; nothing else is written to.
        constant_bytes: weights and other constants, in their packed form.
    """

    source: Path
    header: Path
    arena_bytes: int
    constant_bytes: int

    @cached_property
    def sections(self) -> dict[str, int]:
        """Return the bytes of text, rodata, data and bss as the compiler ``cc -Os`` makes them.

        Raises:
            WhitError: there is no compiler.
        """
        return c_sections(self.source)


def export_c(program: Program, folder: str | Path, name: str = "model") -> CExport:
    """Write a network as C99: ``name.c`` and ``name.h``, with ``int name_predict(input, output)``.

    One sample a call. Integer paths give the same numbers as ``program`` bit for bit, floats
    agree to about 1e-5 of the largest. The same program always becomes the same text.

    Args:
        program: the network, as ``whit.runtime.load`` returns it.
        folder: where both files go; made if need be.
        name: beginning of every public name.

    Returns:
        The paths and the bytes of memory and constants.

    Raises:
        WhitError: the name is no C identifier, or the folder cannot be written.
    """
    check_name(name)
    folder = Path(folder)
    require_writable(folder)
    unit = Unit()
    routes = find_members(program)
    values = lay_out_values(program, unit, routes)
    body = ProgramWriter(program, unit, values, routes).write()
    sizes = place_buffers(unit.buffers)
    arena_bytes = sum(ARENA_WIDTHS[arena] * size for arena, size in sizes.items())
    source, header = folder / f"{name}.c", folder / f"{name}.h"
    text = _source_text(program, unit, name, body, sizes)
    description = header_text(program, name, arena_bytes, unit.constant_bytes, _needs_libm(text))
    write_atomically(header, lambda path: path.write_text(description, encoding="ascii"))
    write_atomically(source, lambda path: path.write_text(text, encoding="ascii"))
    return CExport(source, header, arena_bytes, unit.constant_bytes)


def _source_text(program: Program, unit: Unit, name: str, body: str, sizes: dict[str, int]) -> str:
    arenas = [f"static {ARENA_TYPES[arena]} {arena}[{size}];" for arena, size in sizes.items()]
    memory = ["/* Values between operators; what lives at other times shares its place. */"] * bool(
        arenas
    )
    code = [*unit.kernels.values(), *unit.functions, _predict_function(program, name, body)]
    if len(program.output_shape) == 1:
        code.append(_classify_function(name))
    if program.labels:
        code.append(label_function(name, [string_literal(label) for label in program.labels]))
    sections = ["\n".join(memory + arenas), *unit.types.values(), *unit.constants, *code]
    text = "\n".join(section.rstrip("\n") + "\n" for section in sections if section)
    text = re.sub(r"@(\d+)@", lambda match: unit.buffers[int(match[1])].address, text)
    return _opening(name, bool(_MATH.search(text))) + "\n" + _wrap_lines(text)


def _wrap_lines(text: str) -> str:
    """Break long lines of code; names and addresses have their length only now."""
    lines = []
    for line in text.splitlines():
        code = not line.lstrip().startswith(("/*", '"'))
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(wrap_call(line.lstrip(), indent) if code else line)
    return "\n".join(lines) + "\n"


def _opening(name: str, math: bool) -> str:
    include = "#include <math.h>\n\n" if math else ""
    return f"""/* {name}: written by whit export; {name}.h says what it is and how to call it. */
{include}#include "{name}.h"

#if defined(__clang__) || !defined(__GNUC__)
#pragma STDC FP_CONTRACT OFF
#endif
"""


def _predict_function(program: Program, name: str, body: str) -> str:
    c_type = DOMAIN_TYPES[program.input.dtype]
    return f"int {name}_predict(const {c_type} *input, float *output)\n{{\n{body}\n}}\n"


def _classify_function(name: str) -> str:
    return f"""int {name}_classify(const float *output)
{{
    int best = 0;
    for (int i = 1; i < {name.upper()}_OUTPUT_SIZE; i++) {{
        best = output[i] > output[best] ? i : best;
    }}
    return best;
}}
"""


def _needs_libm(text: str) -> bool:
    return any(match[1].endswith("(") for match in _MATH.finditer(text))
