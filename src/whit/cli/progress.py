"""Progress of runs on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from whit.runs import ShowStep, Step


@contextmanager
def shown_progress() -> Iterator[ShowStep]:
    """Yield the function to give to `compare` as `progress`."""
    if not sys.stderr.isatty():
        yield print_step
        return
    from rich.console import Console

    with shown_bar(Console(stderr=True)) as update:
        yield update


@contextmanager
def shown_bar(console: Console) -> Iterator[ShowStep]:
    """Yield the function that moves a bar on this console; the spec gets the room that is left."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    def fixed(width: int) -> Column:
        return Column(min_width=width, max_width=width, no_wrap=True)

    columns = (
        TextColumn("{task.fields[count]}", table_column=fixed(11)),
        BarColumn(14, table_column=fixed(14)),
        TimeElapsedColumn(table_column=fixed(7)),
        TextColumn("left", table_column=fixed(4)),
        TimeRemainingColumn(table_column=fixed(7)),
        TextColumn(
            "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        line = bar.add_task("starting", total=None, count="")

        def update(step: Step) -> None:
            ended = step.state in ("finished", "reused", "failed")
            done = float(step.run - (0 if ended else 1))
            text = f"seed {step.seed} {step.spec}"
            if step.fit is not None:
                done += step.fit.epoch / step.fit.epochs * 0.99
                text = f"epoch {step.fit.epoch}/{step.fit.epochs} {text}"
            count = f"run {step.run}/{step.runs}"
            bar.update(line, total=step.runs, completed=done, description=text, count=count)

        yield update


def print_step(step: Step) -> None:
    """Print one line when a run starts, ends, or is found finished."""
    if step.state != "training":
        line = f"[{step.run}/{step.runs}] {_short(step.spec)} seed {step.seed}: {step.state}"
        print(line, file=sys.stderr, flush=True)


def _short(spec: str) -> str:
    return spec if len(spec) <= 60 else spec[:57] + "..."
