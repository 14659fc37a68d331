"""`whit check`: what each technique would do to a model, before any training."""

from __future__ import annotations

from typing import Annotated

import typer

from whit.cli.guard import fail, guarded, show_json
from whit.cli.training import AsJson, Model, TaskText, Width, task_of


@guarded
def check(
    task: TaskText,
    specs: Annotated[
        list[str] | None, typer.Argument(help="Techniques; those of whit compare by default.")
    ] = None,
    model: Model = None,
    width: Width = None,
    as_json: AsJson = False,
) -> None:
    """Say what techniques would change in a model, skip and why, and how it would pack."""
    from rich.console import Console

    from whit.checking import check as checked
    from whit.comparison import DEFAULT
    from whit.reporting.check_view import WIDTH, check_view

    with Console(stderr=True).status("rehearsing", spinner="line") as status:
        found = checked(
            specs or DEFAULT,
            task_of(task, model, width),
            progress=lambda label: status.update(f"rehearsing {label}"),
        )
    if as_json:
        show_json(found.as_dict())
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=WIDTH)
        console.print(check_view(found), highlight=False)
    if found.refused and len(found.refused) == len(found.rows) - 1:
        reasons = "; ".join(f"{row.label}: {row.refused.rstrip('.')}" for row in found.refused)
        fail(f"No technique but the control can be carried out. {reasons}.")
