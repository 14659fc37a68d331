"""Trained everyday networks in four forms against the best of torch and ONNX Runtime.

    python benchmarks/everyday_networks.py --files build/everyday results/everyday_networks.jsonl

The networks are the tasks' control models: an MLP for digits, conv4 for MNIST and Fashion-MNIST.
Each is trained once with seed 100, in the forms float32, binary and ternary (for MNIST and
Fashion-MNIST for one epoch: speed does not depend on training, accuracy does), and packed; int8 is
the float32 network rounded after training, and the ternary network's activations and outer layers
are rounded to 8 bits in the same way. Files that are there already are not made again.

One line a file and batch size: the median and minimum of all candidates, the best peer, its ratio,
accuracy of the file on the test split, and on how many test images its classes are those of NumPy.
The gate: not slower than the best peer in any line, and faster than it in binary and ternary ones.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import whit
from whit.benchmarking.bench import AHEAD, BEHIND, Plan, run_bench
from whit.measure.provenance import git_state
from whit.packing.packer import float_inputs
from whit.result_folder import load_result
from whit.runtime import load

TASKS = {"digits": {}, "mnist": {"epochs": 1}, "fashion_mnist": {"epochs": 1}}
SEED = 100
TERNARY = f"{Path(__file__).with_name('ternary_training.py')}:ternary()"
SPECS = {"float32": "plain()", "binary": "binarized_network()", "ternary": TERNARY}
FORMS = ("float32", "int8", "ternary", "binary")
CALIBRATION, COMPARED = 512, 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", help="file to write")
    parser.add_argument("--files", type=Path, default=Path("build/everyday"), help="of networks")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--turns", type=int, default=25)
    options = parser.parse_args()
    batches = tuple(int(part) for part in options.batch.split(","))
    lines, missed = [], 0
    for name in options.tasks.split(","):
        about = prepared(name, options.files)
        data = whit.task(name).load()
        inputs, target = data.test.inputs[0].numpy(), data.test.target.numpy()
        paths = [options.files / f"{name}-{form}.whit" for form in FORMS]
        plan = Plan(batches=batches, turns=options.turns)
        bench = run_bench(paths, plan, inputs=inputs[:512])
        quality = {str(path): quality_of(path, inputs, target) for path in paths}
        for row in bench.rows:
            form = Path(row.file).stem.partition("-")[2]
            line = {
                **about[form],
                "form": form,
                **{key: value for key, value in row.as_dict().items() if key != "file"},
                **quality[row.file],
                "stored_bytes": row.whit.stored_bytes,
                "gate": gate(row, form),
                "isa": next(n.isa for n in bench.networks if n.file == row.file),
                "machine": bench.machine,
                "peak": None if bench.peak is None else vars(bench.peak),
                "checks": bench.as_dict()["checks"],
                **git_state(),
            }
            lines.append(line)
            missed += line["gate"] == "missed"
            print(text_of(line), flush=True)
    if options.results:
        options.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} lines, {missed} of them miss the gate")
    return bool(missed)


def gate(row, form: str) -> str:
    """Say whether a line keeps the gate."""
    if row.verdict not in (AHEAD, "equal", BEHIND):
        return row.verdict
    needed = (AHEAD,) if form in ("binary", "ternary") else (AHEAD, "equal")
    return "kept" if row.verdict in needed else "missed"


def text_of(line: dict) -> str:
    times = {c["name"]: c["median_ms"] for c in line["candidates"]}
    own = times.pop(next(iter(times)))
    best = min(times, key=times.get)
    return (
        f"{line['task']:14} {line['form']:8} batch {line['batch']:3}: {own:8.4f} ms, best peer "
        f"{times[best]:8.4f} ms, {times[best] / own:5.2f}x, torch {line['torch_ratio']:.2f}x, "
        f"accuracy {line['test_accuracy']:.4f}, classes as NumPy {line['same_class']} of "
        f"{line['compared']}: {line['gate']} ({line['verdict']}; {best})"
    )


def quality_of(path: Path, inputs: np.ndarray, target: np.ndarray) -> dict:
    program, reference = load(path), load(path, backend="reference")
    parts = [program(inputs[n : n + 250]).argmax(-1) for n in range(0, len(inputs), 250)]
    classes = np.concatenate(parts)
    compared = inputs[:COMPARED]
    same = (reference(compared).argmax(-1) == classes[:COMPARED]).sum()
    return {
        "test_accuracy": float((classes == target).mean()),
        "same_class": int(same),
        "compared": len(compared),
    }


def prepared(name: str, folder: Path) -> dict:
    """Train and pack what is not there; return task, spec and settings by form."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{name}.json"
    if record.exists():
        return json.loads(record.read_text())
    about = {}
    table = whit.compare(
        [SPECS["binary"], SPECS["ternary"]],
        name,
        seeds=[SEED],
        settings=TASKS[name],
        out=folder / "runs",
    )
    results = dict(zip(("float32", "binary", "ternary"), table.rows, strict=True))
    data = whit.task(name).load()
    step = max(1, len(data.train) // CALIBRATION)
    calibration = data.train.inputs[0][::step][:CALIBRATION]
    for form in FORMS:
        run = results["float32" if form == "int8" else form].best
        model = load_result(run.planned.folder).model
        with float_inputs(model):
            packed = whit.pack(
                model,
                *data.valid.raw_example(64),
                labels=list(data.class_names) or None,
                input_range=data.input_range,
                info={"task": name, "spec": run.planned.entry.label, "seed": str(SEED)},
                calibration=calibration if form in ("int8", "ternary") else None,
            )
        packed.save(folder / f"{name}-{form}.whit")
        print(f"{name} {form}:\n{packed.report()}", flush=True)
        spec = run.planned.entry.label.replace(str(Path(__file__).parent), "benchmarks")
        about[form] = {
            "task": name,
            "spec": spec,
            "seed": SEED,
            "epochs": run.planned.settings.epochs,
        }
    record.write_text(json.dumps(about))
    return about


if __name__ == "__main__":
    raise SystemExit(main())
