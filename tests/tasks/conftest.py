"""The shared data files: missing ones fail in CI, and skip a test elsewhere with the reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = os.environ.get("WHIT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return the folder of a data set by its name."""

    def folder(name: str) -> Path:
        path = Path(ROOT) / name
        if not path.is_dir():
            message = f"the folder {path} is missing; WHIT_DATA may name another one for {name}"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
        return path

    return folder
