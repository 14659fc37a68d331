"""The container: a safetensors file with two uint8 tensors, ``program`` and ``data``.

The reader is strict: a file from a stranger is data. Whatever is wrong raises ArtifactError, and
nothing is used before its offset and length were checked.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import ArtifactError
from whit.runtime.layout import CHECKSUM_OFFSET, HEADER_BYTES

MAX_HEADER_BYTES = 1 << 16
MAX_FILE_BYTES = 1 << 32
_MAX_DEPTH = 4
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_NAMES = ("program", "data")


@dataclass(frozen=True)
class Artifact:
    """The checked content of a file: program bytes, data bytes, text metadata; all of its bytes."""

    program: bytes
    data: bytes
    metadata: Mapping[str, str]
    content: bytes


def build_artifact(program: bytes, data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a file; the same arguments give the same bytes.

    Args:
        program: header and records, the checksum field 0.
        data: the constants.
        metadata: texts by name.

    Raises:
        ArtifactError: the metadata is larger than a reader accepts.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, content in zip(_NAMES, (program, data), strict=True):
        offsets = [start, start + len(content)]
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": offsets}
        start = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"labels and info take {len(text)} bytes, the format holds {MAX_HEADER_BYTES}: "
            "give shorter ones"
        )
    whole = bytearray(_LENGTH.pack(len(text)) + text + program + data)
    position = _LENGTH.size + len(text) + CHECKSUM_OFFSET
    _CHECKSUM.pack_into(whole, position, zlib.crc32(whole))
    return bytes(whole)


def read_artifact(path: str | Path) -> Artifact:
    """Read and check a file.

    Raises:
        ArtifactError: the file is missing, unreadable, or not a valid .whit file.
    """
    try:
        size = Path(path).stat().st_size
        if size > MAX_FILE_BYTES:
            raise ArtifactError(f"{path} has {size} bytes, more than a .whit file can have")
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    try:
        return parse_artifact(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path} is not a valid .whit file: {error}") from error


def parse_artifact(content: bytes) -> Artifact:
    """Check the bytes of a file and take them apart.

    Raises:
        ArtifactError: header, offsets, checksum or metadata are wrong.
    """
    header, start = _parse_header(content)
    metadata = header.pop("__metadata__", {})
    _check_metadata(metadata)
    if list(header) != list(_NAMES):
        raise ArtifactError(f"expected the tensors {list(_NAMES)}, found {list(header)[:8]}")
    spans = []
    position = 0
    for name in _NAMES:
        end = _check_tensor(name, header[name], position)
        spans.append((start + position, start + end))
        position = end
    if start + position != len(content):
        raise ArtifactError(f"the tensors end at byte {start + position}, the file {len(content)}")
    program, data = (content[first:last] for first, last in spans)
    _check_checksum(content, start, len(program))
    return Artifact(program, data, metadata, content)


def _parse_header(content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < _LENGTH.size:
        raise ArtifactError(f"the file has {len(content)} bytes, too few for a header")
    (length,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + length
    if length > MAX_HEADER_BYTES or start > len(content) or length % 8:
        raise ArtifactError(f"the header claims {length} bytes")
    raw = content[_LENGTH.size : start]
    _check_depth(raw)
    try:
        header = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ArtifactError("the header is not a JSON object")
    return header, start


def _check_depth(raw: bytes) -> None:
    depth, quoted, escaped = 0, False, False
    for byte in raw:
        if quoted:
            quoted = escaped or byte != ord('"')
            escaped = not escaped and byte == ord("\\")
            continue
        quoted = byte == ord('"')
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > _MAX_DEPTH:
            raise ArtifactError(f"the header nests deeper than {_MAX_DEPTH}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ArtifactError("the header names something twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ArtifactError(f"the header holds {name}")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict):
        raise ArtifactError("the metadata is not an object")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise ArtifactError(f"the metadata '{key}' is not a text")
        try:
            (key + value).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ArtifactError("the metadata holds half a character") from error
        if not (key + value).isprintable():
            # Labels and texts are shown on terminals: no escape sequences from a stranger's file.
            raise ArtifactError("the metadata holds characters that cannot be printed")


def _check_tensor(name: str, entry: object, begin: int) -> int:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"the tensor '{name}' is not described as safetensors asks")
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [shape, offsets]
    whole = all(
        isinstance(part, list) and all(type(number) is int for number in part) for part in numbers
    )
    if entry["dtype"] != "U8" or not whole or len(shape) != 1 or len(offsets) != 2:
        raise ArtifactError(f"the tensor '{name}' is not a row of bytes")
    end = offsets[1]
    if offsets[0] != begin or end - begin != shape[0] or not begin <= end <= MAX_FILE_BYTES:
        raise ArtifactError(f"the tensor '{name}' lies at {offsets}, expected to begin at {begin}")
    return int(end)


def _check_checksum(content: bytes, start: int, program_bytes: int) -> None:
    if program_bytes < HEADER_BYTES:
        raise ArtifactError(f"the program has {program_bytes} bytes, its header {HEADER_BYTES}")
    position = start + CHECKSUM_OFFSET
    (stored,) = _CHECKSUM.unpack_from(content, position)
    blank = bytearray(content)
    _CHECKSUM.pack_into(blank, position, 0)
    if zlib.crc32(blank) != stored:
        raise ArtifactError("the checksum does not match: the file is damaged")
