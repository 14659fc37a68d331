"""How the members of a group run while they train, as an option of techniques."""

from __future__ import annotations

from typing import Literal

from whit.core.notes import Table
from whit.core.options import nearest, require
from whit.core.run import Run
from whit.parts.group import WAYS, Group

Way = Literal["one_by_one", "batched", "threads", "auto"]


def check_way(value: object) -> None:
    """Raise a `SpecError` unless the value is a way in which a `Group` runs its members.

    Raises:
        SpecError: it is not.
    """
    require(
        value in WAYS,
        f"way was given {value!r}; expected one of {', '.join(WAYS)}. {nearest(str(value), WAYS)}",
    )


def note_way(run: Run, group: Group) -> None:
    """Note what was measured, where a group chose its way itself and has trained in this process.

    Args:
        run: keeps the note.
        group: after its training.
    """
    if group.chosen is None:
        return
    shapes = ", ".join("x".join(map(str, shape)) for shape in group.chosen.inputs)
    rows: list[tuple[str, str | float, bool]] = [
        (way, milliseconds, way == group.chosen.way)
        for way, milliseconds in group.chosen.milliseconds.items()
    ]
    rows += [(way, reason, False) for way, reason in group.chosen.refused.items()]
    run.note(
        "How the members ran",
        Table(
            ("way", "ms", "chosen"),
            rows,
            f"A forward and backward pass of the group on inputs {shapes}, median of turns, "
            f"{group.chosen.threads} thread(s) of torch.",
        ),
    )
