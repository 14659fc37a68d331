"""The strict reader: whatever is wrong is an ArtifactError, and damage never goes unnoticed."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.errors import ArtifactError, WhitError
from whit.runtime import decode_program, load
from whit.runtime.artifact import build_artifact, parse_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import HEADER_BYTES, RECORD_BYTES, Activation, ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Flatten, Linear, Sign
from whit.runtime.program import join_labels, split_labels
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight


def assemble(operators, header, metadata):
    from dataclasses import replace

    writer, records = DataWriter(), b""
    for index, operator in enumerate(operators):
        record = operator.write(writer)
        code = OPERATOR_CODES[operator.kind]
        records += replace(record, kind=code, source=index).to_bytes()
    return build_artifact(header.to_bytes() + records, writer.to_bytes(), metadata)


def small_network():
    random = np.random.default_rng(0)
    first = StoredWeight(FORMATS[1], random.choice([-1, 1], (5, 6)).astype(np.int8))
    scale = np.array([0.5], dtype=np.float32)
    second = StoredWeight(FORMATS[4], random.choice([-1, 0, 1], (3, 5)).astype(np.int8), scale)
    bias = np.arange(3, dtype=np.float32)
    operators = [Flatten(), Linear(first, None), Sign(), Linear(second, bias)]
    return operators, ProgramHeader(4, (2, 3), "float32", 0.0, 16.0)


OPERATORS, HEADER = small_network()
CONTENT = assemble(OPERATORS, HEADER, {"labels": ",a,b,c", "task": "toy"})
INPUT = np.random.default_rng(1).normal(size=(7, 2, 3)).astype(np.float32)
EXPECTED = decode_program(CONTENT, "reference")(INPUT)


def with_checksum(content):
    """Make damage look intended: put the right checksum where the program says it is."""
    (length,) = struct.unpack_from("<Q", content)
    position = 8 + length + 8
    changed = bytearray(content)
    if position + 4 <= len(changed):
        struct.pack_into("<I", changed, position, 0)
        struct.pack_into("<I", changed, position, zlib.crc32(changed))
    return bytes(changed)


def test_the_program_reads_back():
    program = decode_program(CONTENT, "reference")
    assert program.input.shape == (2, 3)
    assert program.input.range == (0.0, 16.0)
    assert program.labels == ("a", "b", "c")
    assert program.info["task"] == "toy"
    assert program.output_shape == (3,)
    assert [cost.kind for cost in program.operators] == ["flatten", "linear", "sign", "linear"]


def test_safetensors_reads_the_container():
    from safetensors.numpy import load as load_tensors

    tensors = load_tensors(CONTENT)
    assert tensors["program"].size == HEADER_BYTES + 4 * RECORD_BYTES
    assert tensors["program"][:4].tobytes() == b"WHIT"


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_is_always_noticed(position, change):
    damaged = bytearray(CONTENT)
    damaged[position] ^= change
    with pytest.raises(ArtifactError):
        decode_program(bytes(damaged))


@given(st.integers(0, len(CONTENT) - 1), st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_truncation_and_other_ends_are_always_noticed(length, tail):
    damaged = CONTENT[:length] + tail
    if damaged != CONTENT:
        with pytest.raises(ArtifactError):
            decode_program(damaged)


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), max_size=6))
@settings(max_examples=500, deadline=None)
def test_forged_files_never_crash(changes):
    forged = bytearray(CONTENT)
    for position, value in changes:
        forged[position] = value
    try:
        program = decode_program(with_checksum(bytes(forged)), "reference")
    except ArtifactError:
        return
    if program.input.shape == (2, 3) and program.input.dtype == "float32":
        assert program(INPUT).shape == (7, *program.output_shape)


@given(st.binary(max_size=200))
def test_noise_is_refused(content):
    with pytest.raises(ArtifactError):
        parse_artifact(content)


def rewritten(change):
    """Return the file with its JSON header changed by a function on the text."""
    (length,) = struct.unpack_from("<Q", CONTENT)
    text = change(CONTENT[8 : 8 + length].decode().rstrip())
    raw = text.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return with_checksum(struct.pack("<Q", len(raw)) + raw + CONTENT[8 + length :])


def edited(**changes):
    def change(text):
        header = json.loads(text)
        for name, value in changes.items():
            tensor, _, key = name.partition("__")
            header[tensor][key] = value
        return json.dumps(header)

    return rewritten(change)


MALFORMED = {
    "twice": rewritten(lambda text: text[:-1] + ',"data":{}}'),
    "deeper": rewritten(lambda text: text[:-1] + ',"x":' + "[" * 9000 + "]" * 9000 + "}"),
    "NaN": rewritten(lambda text: text.replace("[168", "[NaN", 1)),
    "expected the tensors": rewritten(lambda text: text[:-1] + ',"more":{}}'),
    "not a text": rewritten(lambda text: text.replace('"toy"', "3")),
    "half a character": rewritten(lambda text: text.replace("toy", "\\ud800")),
    "not JSON": rewritten(lambda text: text[:-1]),
    "not a JSON object": rewritten(lambda text: "[1,2]"),
    "row of bytes": edited(data__dtype="F32"),
    "lies at": edited(data__data_offsets=[0, 10**30]),
    "not described": edited(data__extra=1),
    "header claims": struct.pack("<Q", 2**63) + CONTENT[8:],
    "is not a row": edited(data__shape=[True]),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_headers_are_refused(message):
    with pytest.raises(ArtifactError, match=message):
        decode_program(MALFORMED[message])


def patched(offset, data):
    (length,) = struct.unpack_from("<Q", CONTENT)
    changed = bytearray(CONTENT)
    start = 8 + length + offset
    changed[start : start + len(data)] = data
    return with_checksum(bytes(changed))


RECORD = HEADER_BYTES + RECORD_BYTES  # the second record: the binary linear
BAD_FIELDS = {
    "does not begin with WHIT": (0, b"WHAT"),
    "format version 9": (4, b"\x09\x00"),
    "do not fill": (6, b"\x03\x00"),
    "impossible input description": (12, b"\x09"),
    "an impossible input desc": (13, b"\x03"),
    "holds an impossible input desc": (14, b"\x02"),
    "impossible input range": (32, struct.pack("<f", 1e9)),
    "unknown operator": (RECORD, b"\xc8"),
    "weight format": (RECORD + 1, b"\x63"),
    "reads the value 9": (RECORD + 4, b"\x09"),
    "reads the value 7": (RECORD + 6, b"\x07"),
    "does not fit": (RECORD + 12, struct.pack("<I", 7)),
    "canonical order": (RECORD + 16, struct.pack("<I", 2**31)),
    "does not use": (RECORD + 31, b"\x01"),
    "holds values it does not use": (RECORD + 6, b"\x01"),
}


@pytest.mark.parametrize("message", BAD_FIELDS)
def test_malformed_programs_are_refused(message):
    with pytest.raises(ArtifactError, match=message):
        decode_program(patched(*BAD_FIELDS[message]))


def test_bytes_behind_the_last_constant_are_refused():
    artifact = parse_artifact(CONTENT)
    program = artifact.program[:8] + bytes(4) + artifact.program[12:]
    longer = build_artifact(program, artifact.data + b"\0", artifact.metadata)
    with pytest.raises(ArtifactError, match="belong to no operator"):
        decode_program(longer)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.whit", tmp_path):
        with pytest.raises(ArtifactError, match="cannot be read"):
            load(path)
    (tmp_path / "empty.whit").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"empty.whit is not a valid"):
        load(tmp_path / "empty.whit")


@given(st.lists(st.text(min_size=0, max_size=5).filter(lambda text: "," not in text)))
def test_labels_round_trip(labels):
    assert split_labels(join_labels(labels)) == tuple(labels)


def test_labels_with_commas_take_another_separator():
    assert join_labels(["a,b", "c"]) == ";a,b;c"
    with pytest.raises(WhitError, match="separator"):
        join_labels([",;|\t\n\x1f"])


def test_activation_bytes_count_each_width():
    assert Activation((3, 3), "sign").stored_bytes == 2
    assert Activation((3,), "float32").stored_bytes == 12


def test_metadata_that_would_reach_a_terminal_as_commands_is_refused():
    content = build_artifact(b"\0" * HEADER_BYTES, b"", {"spec": "plain()\x1b[2J"})
    with pytest.raises(ArtifactError, match="cannot be printed"):
        parse_artifact(content)
