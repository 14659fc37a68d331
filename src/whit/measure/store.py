"""The append-only store of results: one JSON object a line, safe for several writers.

A line is written by a single `write` under a lock. A process killed in mid-line leaves a damaged
line, which readers skip and the next writer ends.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from whit.errors import WhitError


class Store:
    """Rows in a file of JSON lines.

    Args:
        path: the file; it and its folder are made at the first append.
    """

    def __init__(self, path: str | Path) -> None:
        """Remember the path; nothing is opened yet."""
        self.path = Path(path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row at the end.

        Raises:
            WhitError: the file or its folder cannot be written.
        """
        line = json.dumps(_plain(row), allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise WhitError(
                f"Results cannot be written to '{self.path}': {error.strerror}. Give a folder "
                "that you may write to with --out."
            ) from None
        try:
            with _locked(handle):
                if _ends_in_mid_line(handle):
                    line = "\n" + line
                _write_whole(handle, line.encode())
        except OSError as error:
            raise WhitError(
                f"A result could not be added to '{self.path}' ({error.strerror or error}); its "
                "earlier lines are as they were. Free some space, or give another folder with "
                "--out; repeat the command: finished runs are kept and get their lines then."
            ) from None
        finally:
            os.close(handle)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows in the order written; damaged lines are skipped."""
        if not self.path.exists():
            return []
        if self.path.is_dir():
            raise WhitError(f"'{self.path}' is a folder; results are kept in a file of this name.")
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                found.append(row)
        return found

    def test_reads(self) -> dict[str, int]:
        """Return how often each task's test split was read: once for every measured run."""
        runs = set()
        for row in self.rows():
            if isinstance(row.get("task"), str):
                # A second line of the same run (timed later) is not a second reading.
                time = (row.get("provenance") or {}).get("time")
                runs.add((row["task"], row.get("identity"), time))
        return dict(Counter(task for task, _, _ in runs))


def _plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot hold, by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _write_whole(handle: int, line: bytes) -> None:
    """Write a line whole, or leave the file as it was: a full disk takes a part of a line."""
    size = os.fstat(handle).st_size
    try:
        written = os.write(handle, line)
        while written < len(line):
            written += os.write(handle, line[written:])
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            os.ftruncate(handle, size)
        raise


def _ends_in_mid_line(handle: int) -> bool:
    size = os.fstat(handle).st_size
    if size == 0:
        return False
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) != b"\n"


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not POSIX: appends of one line are still single writes
        yield
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
