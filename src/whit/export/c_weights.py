"""C code that reads the rows of a packed weight: constants as in the file, one decoder a format."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.export.c_memory import words_of_bits
from whit.export.c_step import StepWriter
from whit.export.c_text import C_TYPES
from whit.runtime.weights import StoredWeight

_VALUE_TYPES = {"float32": "<f4", "float16": "<u2", "int8": "<i1"}


@dataclass(frozen=True)
class Rows:
    """How C code comes to row ``row`` of a weight.

    Args:
        c_type: type of one number of a row.
        address: C expression of the row.
        decode: statement that fills it, "" when the constants are the row.
        ordered: True when rows can be read one after another only; then ``next`` counts.
    """

    c_type: str
    address: str
    decode: str = ""
    ordered: bool = False

    @property
    def loop_variables(self) -> str:
        """Return the declaration of the loop over the rows."""
        return "int32_t row = 0, next = 0" if self.ordered else "int32_t row = 0"


@dataclass(frozen=True)
class _Reader:
    """The coding of a weight in C: the function, its parameters and what is given for them."""

    c_type: str
    function: str
    parameters: str
    arguments: str


def weight_rows(step: StepWriter, weight: StoredWeight) -> Rows:
    """Add the constants of a weight and what reads them; return how to come to a row."""
    layout = weight.form.layout.name
    index, values = split_payload(weight)
    reader = _reader(step, weight, values)
    if layout == "dense" and weight.form.coding.name in ("float32", "int8"):
        return Rows(reader.c_type, f"{reader.arguments} + row * {weight.columns}")
    row = step.temporary(reader.c_type, weight.columns)
    parts = {"parameters": reader.parameters, "read": reader.function, "w": reader.c_type}
    parts["arguments"] = ", ".join(_parameter_names(reader.parameters))
    name = f"decode_{weight.form.name}"
    size = f"{reader.arguments}, row, {weight.columns}"
    prefix = f"w{step.index}"
    if layout == "dense":
        kernel = step.unit.kernel("decode_dense", name, **parts)
        return Rows(reader.c_type, row, f"{kernel}({size}, {row});")
    if layout == "two_four":
        places = step.unit.constant(f"{prefix}_places", index)
        kernel = step.unit.kernel("decode_two_four", name, **parts)
        return Rows(reader.c_type, row, f"{kernel}({places}, {size}, {weight.taps}, {row});")
    if layout == "mask":
        first = step.unit.constant(f"{prefix}_mask", index)
    else:
        numbers = index.view(_index_type(weight.columns))
        counts = step.unit.constant(f"{prefix}_counts", numbers[: weight.rows])
        first = f"{counts}, " + step.unit.constant(f"{prefix}_numbers", numbers[weight.rows :])
        parts["index"] = C_TYPES[numbers.dtype]
        name = f"{name}_{numbers.dtype}"
    kernel = step.unit.kernel(f"decode_{layout}", name, **parts)
    return Rows(reader.c_type, row, f"{kernel}({first}, {size}, &next, {row});", True)


def bit_words(weight: StoredWeight) -> NDArray[np.uint32]:
    """Return the rows of a weight of signs as bits, each row from a new 32-bit word."""
    width = words_of_bits(weight.columns)
    bits = np.zeros((weight.rows, 32 * width), dtype=np.bool_)
    bits[:, : weight.columns] = weight.values < 0
    packed: NDArray[np.uint32] = np.packbits(bits, axis=1, bitorder="little").view("<u4")
    return packed.astype(np.uint32)


def split_payload(weight: StoredWeight) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what says where the values are (for sparse layouts), and the coded values, as bytes.

    Both lie in the file without the scales; between them stand at most three zero bytes.
    """
    payload = weight.form.encode(weight.values, weight.taps)
    assert payload is not None, "a weight that was read can be written"
    data = np.frombuffer(payload, dtype=np.uint8)
    size = {
        "dense": 0,
        "mask": (weight.rows * weight.columns + 7) // 8,
        "csr": _index_type(weight.columns).itemsize * (weight.rows + weight.nonzero),
        "two_four": (weight.rows * (-(-weight.columns // 4)) + 1) // 2,
    }[weight.form.layout.name]
    alignment = weight.form.coding.alignment
    return data[:size].copy(), data[-(-size // alignment) * alignment :].copy()


def _index_type(columns: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u1" if columns < 1 << 8 else "<u2" if columns < 1 << 16 else "<u4")


def _reader(step: StepWriter, weight: StoredWeight, data: NDArray[np.uint8]) -> _Reader:
    coding = weight.form.coding.name
    unit, name = step.unit, f"w{step.index}_values"
    if coding.startswith("codebook"):
        return _codebook_reader(step, coding, data)
    if coding == "planes":
        array, count = unit.constant(name, data[1:]), weight.rows * weight.columns
        parameters = "const uint8_t *values, int32_t planes, int32_t count"
        function = unit.kernel("read_planes", "read_planes")
        return _Reader("int16_t", function, parameters, f"{array}, {data[0]}, {count}")
    if coding in _VALUE_TYPES:
        data = data.view(_VALUE_TYPES[coding])
    stored = C_TYPES[data.dtype]
    c_type = "float" if coding in ("float32", "float16") else "int8_t"
    array = unit.constant(name, data)
    function = f"read_{coding}"
    if weight.form.layout.name != "dense" or coding not in ("float32", "int8"):
        snippet = "read_plain" if coding in ("float32", "int8") else function
        unit.kernel(snippet, function, w=c_type, stored=stored)
    return _Reader(c_type, function, f"const {stored} *values", array)


def _codebook_reader(step: StepWriter, coding: str, data: NDArray[np.uint8]) -> _Reader:
    bits = int(coding.removeprefix("codebook"))
    end = 4 + 4 * (int(data[0]) + 1)
    numbers = step.unit.constant(f"w{step.index}_values", data[end:])
    entries = step.unit.constant(f"w{step.index}_entries", data[4:end].view("<f4"))
    function = step.unit.kernel("read_codebook", f"read_{coding}", bits=bits, mask=(1 << bits) - 1)
    parameters = "const uint8_t *values, const float *entries"
    return _Reader("float", function, parameters, f"{numbers}, {entries}")


def _parameter_names(parameters: str) -> list[str]:
    return [part.split()[-1].lstrip("*") for part in parameters.split(",")]
