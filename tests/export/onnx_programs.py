"""Programs of any operators for the tests of the ONNX export, and both runtimes on them."""

from dataclasses import replace

import numpy as np

from whit.export.onnx_build import build
from whit.export.onnx_check import session_of
from whit.export.onnx_model import model_of
from whit.runtime import decode_program
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Quantize, Sign
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

NAMES = {form.name: form for form in FORMATS.values()}
SIGNS = Sign()
BYTES = Quantize(0.1, 37.0, 0, 255)
SMALL = Quantize(0.0, 8.0, -128, 127)
WORDS = Quantize(0.0, 900.0, -30000, 30000)


def program_of(steps, shape, dtype="float32", leading=0, known=(float("nan"),) * 2, texts=None):
    """Assemble a program; a step is an operator, or (operator, source[, other])."""
    writer, records = DataWriter(), b""
    for index, step in enumerate(steps):
        operator, source, other = (*step, 0)[:3] if isinstance(step, tuple) else (step, index, 0)
        record = operator.write(writer)
        code = OPERATOR_CODES[operator.kind]
        records += replace(record, kind=code, source=source, other=other).to_bytes()
    header = ProgramHeader(len(steps), shape, dtype, *known, leading=leading)
    content = build_artifact(header.to_bytes() + records, writer.to_bytes(), texts or {})
    return decode_program(content, "reference")


def inputs_for(program, batch, seed=0):
    random, shape = np.random.default_rng(seed), (batch, *program.input.shape)
    if program.input.dtype == "float32":
        return random.normal(size=shape).astype(np.float32)
    high = 256 if program.input.dtype == "uint8" else 7
    return random.integers(0, high, shape).astype(program.input.dtype)


def both(program, batch, quantized="qdq", seed=0):
    """Return the outputs of NumPy and of ONNX Runtime."""
    x = inputs_for(program, batch, seed)
    model = model_of(program, build(program, quantized))
    domains = {entry.domain for entry in model.opset_import}
    assert domains == {""}
    (found,) = session_of(model.SerializeToString()).run(["output"], {"input": x})
    expected = program(x)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    return expected, found


def operators_of(program, quantized="qdq"):
    return [node.operator for node in build(program, quantized).graph.nodes]


def weight(name, rows, columns, scale=0, low=-1, high=1, seed=0, taps=1):
    random = np.random.default_rng(seed)
    form = NAMES[name]
    if form.integers:
        values = random.integers(low, high + 1, (rows, columns))
        values = values.astype(np.int16 if high > 127 else np.int8)
        if name == "bits":
            values = np.where(values >= 0, 1, -1).astype(np.int8)
    else:
        values = random.normal(size=(rows, columns)).astype(np.float16).astype(np.float32)
        if "codebook" in name:
            entries = 2 ** int(name[-1]) if name[-1] != "8" else 50
            book = np.linspace(-1, 1.5, entries).astype(np.float32)
            values = book[np.arange(rows * columns) % entries].reshape(rows, columns)
    if form.layout.sparse:
        values[random.random((rows, columns)) < 0.6] = 0
    if "two_four" in name:
        values = values.copy()
        values.reshape(rows, -1)[:, ::2] = 0
    if "signs" in name:
        values = np.sign(values).astype(np.int8)
    scales = random.uniform(0.5, 1.5, scale).astype(np.float32)
    return StoredWeight(form, values, scales, taps)
