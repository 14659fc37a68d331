"""Files that appear whole or not at all, in folders that can be written; standard library only."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from whit.errors import WhitError

Writer = Callable[[Path], object]

# A temporary file is named after its target, the process that fills it, and eight random letters.
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)-[a-z0-9_]{8}")
# No file takes this long to write; older ones are left over even if their process number is in use
# again.
LEFTOVER_SECONDS = 86_400


def write_atomically(path: Path, write: Writer) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Readers, and a process that is killed at any moment, leave the old file or the new one.

    Args:
        path: the file to make or replace; its folder must exist.
        write: is given the temporary path.

    Raises:
        OSError: the folder cannot be written, or the path is a folder, a device or the like;
            nothing is left behind.
    """
    temporary = _filled(path, write)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_together(files: Mapping[Path, Writer], obsolete: Sequence[Path] = ()) -> None:
    """Fill temporary files for all of `files`, then put them in place, the last one last.

    The last file says that the others are complete: its old version goes before any other file
    changes. A full disk is met while the temporary files are filled, so all old files stay.

    Args:
        files: what fills each file; their folders must exist.
        obsolete: files of an earlier set that must not survive beside the new ones.

    Raises:
        OSError: a file cannot be written; nothing is left behind.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, write in files.items():
            temporaries[path] = _filled(path, write)
        for old in (list(files)[-1], *obsolete):
            old.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise


def _filled(path: Path, write: Writer) -> Path:
    """Return the filled temporary file beside a path, its content on the disk."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Call it before this process writes there: a file of this process's number is one of a dead
    process that had the same number.
    """
    for path in folder.glob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None:
            continue
        try:
            old = time.time() - path.stat().st_mtime > LEFTOVER_SECONDS
        except FileNotFoundError:  # its process has just renamed it
            continue
        if old or not _is_another_running(int(match["process"])):
            path.unlink(missing_ok=True)


def _is_another_running(process: int) -> bool:
    if os.name != "posix":  # there, os.kill would end the process; its age decides
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def require_writable(folder: Path) -> None:
    """Make a folder if need be, and try it.

    Raises:
        WhitError: it cannot be made or written; said before anything is computed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WhitError(
            f"The folder '{folder}' cannot be written ({error.strerror}). Choose another (--out, "
            "--save-to)."
        ) from None


@contextmanager
def alone_with(lock: Path, wait: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Keep other processes of this machine out of a block of code.

    The lock is the system's own and ends with the process, however it ends; the file stays.

    Args:
        lock: file that stands for what is used alone; its folder must exist.
        wait: called when another process has the lock, before waiting for it.

    Yields:
        Whether another process was waited for.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX: two processes must be kept apart by the user
        yield False
        return
    with lock.open("w") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = True
        yield waited
