"""Downloads over HTTP that go on where they stopped, and that count only with the right checksum.

What has come so far is kept in `<name>.part` beside the file. A file appears under its own name
whole and checked, or not at all. Processes that want the same file take turns by a lock on
`<name>.lock`; the second one finds the file of the first.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from whit.atomic_files import alone_with
from whit.errors import DataError, MissingExtra

CHUNK_BYTES = 1 << 13  # at most what an answer that breaks off costs: it is written chunk by chunk
TIMEOUT_SECONDS = 30.0
_ALL_IS_HERE = 416  # HTTP: nothing lies at or behind the byte that was asked for
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")
_LOG = logging.getLogger(__name__)


def import_pooch() -> Any:
    """Return the package pooch.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module("pooch")
    except ImportError:
        raise MissingExtra("train", "pooch") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, without holding the file in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch a file to `path`, unless it is there already; a download that stopped goes on.

    Args:
        url: address of the file, http or https.
        path: where it is kept; the folder is made if need be.
        sha256: expected checksum, 64 hex digits.

    Raises:
        DataError: it cannot be fetched or written, the answer ends early, or the checksum is
            another; nothing is then under `path`.
        MissingExtra: pooch is not installed.
    """
    try:
        if _holds(path, sha256):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone_with(path.with_name(f"{path.name}.lock")):
            # Another process may have fetched it while this one waited.
            if not _holds(path, sha256):
                path.unlink(missing_ok=True)
                _complete(url, path, sha256)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _complete(url: str, path: Path, sha256: str) -> None:
    part = path.with_name(f"{path.name}.part")
    went_on = _receive(url, part)
    found = sha256_of(part)
    if found != sha256 and went_on:
        _LOG.warning(
            "The partial download '%s' turned out to be of another file or corrupt; it was "
            "discarded, and the file is fetched again from its beginning.",
            part,
        )
        part.unlink()
        _receive(url, part)
        found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise DataError(
            f"The file '{path.name}' came from {url} with SHA-256 {found}, expected {sha256}. It "
            "was discarded: the server holds another file, or something on the way changed it. "
            "Try again later or from another network."
        )
    os.replace(part, path)


def _receive(url: str, part: Path) -> bool:
    """Append what is missing to the partial file; return whether its beginning was kept."""
    requests = import_module("requests")  # what pooch itself fetches with
    with part.open("ab") as file:
        transfer = _Transfer(file)
        try:
            transfer.run(url)
        except requests.RequestException as error:
            reason = _reason(error, transfer)
        else:
            reason = "" if transfer.is_whole() else "the answer ended early"
    kept = part.stat().st_size
    if not reason:
        return transfer.went_on
    if not kept:
        part.unlink()
        advice = "Check the network and the address, then try again."
    else:
        of_all = f" of {transfer.whole}" if transfer.whole is not None else ""
        advice = f"{kept}{of_all} bytes are kept: try again, and the download goes on from there."
    raise DataError(f"'{part.stem}' could not be downloaded from {url}: {reason}. {advice}")


class _Transfer:
    """One request for what is missing at the end of an open file.

    Attributes:
        went_on: the server continued the bytes that were there.
        whole: bytes of the whole file as the server says, None if it does not.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.went_on = False
        self.whole: int | None = None
        self._file = file
        self._start = file.tell()
        self._answer: Any = None

    def run(self, url: str) -> None:
        """Ask, and append the answer; what came before an error stays in the file."""
        # A compressed answer could not be counted or continued.
        headers = {"Accept-Encoding": "identity"}
        if self._start:
            headers["Range"] = f"bytes={self._start}-"
        fetch = import_pooch().HTTPDownloader(
            chunk_size=CHUNK_BYTES,
            timeout=TIMEOUT_SECONDS,
            headers=headers,
            hooks={"response": self._begin},
        )
        try:
            fetch(url, self._file, None)
        except import_module("requests").HTTPError:
            if not self._start or self._answer.status_code != _ALL_IS_HERE:
                raise
            self.went_on = True
        finally:
            if self._answer is not None:
                self._answer.close()

    def is_whole(self) -> bool:
        """Return whether as many bytes are in the file as the server announced."""
        return self.whole is None or os.fstat(self._file.fileno()).st_size >= self.whole

    def _begin(self, answer: Any, **_: object) -> None:
        """Read the head of an answer, before its body is written."""
        self._answer = answer
        start, length = 0, answer.headers.get("Content-Length", "")
        if answer.status_code == 206:
            start = self._start
            found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
            if found:
                start = int(found[1])
                self.whole = int(found[2]) if found[2].isdecimal() else None
            self.went_on = start > 0
        elif answer.status_code == 200 and length.isdecimal():
            self.whole = int(length)
        # Not at a redirection or an error: what is here must outlive those.
        if answer.status_code in (200, 206) and start < self._start:
            self._file.truncate(start)


def _reason(error: Any, transfer: _Transfer) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if transfer.whole is not None:
        return "the answer ended early"
    innermost = str(error).rpartition(": ")[2].strip("'\"()")
    return f"the server cannot be reached ({innermost[:120] or type(error).__name__})"


def _cannot_write(path: Path, error: OSError) -> DataError:
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "Free some space there, then try again: what came so far is kept."
    else:
        advice = "Make this folder one that you may read and write."
    return DataError(
        f"'{path.name}' could not be written to the folder '{path.parent}' ({reason}). {advice}"
    )
