"""Where data files are: a folder of the user, a folder beside the checkout, or a verified download.

The first of these that applies is used:
1. the folder named by the environment variable WHIT_DATA, and then no other;
2. `../shared/data` beside the checkout, or beside the current folder, if the file is there;
3. the user's cache, filled by a download.
Every file is compared with its published SHA-256 before it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from whit.errors import DataError
from whit.tasks.downloads import download, import_pooch, sha256_of

VARIABLE = "WHIT_DATA"


def local_folders() -> list[Path]:
    """Return the folders where data may lie: that of WHIT_DATA alone, or those beside a checkout.

    They need not exist.
    """
    chosen = os.environ.get(VARIABLE)
    return [Path(chosen)] if chosen else list(_shared_folders())


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
    for root in local_folders():
        path = root / folder / name
        if path.is_file():
            return verified(path, sha256)
    chosen = os.environ.get(VARIABLE)
    if chosen:
        raise DataError(
            f"The file '{Path(chosen) / folder / name}' is missing; the variable {VARIABLE} says "
            f"that data is in '{chosen}'. Put the file there, or unset {VARIABLE} to let whit "
            "download it."
        )
    return _downloaded(folder, name, sha256, base_url)


def verified(path: Path, sha256: str) -> Path:
    """Return the path after its content was compared with a checksum.

    Args:
        path: of the file.
        sha256: expected checksum, 64 hex digits.

    Raises:
        DataError: the file is missing or cannot be read, or the checksum is another.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DataError(f"The file '{path}' cannot be read ({error.strerror}).") from None
    if found != sha256:
        raise DataError(
            f"The file '{path}' is corrupt or another file: its SHA-256 begins with {found[:12]}, "
            f"expected {sha256[:12]}. Remove it and get it again."
        )
    return path


def _shared_folders() -> Iterator[Path]:
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file():
        yield checkout.parent / "shared" / "data"
    # An installed package does not know its checkout; `make` and CI run in it.
    yield Path.cwd().parent / "shared" / "data"


def _downloaded(folder: str, name: str, sha256: str, base_url: str) -> Path:
    path = Path(import_pooch().os_cache("whit")) / folder / name
    try:
        download(base_url + name, path, sha256)
    except DataError as error:
        raise DataError(
            f"{error} Or set {VARIABLE} to a folder that holds '{folder}/{name}'."
        ) from None
    return path
