"""The data sets that ship with scikit-learn, imported only when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from whit.errors import MissingExtra


def load_bundled(name: str) -> Any:
    """Return a bundled set, for example "digits": an object with `data`, `target`, `target_names`.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        sets = import_module("sklearn.datasets")
    except ImportError:
        raise MissingExtra("train", "scikit-learn") from None
    return getattr(sets, f"load_{name}")()
