"""`whit run` and `whit compare`: train, measure, and keep what was found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whit.atomic_files import require_writable
from whit.cli.guard import fail, guarded, show_json
from whit.cli.progress import shown_progress
from whit.cli.saving import Saved, save_comparison_files, save_report

if TYPE_CHECKING:
    from rich.console import Console

    from whit.comparison import Comparison
    from whit.core.task import Task

OUT_HELP = "Folder of runs and results; finished, unchanged runs in it are reused."

TaskText = Annotated[str, typer.Argument(metavar="TASK", help="A task, or my_file.py:task.")]
First = Annotated[int, typer.Option("--seed", help="First seed.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples per step.")]
Optimizer = Annotated[str | None, typer.Option(help="adamw, adam or sgd.")]
Limits = Annotated[str, typer.Option(help="Limits, like 'stored_bytes <= 60 kB'.")]
Model = Annotated[str | None, typer.Option(help="The task's control model, like conv4.")]
Width = Annotated[float | None, typer.Option(help="Multiplies the control model's sizes.")]
Out = Annotated[Path, typer.Option(help=OUT_HELP)]
Tolerance = Annotated[
    float, typer.Option(help="Validation quality that the recommended technique may lose, 0 to 1.")
]
Jobs = Annotated[
    int, typer.Option(help="Runs carried out at the same time, each in a process of its own.")
]
Again = Annotated[bool, typer.Option("--again", help="Repeat finished runs too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@guarded
def run(  # noqa: PLR0913 - one parameter per option of the command
    task: TaskText,
    spec: Annotated[str, typer.Argument(help="Technique, like 'binarized_network()'.")] = "plain()",
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 1,
    seed: First = 0,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    budget: Limits = "",
    model: Model = None,
    width: Width = None,
    out: Out = Path("whit-runs"),
    jobs: Jobs = 1,
    again: Again = False,
    as_json: AsJson = False,
) -> None:
    """Train one technique on a task and print its scorecard."""
    changes = _changes(epochs, learning_rate, batch_size, optimizer)
    ways = _Ways(out, jobs, again, control=False)
    table = _carried_out(task, [spec], _seeds(seeds, seed), changes, budget, (model, width), ways)
    if as_json:
        show_json(table.as_dict()["rows"][0] | {"runs": [r.row for r in table.rows[0].runs]})
        return
    from whit.reporting.table import card_view, comparison_view

    console = _console()
    row = table.rows[0]
    if len(row.runs) == 1:
        console.print(f"[bold]{table.task}[/bold]: {row.label}", highlight=False)
        console.print(card_view(row.best.columns))
    else:
        console.print(comparison_view(table, control=False))
    for sentence in table.budget.violations({**row.means, "reasons": row.reasons}):
        console.print(f"Budget: {sentence}", style="yellow", highlight=False)
    for finished in row.runs:
        state = "reused" if finished.reused else "saved"
        print(f"seed {finished.planned.seed} {state}: {finished.planned.folder}")


@guarded
def compare(  # noqa: PLR0913 - one parameter per option of the command
    task: TaskText,
    specs: Annotated[
        list[str] | None, typer.Argument(help="Techniques; a good selection by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    seed: First = 0,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    budget: Limits = "",
    model: Model = None,
    width: Width = None,
    out: Out = Path("whit-runs"),
    save_to: Annotated[Path, typer.Option(help="Folder for the recommended model.")] = Path("."),
    tolerance: Tolerance = 0.01,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Try three learning rates for every technique and the control, by "
            "validation; the cost is charged.",
        ),
    ] = False,
    second_controls: Annotated[
        bool,
        typer.Option(
            "--second-controls", help="Train the control also with a technique's own settings (@)."
        ),
    ] = False,
    jobs: Jobs = 1,
    again: Again = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show bits and bytes of every layer as well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare techniques with the plain control; write the best as <task>.whit, and a report."""
    from whit.reporting.recommendation import check_tolerance

    check_tolerance(tolerance)
    changes = _changes(epochs, learning_rate, batch_size, optimizer)
    require_writable(save_to)
    ways = _Ways(out, jobs, again, tune=tune, second_controls=second_controls)
    table = _carried_out(task, specs, _seeds(seeds, seed), changes, budget, (model, width), ways)
    table = replace(table, tolerance=tolerance)
    saved = save_comparison_files(table, save_to)
    if as_json:
        files = {"files": saved.files, "replaced": saved.replaced, "report": saved.report}
        show_json({**table.as_dict(), **files})
    else:
        _print_comparison(table, saved, layers)
    if table.failed and len(table.failed) == len(table.rows) - 1:
        reasons = "; ".join(f"{row.label}: {row.failed.rstrip('.')}" for row in table.failed)
        fail(f"No technique but the control could be carried out. {reasons}.")


@guarded
def report(
    task: TaskText,
    out: Out = Path("whit-runs"),
    save_to: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Write the report page of the last comparison of a task again, without training."""
    from whit.saved_comparison import load_comparison

    require_writable(save_to)
    table = load_comparison(out, task)
    page = save_report(table, save_to)
    if as_json:
        show_json({**table.as_dict(), "report": str(page)})
        return
    for row in table.rows:
        if row.stale:
            print(f"Stale: {row.label}: code, data or versions have changed since; compare again.")
    print(f"Report:  {page}")


def _print_comparison(table: Comparison, saved: Saved, layers: bool) -> None:
    from whit.reporting.table import comparison_layers, comparison_view

    _console().print(comparison_view(table))
    if layers:
        _console().print(comparison_layers(table))
    print(f"Results: {Path(table.out) / 'results.jsonl'}")
    print(f"Report:  {saved.report}")
    if not saved.files:
        print("Nothing was saved: the recommended model has no packed file (see the notes above).")
        return
    for text in saved.replaced:
        print(f"This replaces {text}.")
    print(f"Saved:   {' and '.join(saved.files)}; the model also as {saved.kept}")
    print(f"Try:     whit predict {' '.join(saved.files)}")


@dataclass(frozen=True)
class _Ways:
    """How runs are carried out: what `run_entries` takes beside the experiment itself."""

    out: Path
    jobs: int
    again: bool
    control: bool = True
    tune: bool = False
    second_controls: bool = False


def _carried_out(
    task: str,
    specs: list[str] | None,
    seeds: list[int],
    changes: dict[str, object],
    limits: str,
    control_model: tuple[str | None, float | None],
    ways: _Ways,
) -> Comparison:
    # All that can be wrong is checked before the first training.
    from whit.comparison import DEFAULT, distinct, run_entries
    from whit.core.budget import Budget
    from whit.core.technique import PLAIN
    from whit.spec_strings import parse_entry

    budget = Budget(limits)
    made = task_of(task, *control_model)
    entries = [parse_entry(text) for text in (specs or DEFAULT)]
    if ways.control:
        entries = distinct([parse_entry(PLAIN), *entries])
    require_writable(ways.out)
    with shown_progress() as progress:
        return run_entries(
            entries, made, seeds, settings=changes, budget=budget, progress=progress, **vars(ways)
        )


def task_of(text: str, model: str | None, width: float | None) -> Task:
    """Return the task of a command, with the options `--model` and `--width`."""
    from whit.errors import TaskError
    from whit.grammar import Call, parse_call
    from whit.spec_strings import task

    if text.endswith(".py") and ":" not in text:
        raise TaskError(f"'{text}' is a file; name the task in it: {text}:task.")
    call = parse_call(text)
    options = {"model": model, "width": width}
    given = {name: value for name, value in options.items() if value is not None}
    return task(str(Call(call.name, {**call.options, **given}, call.reference)))


def _changes(
    epochs: int | None, learning_rate: float | None, batch_size: int | None, optimizer: str | None
) -> dict[str, object]:
    from whit.core.settings import Settings

    given = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "optimizer": optimizer,
    }
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    Settings().changed(**changes)
    return changes


def _seeds(count: int, first: int) -> list[int]:
    from whit.runs import seed_list

    return seed_list([first + number for number in seed_list(count)])


def _console() -> Console:
    """Return a console as wide as the table where nobody's window limits it."""
    from rich.console import Console

    from whit.reporting.table import WIDTH

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)
