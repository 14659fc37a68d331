"""`whit bench`: packed files against torch and ONNX Runtime on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whit.cli.guard import command_line, finite, guarded
from whit.cli.packed import read_inputs, require_file

if TYPE_CHECKING:
    from whit.benchmarking.bench import Bench

STDOUT = "-"


@guarded
def bench(  # noqa: PLR0913 - one parameter per option of the command
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="One or more .whit files.")
    ],
    batch: Annotated[str, typer.Option(help="Samples of one call, such as 1,64.")] = "1,64",
    threads: Annotated[str, typer.Option(help="Threads of every candidate, such as 1,2.")] = "1",
    repetitions: Annotated[
        int, typer.Option(help="Turns of every candidate, each of about 5 ms.")
    ] = 15,
    cold: Annotated[
        bool, typer.Option("--cold", help="Time with empty caches too, as after other work.")
    ] = False,
    peers: Annotated[
        str, typer.Option(help="all, none, or some of torch,torch-int8,onnx,onnx-int8.")
    ] = "all",
    inputs: Annotated[
        Path | None,
        typer.Option("--inputs", help="Samples of one file, .npy or .csv; else drawn ones."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON to this file; - prints it.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a page with plots to this file.")
    ] = None,
) -> None:
    """Time packed files against what one would run instead, in turns, on this machine."""
    from whit.benchmarking.bench import Plan, run_bench
    from whit.errors import WhitError
    from whit.runtime import load

    for file in files:
        require_file(file)
    if inputs is not None and len(files) > 1:
        raise WhitError("--inputs belongs to one file; time the others by commands of their own.")
    plan = Plan(
        _numbers(batch, "batch"), _numbers(threads, "threads"), repetitions, cold, _peers(peers)
    )
    samples = None if inputs is None else read_inputs(inputs, load(files[0]))
    found = run_bench(files, plan, inputs=samples, command=command_line(), tell=_tell)
    if json_file is None or str(json_file) != STDOUT:
        _print(found)
    if json_file is not None:
        _write_json(found, json_file)
    if report is not None:
        from whit.reporting.page_bench import write_bench_page

        path = write_bench_page(found, report)
        print(f"Report: {path}", file=sys.stderr if str(json_file) == STDOUT else sys.stdout)


def _print(found: Bench) -> None:
    from rich.console import Console

    from whit.reporting.bench_table import WIDTH, bench_view

    console = Console()
    # A pipe has no width of its own.
    width = console.width if console.is_terminal else WIDTH
    Console(width=width, highlight=False).print(bench_view(found))


def _write_json(found: Bench, path: Path) -> None:
    import json

    from whit.atomic_files import write_atomically
    from whit.errors import WhitError

    text = json.dumps(finite(found.as_dict()), indent=1)
    if str(path) == STDOUT:
        print(text)
        return
    try:
        write_atomically(path, lambda partial: partial.write_text(text + "\n"))
    except OSError as error:
        raise WhitError(
            f"'{path}' cannot be written ({error.strerror}). Choose another file with --json."
        ) from None
    print(f"Saved: {path}")


def _numbers(text: str, option: str) -> tuple[int, ...]:
    from whit.errors import WhitError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise WhitError(
            f"--{option} was given as '{text}'; give whole numbers with commas, such as 1,64."
        ) from None


def _peers(text: str) -> tuple[str, ...]:
    from whit.benchmarking.peers import GROUPS, PEERS
    from whit.errors import WhitError

    if text in ("all", "none"):
        return PEERS if text == "all" else ()
    wanted: list[str] = []
    for part in text.split(","):
        if part not in GROUPS:
            raise WhitError(
                f"--peers was given '{part}'; give all, none, or some of {','.join(GROUPS)}."
            )
        wanted += GROUPS[part]
    return tuple(name for name in PEERS if name in wanted)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
