"""One network in five forms: torch, NumPy, the C++ core, C and ONNX give the same classes.

    whit compare digits --seed 100 --seeds 5 --out runs
    whit run mnist --seed 100 --out runs
    whit run benchmarks/mnist_networks.py:residual --seed 100 --out runs
    python benchmarks/packed_agreement.py runs results/packed_agreement.jsonl
    python benchmarks/packed_agreement.py runs results/native_agreement.jsonl --native

Every finished run of the folder is packed, and once more rounded to 8 bits where it holds float32
weights. One line a network: bytes, how many of the test inputs get the same class as in NumPy, and
whether C gives the same bits. ONNX is written twice: with QDQ patterns, where single values can be
one step apart and a near tie can fall the other way, and with the integers of the file (exact).
Labels are not looked at. A network of 8 bits is compared with torch
for information only: torch computes the float network. `--native` leaves C and ONNX out.
"""

import argparse
import ctypes
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

import whit
from whit.errors import NoEffect
from whit.export import c_sections, export_c, export_onnx
from whit.measure.provenance import provenance
from whit.packing.packer import Packed
from whit.result_folder import load_result
from whit.runtime import Program, decode_program

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
CALIBRATION = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", help="folder of runs; digits by default")
    parser.add_argument("results", type=Path, nargs="?", help="file to write")
    parser.add_argument("--native", action="store_true", help="torch, NumPy and C++ alone")
    options = parser.parse_args()
    if options.runs is None:
        options.runs = Path(tempfile.mkdtemp())
        specs = ["binarized_network()", "one_cycle_pruning()"]
        whit.compare(specs, task="digits", seeds=1, out=options.runs)
    folders = sorted(path.parent for path in options.runs.glob("*/*/model.whit"))
    lines, bad = [], 0
    with tempfile.TemporaryDirectory() as place:
        for folder in folders:
            for row in compare_run(folder, None if options.native else Path(place)):
                lines.append(json.dumps(row))
                bad += not agrees(row)
                said = {key: row[key] for key in row if key not in ("provenance", "c_sections")}
                print(said, flush=True)
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} networks, {bad} of them disagree")
    return bool(bad)


def agrees(row: dict) -> bool:
    """Say whether all forms of a network give the same classes, and integers the same bits."""
    same = {row["same_class_native"], row["samples"]}
    same |= {row[key] for key in ("same_class_c", "same_class_onnx_exact") if key in row}
    if not row["int8"]:
        same.add(row["same_class_torch"])
    identical = row["native_bit_identical"] and row.get("c_bit_identical", True)
    return len(same) == 1 and (identical or not row["integer"])


def compare_run(folder: Path, place: Path | None) -> list[dict]:
    result = load_result(folder)
    data = whit.task(result.task).load()
    inputs = data.test.inputs[0]
    with torch.no_grad():
        parts = [result.model.eval()(part) for part in inputs.split(256)]
    scores = torch.cat(parts, -2).numpy()  # members may stand before the batch
    (example,) = data.valid.raw_example(64)
    step = max(1, len(data.train) // CALIBRATION)
    calibration = data.train.inputs[0][::step][:CALIBRATION]
    rows = []
    for int8 in (False, True):
        try:
            packed = whit.pack(result.model, example, calibration=calibration if int8 else None)
        except NoEffect:
            continue
        about = {"task": result.task, "spec": result.spec, "seed": result.seed, "int8": int8}
        rows.append(about | compare_forms(packed, inputs.numpy(), scores, place))
    return rows


def compare_forms(
    packed: Packed, inputs: NDArray, torch_scores: NDArray, place: Path | None
) -> dict:
    program = decode_program(packed.content, "reference")
    native = decode_program(packed.content, "native")
    scores, native_scores = program(inputs), native(inputs)
    classes = scores.argmax(-1)
    row = {
        "stored_bytes": packed.nbytes,
        "formats": [layer.format for layer in packed.layers],
        "integer": is_integer(program),
        "isa": native.info["isa"],
        "samples": classes.size,
        "same_class_torch": int((torch_scores.argmax(-1) == classes).sum()),
        "same_class_native": int((native_scores.argmax(-1) == classes).sum()),
        "native_bit_identical": bool(np.array_equal(native_scores, scores)),
        "largest_difference_torch": float(np.abs(torch_scores - scores).max()),
        "largest_difference_native": float(np.abs(native_scores - scores).max()),
    }
    others = {} if place is None else compare_exports(program, inputs, scores, place)
    return row | others | {"provenance": provenance()}


def compare_exports(program: Program, inputs: NDArray, scores: NDArray, place: Path) -> dict:
    classes = scores.argmax(-1)
    c_scores, exported = run_c(program, inputs, place)
    exact = export_onnx(program, place / "exact.onnx", inputs[:256], quantized="exact")
    exact_scores = run_onnx(exact.path, inputs)
    onnx = export_onnx(program, place / "model.onnx", inputs[:256], quantized="qdq")
    onnx_scores = run_onnx(onnx.path, inputs) if onnx.merged else exact_scores
    return {
        "same_class_c": int((c_scores.argmax(-1) == classes).sum()),
        "same_class_onnx": int((onnx_scores.argmax(-1) == classes).sum()),
        "same_class_onnx_exact": int((exact_scores.argmax(-1) == classes).sum()),
        "onnx_qdq_layers": onnx.merged,
        "c_bit_identical": bool(np.array_equal(c_scores, scores)),
        "largest_difference_c": float(np.abs(c_scores - scores).max()),
        "largest_difference_onnx": float(np.abs(onnx_scores - scores).max()),
        "largest_difference_onnx_exact": float(np.abs(exact_scores - scores).max()),
        "onnx_bytes": onnx.nbytes,
        "c_arena_bytes": exported.arena_bytes,
        "c_constant_bytes": exported.constant_bytes,
        "c_sections": c_sections(exported.source, "gcc"),
    }


def is_integer(program: Program) -> bool:
    """Say whether all values but the output are signs or integers."""
    return all(step.result.domain != "float32" for step in program.steps[:-1])


def run_onnx(path: Path, inputs: NDArray) -> NDArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    chunks = range(0, len(inputs), 250)
    parts = [session.run(None, {name: inputs[start : start + 250]})[0] for start in chunks]
    return np.concatenate(parts, -2)


def run_c(program: Program, inputs: NDArray, place: Path) -> tuple[NDArray, object]:
    exported = export_c(program, place, "model")
    library = place / f"model{np.random.default_rng().integers(1 << 60)}.so"
    command = ["gcc", *FLAGS, "-shared", "-fPIC", str(exported.source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    predict = ctypes.CDLL(str(library)).model_predict
    samples = np.ascontiguousarray(inputs, dtype=program.input.dtype)
    output = np.zeros((len(samples), *program.output_shape), dtype=np.float32)
    for sample, target in zip(samples, output, strict=True):
        if predict(ctypes.c_void_p(sample.ctypes.data), ctypes.c_void_p(target.ctypes.data)):
            raise SystemExit("the C program refused an input")
    return (output.swapaxes(0, 1) if program.leading else output), exported


if __name__ == "__main__":
    raise SystemExit(main())
