"""Where data files are: a folder of the user, a folder beside the checkout, or a verified download.

The first of these that applies is used:
1. the folder named by the environment variable WHIT_DATA, and then no other;
2. `../shared/data` beside the checkout, or beside the current folder, if the file is there;
3. the user's cache, filled by a download.
Every file is compared with its published SHA-256 before it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from whit.errors import DataError, MissingExtra

VARIABLE = "WHIT_DATA"


def data_file(folder: str, name: str, sha256: str, base_url: str) -> Path:
    """Return the path of a verified data file, after a download if need be.

    Args:
        folder: folder of the data set, for example "mnist".
        name: file name.
        sha256: expected checksum, 64 hex digits.
        base_url: where a missing file is downloaded from, ends with "/".

    Raises:
        DataError: missing where WHIT_DATA points, corrupt, or not to be downloaded.
        MissingExtra: a download is needed and pooch is not installed.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        path = Path(chosen) / folder / name
        if not path.is_file():
            raise DataError(
                f"The file '{path}' is missing; the variable {VARIABLE} says that data is in "
                f"'{chosen}'. Put the file there, or unset {VARIABLE} to let whit download it."
            )
        return _verified(path, sha256)
    for root in _shared_folders():
        path = root / folder / name
        if path.is_file():
            return _verified(path, sha256)
    return _downloaded(folder, name, sha256, base_url)


def _shared_folders() -> Iterator[Path]:
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file():
        yield checkout.parent / "shared" / "data"
    # An installed package does not know its checkout; `make` and CI run in it.
    yield Path.cwd().parent / "shared" / "data"


def _verified(path: Path, sha256: str) -> Path:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"The file '{path}' cannot be read ({error.strerror}).") from None
    if found != sha256:
        raise DataError(
            f"The file '{path}' is corrupt or another file: its SHA-256 begins with {found[:12]}, "
            f"expected {sha256[:12]}. Remove it and get it again."
        )
    return path


def _downloaded(folder: str, name: str, sha256: str, base_url: str) -> Path:
    try:
        pooch = import_module("pooch")
    except ImportError:
        raise MissingExtra("train", "pooch") from None
    cache = Path(pooch.os_cache("whit")) / folder
    try:
        pooch.retrieve(base_url + name, known_hash=f"sha256:{sha256}", fname=name, path=cache)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"The file '{name}' of '{folder}' could not be downloaded from {base_url} "
            f"({reason[:200]}). Set {VARIABLE} to a folder that holds '{folder}/{name}'."
        ) from None
    return cache / name
