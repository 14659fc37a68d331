"""`whit export`: a packed file as C source or as an ONNX file; needs no torch."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whit.cli.guard import guarded, show_json
from whit.cli.packed import AsJson, PackedFile, read_inputs, require_file

if TYPE_CHECKING:
    from whit.runtime import Program

TARGETS = ("c", "onnx")


@guarded
def export(  # noqa: PLR0913 - one parameter per option of the command
    file: PackedFile,
    to: Annotated[str, typer.Option("--to", help="c or onnx.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the C files, or the ONNX file."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="Samples to check ONNX on, .npy or .csv; else drawn ones."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the files and of the C functions.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="ONNX: exactly the integers of the file, not QDQ.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a packed file as C source or as ONNX; ONNX is checked in ONNX Runtime right away."""
    from whit.core.options import nearest
    from whit.errors import WhitError
    from whit.runtime import load

    if to not in TARGETS:
        raise WhitError(f"There is no export to '{to}'. {nearest(to, TARGETS)}")
    if to == "c" and (check is not None or exact):
        raise WhitError(
            "--check and --exact belong to --to onnx. C source keeps the integers of the file; "
            "compile it and compare it with `whit predict`."
        )
    require_file(file)
    program = load(file)
    if to == "c":
        _export_c(program, output or Path(), name or _identifier(file.stem), force, as_json)
        return
    target = output or Path(f"{name or file.stem}.onnx")
    samples = None if check is None else read_inputs(check, program)
    _export_onnx(program, target, samples, "exact" if exact else "auto", force, as_json)


def _export_c(program: Program, folder: Path, name: str, force: bool, as_json: bool) -> None:
    from whit.export.c_compile import c_sections
    from whit.export.c_source import export_c

    with tempfile.TemporaryDirectory() as place:
        made = export_c(program, Path(place), name)
        source, header = _moved([made.source, made.header], folder, force)
    compiler = shutil.which("cc") and shutil.which("size")
    sections = c_sections(source) if compiler else None
    if as_json:
        show_json(
            {
                "target": "c",
                "source": str(source),
                "header": str(header),
                "arena_bytes": made.arena_bytes,
                "constant_bytes": made.constant_bytes,
                "sections": sections,
            }
        )
        return
    print(f"Saved: {source} and {header}")
    print(f"{made.constant_bytes:,} bytes of constants, {made.arena_bytes:,} bytes of memory")
    if sections is None:
        print("No C compiler is installed here: the bytes of code are not known.")
    else:
        listed = ", ".join(f"{part} {size:,}" for part, size in sections.items())
        print(f"cc -Os makes these bytes of it: {listed}")


def _export_onnx(
    program: Program, target: Path, samples: Any, quantized: str, force: bool, as_json: bool
) -> None:
    from whit.errors import WhitError
    from whit.export.onnx_check import Disagreement
    from whit.export.onnx_export import export_onnx

    _refuse_folder(target)
    with tempfile.TemporaryDirectory() as place:
        try:
            made = export_onnx(program, Path(place) / target.name, samples, quantized=quantized)
        except Disagreement as error:
            raise WhitError(error.said("--exact")) from None
        (path,) = _moved([made.path], target.parent, force)
    if as_json:
        show_json({"target": "onnx", **vars(made), "path": str(path)})
        return
    print(f"Saved: {path} ({made.nbytes:,} bytes)")
    print(made.report())


def _moved(files: Sequence[Path], folder: Path, force: bool) -> list[Path]:
    """Copy finished files to a folder; another file there is replaced only when told.

    Raises:
        WhitError: there is another file, or the folder cannot be written.
    """
    from whit.atomic_files import write_atomically
    from whit.errors import WhitError

    targets = [folder / file.name for file in files]
    for file, target in zip(files, targets, strict=True):
        _refuse_folder(target)
        if not force and target.exists() and target.read_bytes() != file.read_bytes():
            raise WhitError(
                f"There is another file already: {target} ({target.stat().st_size:,} bytes). "
                "Choose another place with -o, or replace it with --force."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, target in zip(files, targets, strict=True):
            write_atomically(target, partial(shutil.copyfile, file))
    except OSError as error:
        raise WhitError(
            f"'{folder}' cannot be written ({error.strerror}). Choose another place with -o."
        ) from None
    return targets


def _refuse_folder(target: Path) -> None:
    from whit.errors import WhitError

    if target.is_dir():
        raise WhitError(f"'{target}' is a folder. Choose another name with -o.")


def _identifier(stem: str) -> str:
    """Return a C name that reads like the name of a file."""
    plain = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return plain if plain[:1].isalpha() else f"model_{plain}"
