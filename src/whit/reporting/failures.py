"""Why a run could not be carried out, in one paragraph: our refusals, and errors in a user's file.

An error in a user's own technique or task is said with the file and the line, without a traceback.
An error in our own code is no reason: it must be seen as it is.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from traceback import FrameSummary

from whit.errors import WhitError
from whit.grammar import parse_sum

_PACKAGE = Path(__file__).resolve().parents[1]


def reason_of(error: Exception, specs: Sequence[str]) -> str | None:
    """Return the reason in one paragraph; None when the error is one of our own code.

    Args:
        error: as caught.
        specs: texts of the technique and the task; they name the user's files.
    """
    if isinstance(error, WhitError):
        return str(error)
    own = _own_files(specs)
    frames = traceback.extract_tb(error.__traceback__)
    if not own or not frames:
        return None
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    of_user = [frame for frame in frames if _path(frame) in own]
    if of_user:
        return f"{said} ({_place(of_user[-1], own[_path(of_user[-1])])})"
    if not _in_user_model(frames):
        return None
    names = " or ".join(f"'{name}'" for name in own.values())
    where = _place(frames[-1], Path(frames[-1].filename).name)
    return f"{said} ({where}; most likely data or a model of {names} has another shape or type)"


def _in_user_model(frames: Sequence[FrameSummary]) -> bool:
    """Say whether torch raised while our training loop called a model, a loss or a metric."""
    ours = [n for n, frame in enumerate(frames) if _path(frame).is_relative_to(_PACKAGE)]
    if not ours:
        return False
    caller = _path(frames[ours[-1]]).relative_to(_PACKAGE)
    if caller.parts[0] != "core" and caller.parts != ("measure", "meter.py"):
        return False
    return any("torch" in _path(frame).parts for frame in frames[ours[-1] + 1 :])


def _own_files(specs: Sequence[str]) -> dict[Path, str]:
    """Return the user's files that specs name, each with its name as written."""
    found = {}
    for text in specs:
        try:
            calls, _ = parse_sum(text)
        except WhitError:  # a task made in Python may have any name
            continue
        for call in calls:
            if call.reference.endswith(".py") or "/" in call.reference:
                found[Path(call.reference).expanduser().resolve()] = call.reference
            elif call.reference:
                file = getattr(sys.modules.get(call.reference), "__file__", None)
                found[Path(file or call.reference).resolve()] = call.reference
    return found


def _path(frame: FrameSummary) -> Path:
    return Path(frame.filename).resolve()


def _place(frame: FrameSummary, name: str) -> str:
    return f"line {frame.lineno} of '{name}', in {frame.name}"
