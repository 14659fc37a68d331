"""Files that appear whole or not at all, in folders that can be written; standard library only."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from whit.errors import WhitError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Readers, and a process that is killed at any moment, leave the old file or the new one.

    Args:
        path: the file to make or replace; its folder must exist.
        write: is given the temporary path.

    Raises:
        OSError: the folder cannot be written, or the path is a folder, a device or the like;
            nothing is left behind.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
