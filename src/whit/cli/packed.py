"""`whit pack`, `whit predict` and `whit inspect`: packed files; the last two need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whit.cli.guard import guarded, show_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from whit.runtime import Program

PackedFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .whit file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Backend = Annotated[str, typer.Option(help="auto, native or reference.")]
Threads = Annotated[int, typer.Option(help="Threads that the program may use.")]


LARGEST_WHOLE = 2**53
MOST_CALIBRATION_SAMPLES = 512


@guarded
def pack_run(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default <task>[-int8].whit."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another file.")] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Round float32 layers to 8 bits; ranges from training data."),
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Force a weight format, like head=float32 or '*=planes'."),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option("--forbid", help="A weight format that is not used.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack the model of a finished run into a .whit file."""
    from dataclasses import asdict

    from whit.grammar import parse_call
    from whit.measure.provenance import made_by
    from whit.packing.packer import float_inputs, pack
    from whit.result_folder import load_result
    from whit.spec_strings import spec, task

    result = load_result(folder)
    task_name = Path(parse_call(result.task).name).stem
    output = output or Path(f"{task_name}-int8.whit" if int8 else f"{task_name}.whit")
    technique = spec(result.spec)
    data = technique.prepare_data(task(result.task).load().sealed())
    with float_inputs(result.model):
        packed = pack(
            result.model,
            *data.valid.raw_example(64),
            labels=list(data.class_names) or None,
            info={
                "task": result.task,
                "spec": technique.brief,
                "seed": str(result.seed),
                "made_by": made_by(),
            },
            input_range=data.input_range,
            force=_forced(formats or []),
            forbid=forbid or (),
            calibration=_calibration(data) if int8 else None,
        )
    _save(packed, output, force)
    if as_json:
        layers = [asdict(layer) for layer in packed.layers]
        size = packed.nbytes
        show_json(
            {"file": str(output), "stored_bytes": size, "spec": result.spec, "layers": layers}
        )
        return
    print(packed.report())
    print(f"Saved: {output} ({output.stat().st_size:,} bytes)")


def _forced(texts: list[str]) -> dict[str, str]:
    from whit.errors import WhitError

    forced = {}
    for text in texts:
        module, equals, name = text.partition("=")
        if not equals or not module or not name:
            raise WhitError(
                f"--format was given '{text}'; expected module=format, such as head=float32, or "
                "'*=int8' for every other layer."
            )
        forced[module] = name
    return forced


def _calibration(data: Any) -> Any:
    """Return up to 512 raw training samples, evenly spread."""
    import torch

    count = len(data.train)
    index = torch.arange(0, count, max(1, count // MOST_CALIBRATION_SAMPLES))
    chosen = data.train.subset(index[:MOST_CALIBRATION_SAMPLES])
    return chosen.raw_example(len(chosen))[0]


@guarded
def predict(
    file: PackedFile,
    inputs: Annotated[Path, typer.Argument(help="Samples, .npy or .csv (one a line).")],
    as_json: AsJson = False,
    backend: Backend = "auto",
    threads: Threads = 1,
    planes: Annotated[
        int | None,
        typer.Option(
            help="Use only so many of the highest bit planes of weights stored as planes."
        ),
    ] = None,
) -> None:
    """Predict with a packed file; needs no torch."""
    from whit.runtime import load

    require_file(file)
    program = load(file, backend=backend, threads=threads)
    scores = program(read_inputs(inputs, program), planes)
    classes = scores.argmax(-1) if scores.ndim == 2 and scores.shape[1] > 1 else None
    labels = None if classes is None else [_label(program, int(c)) for c in classes]
    if as_json:
        chosen = None if classes is None else classes.tolist()
        show_json({"classes": chosen, "labels": labels, "scores": scores.tolist()})
        return
    for number, row in enumerate(scores):
        if labels is None:
            print(f"{number}: {' '.join(f'{value:.6g}' for value in row.reshape(-1))}")
        else:
            print(f"{number}: {labels[number]} (score {row.max():.4g})")


@guarded
def inspect_file(file: PackedFile, as_json: AsJson = False) -> None:
    """Show the operators, formats and bytes of a packed file."""
    from whit.measure.cost import cost_of
    from whit.runtime import load

    require_file(file)
    program = load(file)
    cost = cost_of(program.operators, program.activation_peak_bytes)
    size = file.stat().st_size
    if as_json:
        show_json(
            {
                "file": str(file),
                "stored_bytes": size,
                "input": vars(program.input),
                "output_shape": program.output_shape,
                "labels": program.labels,
                "info": dict(program.info),
                "operators": [vars(operator) for operator in program.operators],
                "weight_bytes": cost.weight_bytes,
                "macs_by_width": cost.macs_by_width,
                "activation_peak_bytes": cost.activation_peak_bytes,
                "energy_nj": cost.energy.total_nj,
            }
        )
        return
    _print_program(file, program, size)


def _print_program(file: Path, program: Program, size: int) -> None:
    from rich.console import Console

    from whit.measure.cost import cost_of
    from whit.reporting.layout import macs_text
    from whit.reporting.table import listing

    cost = cost_of(program.operators, program.activation_peak_bytes)
    known = program.input.range
    span = f", values {known[0]:g}..{known[1]:g}" if known else ""
    print(f"{file}: {size:,} bytes, {cost.weight_bytes:,} of them weights and constants")
    print(f"input {list(program.input.shape)} {program.input.dtype}{span}")
    print(f"output {list(program.output_shape)}, labels {', '.join(program.labels) or 'none'}")
    rows = [
        (
            op.name,
            op.weight_format or "-",
            f"{op.weight_count:,}" if op.weight_count else "-",
            f"{op.nonzero_weights / op.weight_count:.0%}" if op.weight_count else "-",
            f"{op.stored_bytes:,}",
            f"{op.macs:,} w{op.weight_bits}a{op.activation_bits}" if op.macs else "-",
            "x".join(map(str, op.output_shape)),
        )
        for op in program.operators
    ]
    heads = ("operator", "format", "weights", "non-zero", "bytes", "MACs", "output")
    Console(width=110).print(listing(heads, rows))
    widths = macs_text(cost.macs_by_width).replace("\n", ", ")
    routed = any(op.conditional for op in program.operators)
    whole = " (if all members of the route ran)" if routed else ""
    print(f"MACs {widths}{whole}; activations at most {cost.activation_peak_bytes:,} bytes")
    print(f"energy {cost.energy.total_nj:.3g} nJ an inference (modelled, 45 nm table)")
    for name, value in program.info.items():
        print(f"{name}: {value}")


def require_file(file: Path) -> None:
    """Check that a file is there.

    Raises:
        ArtifactError: it is not.
    """
    from whit.errors import ArtifactError

    if not file.exists():
        raise ArtifactError(
            f"There is no file '{file}'. `whit compare` and `whit pack` write .whit files."
        )


def _label(program: Program, number: int) -> str:
    return program.labels[number] if number < len(program.labels) else str(number)


def read_inputs(path: Path, program: Program) -> NDArray[Any]:
    """Read samples; a line of a CSV file is one sample, its values in row-major order.

    Raises:
        DataError: the file is missing, damaged, empty, or of another shape.
    """
    import numpy as np

    from whit.errors import DataError

    try:
        if path.suffix == ".csv":
            array = _read_csv(path)
        else:
            array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"There is no file '{path}'.") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"'{path}' cannot be read as .npy or .csv numbers: {error}. Save samples with "
            "numpy.save, or as lines of comma-separated numbers."
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.size == 0:
        raise DataError(f"'{path}' holds no array of numbers.")
    shape = program.input.shape
    if array.ndim == 2 and array.shape[1] == int(np.prod(shape)):
        array = array.reshape(-1, *shape)
    return array


def _read_csv(path: Path) -> NDArray[np.float64]:
    import numpy as np

    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError("the file is empty")
    try:
        float(lines[0].split(",")[0])
    except ValueError:
        lines = lines[1:]  # a line of column names
    array = np.array([[float(value) for value in line.split(",")] for line in lines])
    whole = np.abs(array).max() < LARGEST_WHOLE and np.array_equal(array, np.rint(array))
    return array.astype(np.int64) if whole else array  # NaN and infinity stay, to be refused


def _save(packed: Any, output: Path, force: bool) -> None:
    from whit.cli.saving import described_other
    from whit.errors import WhitError

    before = described_other(output, packed.content)
    if before is not None and not force:
        raise WhitError(
            f"There is another file already: {before}. Choose another name with -o, or replace it "
            "with --force."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        packed.save(output)
    except OSError as error:
        raise WhitError(
            f"'{output}' cannot be written ({error.strerror}). Choose another file with -o."
        ) from None
