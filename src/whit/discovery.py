"""Find techniques and tasks: by walking our packages, and by entry points.

No list is edited to add one: a file in `methods/` or `tasks/` is found because it is there.
Those in files of a user are found by `core.references`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

ENTRY_POINTS = "whit.techniques"
_PACKAGE = Path(__file__).parent


def module_names(package: str) -> dict[str, str]:
    """Return the modules below `whit.<package>` by their last name, without importing them."""
    root = _PACKAGE / package
    found = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        if not any(part.startswith("_") for part in relative.parts):
            found[path.stem] = ".".join(("whit", package, *relative.parts))
    return found


def installed_techniques() -> dict[str, EntryPoint]:
    """Return the techniques that other packages registered under `whit.techniques`."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
