"""Progress of runs on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whit.runs import ShowStep, Step


@contextmanager
def shown_progress() -> Iterator[ShowStep]:
    """Yield the function to give to `compare` as `progress`."""
    if not sys.stderr.isatty():
        yield print_step
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.completed:.0f}/{task.total:.0f} runs"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("starting", total=1)

        def update(step: Step) -> None:
            done = float(step.run - (0 if step.state in ("finished", "reused") else 1))
            text = f"{_short(step.spec)} seed {step.seed}"
            if step.fit is not None:
                done += step.fit.epoch / step.fit.epochs * 0.99
                text += f" epoch {step.fit.epoch}/{step.fit.epochs} loss {step.fit.loss:.3f}"
            bar.update(line, total=step.runs, completed=done, description=text)

        yield update


def print_step(step: Step) -> None:
    """Print one line when a run starts, ends, or is found finished."""
    if step.state != "training":
        line = f"[{step.run}/{step.runs}] {_short(step.spec)} seed {step.seed}: {step.state}"
        print(line, file=sys.stderr, flush=True)


def _short(spec: str) -> str:
    return spec if len(spec) <= 60 else spec[:57] + "..."
