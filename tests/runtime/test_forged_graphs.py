"""Files of a stranger with every operator: forged bytes are refused in words or run."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.errors import ArtifactError, WhitError
from whit.runtime import decode_program
from whit.runtime import operators as op
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import CHANNEL, ProgramHeader, Record
from whit.runtime.operators import OPERATOR_CODES
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

RANDOM = np.random.default_rng(0)


def weight(rows, columns, code=9, taps=1):
    values = RANDOM.integers(-3, 4, (rows, columns)).astype(np.int8)
    return StoredWeight(FORMATS[code], values, taps=taps)


def floats(count):
    return RANDOM.normal(size=count).astype(np.float32)


def int32(*numbers):
    return np.array(numbers, dtype=np.int32)


def every_operator():
    """Return a graph from [4, 6, 6] in which each operator stands once at least."""
    route = op.Route(0.9, (0, 1, 255), 2, ((0,), (0, 1), (1,)), 1)
    cooled = op.Route(0.8, (), 0, ((0,), (0, 1), (1,), (1,), (0,)), 1, 2.5, deciding=4)
    chain = [
        op.Normalize(None, floats(1), 0, 1),
        op.Conv2d(weight(4, 9, taps=9), floats(4), (3, 3), pad=(1, 1)),
        op.Affine(floats(4), floats(1), CHANNEL, 1),
        op.GroupNorm(2, 1e-5, floats(4), floats(4)),
        op.LeakyRelu(floats(4)),
        op.Pad2d((1, 0, 1, 0), 0.5),
        op.AvgPool2d((2, 2), (1, 1), (1, 1), inside_only=True),
        op.Clamp(-2.0, 2.0),
        op.Quantize(0.1, 8.0, -8, 7),
        op.MaxPool2d((2, 2), (2, 2)),
        op.Conv2d(weight(5, 36, 10, 9), None, (3, 3)),
        op.Requantize(int32(3, 5, 7, 9, 11), np.array([1], dtype=np.int64), 7, 0, 255),
        op.Lookup(floats(200)),
        op.Levels(np.sort(floats(10)).reshape(5, 2), np.arange(5) > 2, -1, 1),
        op.Threshold(np.zeros(5, dtype=np.int8), np.arange(5) < 1),
        op.Relu(),
        op.Curve("elu", 0.5),
        op.Reduce("max", (2,)),
        op.Transpose((1, 0)),
        op.Reshape((5, 2)),
        op.Flatten(),
        op.LayerNorm(1, 1e-5, floats(10), None, 10),
        op.Sign(),
        op.Linear(weight(3, 10, 11), None),
    ]
    steps = [(operator, index, 0) for index, operator in enumerate(chain)]
    last = len(steps)
    return [
        *steps,
        (op.Softmax(0), last, 0),
        (op.Add(), last + 1, last),
        (op.Multiply(), last + 2, last + 1),
        (op.Member(2), last, 0),
        (op.Linear(weight(7, 3), floats(7)), last + 4, 0),
        (op.Linear(weight(3, 7, 17), None), last + 5, 0),
        (route, last + 3, last),
        (op.Concat(0), last + 7, last),
        (op.Member(1), last + 8, 0),
        (op.Linear(weight(2, 6), None), last + 9, 0),
        (cooled, last + 8, last + 8),
    ]


def indices():
    """Return a graph of indices, which need another input."""
    return [(op.Embedding(weight(10, 3, 11)), 0, 0), (op.Curve("gelu"), 1, 0)]


def file_of(steps, shape, dtype):
    writer, records = DataWriter(), b""
    for operator, source, other in steps:
        fields = vars(operator.write(writer)) | {"source": source, "other": other}
        records += Record(**fields | {"kind": OPERATOR_CODES[operator.kind]}).to_bytes()
    program = ProgramHeader(len(steps), shape, dtype).to_bytes() + records
    return build_artifact(program, writer.to_bytes(), {})


FILES = [
    (file_of(every_operator(), (4, 6, 6), "float32"), floats((3, 4, 6, 6))),
    (file_of(indices(), (4,), "int32"), RANDOM.integers(0, 10, (3, 4))),
]
STARTS = [8 + struct.unpack_from("<Q", content)[0] for content, _ in FILES]


def with_checksum(content, start):
    struct.pack_into("<I", content, start + 8, 0)
    struct.pack_into("<I", content, start + 8, zlib.crc32(content))
    return bytes(content)


def test_the_file_holds_every_operator():
    kinds = {step.operator.kind for content, _ in FILES for step in decode_program(content).steps}
    assert kinds == set(OPERATOR_CODES)


@pytest.mark.parametrize("number", [0, 1])
def test_the_untouched_file_predicts(number):
    content, x = FILES[number]
    found = decode_program(content, "reference")(x)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("number", [0, 1])
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_forged_bytes_never_crash(number, data):
    content, x = FILES[number]
    places = st.integers(STARTS[number], len(content) - 1)
    forged = bytearray(content)
    for position, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3)
    ):
        forged[position] = value
    try:
        program = decode_program(with_checksum(forged, STARTS[number]), "reference")
    except ArtifactError:
        return
    same = program.input == decode_program(content).input
    if same and program.activation_peak_bytes < 1 << 20:
        try:
            found = program(x)
        except WhitError as error:
            assert "indices" in str(error)
            return
        shape = program.output_shape
        expected = (shape[0], 3, *shape[1:]) if program.leading else (3, *shape)
        assert found.shape == expected


@pytest.mark.parametrize("number", [0, 1])
def test_every_byte_of_every_record_can_be_forged(number):
    content, _ = FILES[number]
    records = struct.unpack_from("<H", content, STARTS[number] + 6)[0]
    accepted = 0
    for position in range(STARTS[number] + 40, STARTS[number] + 40 + 32 * records):
        forged = bytearray(content)
        forged[position] = 255 if position % 2 else 1
        try:
            program = decode_program(with_checksum(forged, STARTS[number]), "reference")
            accepted += program.steps != ()
        except ArtifactError:
            continue
    assert accepted > 0
