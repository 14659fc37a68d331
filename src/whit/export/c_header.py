"""The header of an exported C file: what the network is, its sizes and its functions."""

from math import prod

from whit.export.c_text import comment_text
from whit.export.c_values import DOMAIN_TYPES
from whit.runtime.program import Program


def header_text(
    program: Program, name: str, arena_bytes: int, constant_bytes: int, libm: bool
) -> str:
    """Return the text of the header.

    Args:
        program: the network.
        name: beginning of every public name.
        arena_bytes: static memory that the code writes to.
        constant_bytes: bytes of constants.
        libm: whether the code calls functions of the mathematical library.
    """
    upper = name.upper()
    lines = [f"#ifndef {upper}_H", f"#define {upper}_H", ""]
    lines += _description(program, arena_bytes, constant_bytes, libm)
    lines += ["#include <stdint.h>", "", "#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    sizes = {
        "INPUT_SIZE": prod(program.input.shape),
        "OUTPUT_SIZE": prod(program.output_shape),
        "ARENA_BYTES": arena_bytes,
        "CONSTANT_BYTES": constant_bytes,
    }
    if program.labels:
        sizes["LABELS"] = len(program.labels)
    lines += [f"#define {upper}_{key} {value}" for key, value in sizes.items()]
    lines += ["", *_functions(program, name)]
    lines += ["#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def label_function(name: str, literals: list[str]) -> str:
    """Return the function that names a class, for labels as C literals."""
    items = "\n".join(f"        {literal}," for literal in literals)
    return f"""const char *{name}_label(int index)
{{
    static const char *const labels[{name.upper()}_LABELS] = {{
{items}
    }};
    return index >= 0 && index < {name.upper()}_LABELS ? labels[index] : 0;
}}
"""


def _description(program: Program, arena_bytes: int, constant_bytes: int, libm: bool) -> list[str]:
    known = program.input.range
    span = f", values {known[0]:g} to {known[1]:g}" if known else ""
    lines = ["A neural network, written by whit export."]
    for key in ("task", "spec"):
        if key in program.info:
            lines.append(f"{key}: {program.info[key]}")
    lines += [
        f"input: {program.input.dtype} {list(program.input.shape)}{span}, last axis fastest",
        f"output: float32 {list(program.output_shape)}",
        f"memory: {arena_bytes} bytes static, {constant_bytes} bytes of constants, no malloc",
        "library: link with -lm" if libm else "library: no function of libm is called",
        "",
        "The arena is static: one prediction at a time. Compile with -std=c99, or with",
        "-ffp-contract=off, so that a * b + c is rounded twice as in whit.runtime; x86-64 without",
        "FMA options does so anyway. Do not use -ffast-math.",
    ]
    return ["/*", *(f" * {comment_text(line)}".rstrip() for line in lines), " */"]


def _functions(program: Program, name: str) -> list[str]:
    c_type = DOMAIN_TYPES[program.input.dtype]
    upper = name.upper()
    lines = [
        f"/* Predict one sample: input holds {upper}_INPUT_SIZE finite numbers, output",
        f" * {upper}_OUTPUT_SIZE; they must not overlap. Returns 0, or -1 when an index of an",
        " * embedding is out of range (then output is not filled). */",
        f"int {name}_predict(const {c_type} *input, float *output);",
        "",
    ]
    if len(program.output_shape) == 1:
        lines += [
            "/* Place of the largest output, the first of equals. */",
            f"int {name}_classify(const float *output);",
            "",
        ]
    if program.labels:
        lines += [
            "/* Name of a class in UTF-8, or a null pointer outside of the classes. */",
            f"const char *{name}_label(int index);",
            "",
        ]
    return lines
