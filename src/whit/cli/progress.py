"""Progress of runs on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

    from whit.core.fit import Progress as FitProgress
    from whit.runs import ShowStep, Step

SECONDS_BETWEEN_LINES = 10.0
ENDED = ("finished", "reused", "failed")
LONGEST_SPEC = 60

Clock = Callable[[], float]


@contextmanager
def shown_progress() -> Iterator[ShowStep]:
    """Yield the function to give to `compare` as `progress`."""
    if not sys.stderr.isatty():
        yield PlainLines().show
        return
    from rich.console import Console

    with shown_bar(Console(stderr=True)) as update:
        yield update


class TimeLeft:
    """Estimates how long all runs still take, from those that ended and those under way.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Start without a run."""
        self.clock = clock
        self.started: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.parts: dict[int, float] = {}
        self.durations: list[float] = []
        self.ended = 0
        self.runs = 0

    def note(self, step: Step) -> None:
        """Take a step into account."""
        now, run = self.clock(), step.run
        self.runs, self.ended = step.runs, max(self.ended, step.ended)
        if step.state == "started":
            self.started[run] = now
        elif step.state in ENDED:
            begin = self.started.pop(run, None)
            self.ends.pop(run, None)
            self.parts.pop(run, None)
            if begin is not None and step.state == "finished":
                self.durations.append(now - begin)
        elif step.fit is not None:
            self.started.setdefault(run, now)
            self.ends[run] = now + step.fit.seconds_left
            self.parts[run] = step.fit.epoch / step.fit.epochs

    @property
    def done(self) -> float:
        """Runs that have ended, those under way in part."""
        return self.ended + 0.99 * sum(self.parts.values())

    def seconds(self) -> float:
        """Return the expected seconds until all runs have ended; infinite while nothing is known.

        Runs that are under way together are expected to stay as many.
        """
        now = self.clock()
        whole = self.durations or [end - self.started[run] for run, end in self.ends.items()]
        if not whole:
            return math.inf
        mean = sum(whole) / len(whole)
        # A run may call fit again after the present call: it takes as long as others took.
        active = [
            max(self.ends.get(run, now) - now, mean - (now - begin), 0.0)
            for run, begin in self.started.items()
        ]
        waiting = max(self.runs - self.ended - len(active), 0)
        return (sum(active) + waiting * mean) / max(len(active), 1)


@contextmanager
def shown_bar(console: Console) -> Iterator[ShowStep]:
    """Yield the function that moves a bar on this console; the spec gets the room that is left."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    left = TimeLeft()

    class LeftColumn(ProgressColumn):
        """Counts down between two epochs."""

        def render(self, task: Task) -> Text:
            return Text(f"{clock_text(left.seconds())} left")

    def fixed(width: int) -> Column:
        return Column(min_width=width, max_width=width, no_wrap=True)

    columns = (
        TextColumn("{task.fields[count]}", table_column=fixed(11)),
        BarColumn(12, table_column=fixed(12)),
        LeftColumn(table_column=fixed(12)),
        TextColumn(
            "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        line = bar.add_task("starting", total=None, count="")

        def update(step: Step) -> None:
            left.note(step)
            text = f"{step.spec} seed {step.seed}"
            if step.state in ("failed", "waiting"):
                text = f"{step.state}: {text}"
            if step.fit is not None:
                quality = _quality(step.fit).removeprefix("validation ")
                counted = _figures(step.fit)
                text = f"epoch {step.fit.epoch}/{step.fit.epochs} {quality}{counted} {text}"
                for sentence in step.fit.warnings:
                    warning = escape(f"{_run_name(step)}: {sentence}")
                    console.print(f"[yellow]warning[/yellow] {warning}", highlight=False)
            bar.update(
                line,
                total=step.runs,
                completed=left.done,
                description=escape(text),
                count=f"run {step.run}/{step.runs}",
            )

        yield update


class PlainLines:
    """Prints a line when a run starts and ends, and one about every ten seconds in between.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """Count the seconds from now on."""
        self.clock = clock
        self.left = TimeLeft(clock)
        self.begun: dict[int, float] = {}
        self.last: dict[int, FitProgress] = {}
        self.printed = clock()

    def show(self, step: Step) -> None:
        """Print what is new, if it is time."""
        self.left.note(step)
        if step.fit is not None:
            self.last[step.run] = step.fit
            for sentence in step.fit.warnings:
                self._print(f"{_run_name(step)}: warning: {sentence}")
            if self.clock() - self.printed >= SECONDS_BETWEEN_LINES:
                self._print(f"{_run_name(step)}: {self._training(step.fit)}")
        elif step.state != "training":
            self._print(f"{_run_name(step)}: {step.state}{self._ending(step)}")

    def _training(self, fit: FitProgress) -> str:
        return (
            f"epoch {fit.epoch}/{fit.epochs}, loss {fit.loss:.4g}, {_quality(fit)}{_figures(fit)}, "
            f"{clock_text(self.left.seconds())} left for all runs"
        )

    def _ending(self, step: Step) -> str:
        if step.state == "started":
            self.begun[step.run] = self.clock()
        if step.state != "finished" or step.run not in self.begun:
            return ""
        text = f" after {clock_text(self.clock() - self.begun[step.run])}"
        fit = self.last.get(step.run)
        return text if fit is None else f"{text}; last epoch: {_quality(fit)}"

    def _print(self, line: str) -> None:
        self.printed = self.clock()
        print(line, file=sys.stderr, flush=True)


def clock_text(seconds: float) -> str:
    """Return seconds as h:mm:ss, "-:--:--" while they are unknown."""
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _quality(fit: FitProgress) -> str:
    if fit.valid is None:
        return f"validation {fit.metric} unknown"
    return f"validation {fit.metric} {fit.valid:.4f}"


def _figures(fit: FitProgress) -> str:
    return "".join(f", {name} {value:,.6g}" for name, value in fit.figures.items())


def _run_name(step: Step) -> str:
    spec = step.spec
    if len(spec) > LONGEST_SPEC:
        spec = spec[: LONGEST_SPEC - 3] + "..."
    return f"[{step.run}/{step.runs}] {spec} seed {step.seed}"
