"""The command line `whit`.

Commands import what they need when they run: help is quick, and needs no torch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from whit.cli.benchmarking import bench
from whit.cli.checking import check
from whit.cli.describe import list_all, show
from whit.cli.exporting import export
from whit.cli.machine import doctor
from whit.cli.packed import inspect_file, pack_run, predict
from whit.cli.scaffold import new
from whit.cli.training import compare, report, run

app = typer.Typer(
    name="whit",
    help="Fit neural networks into the smallest part of a machine that still does the job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_all)
app.command("show")(show)
app.command("check")(check)
app.command("run")(run)
app.command("compare")(compare)
app.command("report")(report)
app.command("pack")(pack_run)
app.command("predict")(predict)
app.command("inspect")(inspect_file)
app.command("export")(export)
app.command("bench")(bench)
app.command("doctor")(doctor)
app.command("new")(new)


def _print_version(wanted: bool) -> None:
    if wanted:
        from whit import __version__

        print(f"whit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Fit neural networks into the smallest part of a machine that still does the job."""


def main() -> None:
    """Run the command line."""
    app()
