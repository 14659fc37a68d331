"""Trained everyday networks in four forms against the best of torch and ONNX Runtime.

    python benchmarks/everyday_networks.py --files build/everyday results/everyday_networks.jsonl

The networks are the tasks' control models: an MLP for digits, conv4 for MNIST and Fashion-MNIST.
Each is trained once with seed 100, in the forms float32, binary and ternary, and packed; int8 is
the float32 network rounded after training, and the ternary network's activations and outer layers
are rounded to 8 bits in the same way. Finished runs of the same technique are taken where `--runs`
has them. Others are made here, for MNIST and Fashion-MNIST short ones: two epochs on every fifth
sample, since speed does not depend on training; every line says how its network was trained. Files
that are there already are not made again.

One line a file and batch size: the median and minimum of all candidates, the best peer, its ratio,
accuracy of the file on the test split, and on how many test images its classes are those of NumPy.
The gate: not slower than the best peer in any line, and faster than it in binary and ternary ones.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import whit
from whit.benchmarking.bench import AHEAD, BEHIND, Plan, run_bench
from whit.measure.provenance import git_state
from whit.packing.packer import float_inputs
from whit.result_folder import load_result
from whit.runtime import load

TASKS = ("digits", "mnist", "fashion_mnist")
SHORT = {"mnist": (2, 5), "fashion_mnist": (2, 5)}  # epochs, and every how manieth sample
SEED = 100
TERNARY = "finite_set_weights(first='real', last='real')"
SPECS = {"float32": "plain()", "binary": "binarized_network()", "ternary": TERNARY}
FORMS = ("float32", "int8", "ternary", "binary")
ROUNDED = ("int8", "ternary")
CALIBRATION, COMPARED = 512, 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", help="file to write")
    parser.add_argument("--files", type=Path, default=Path("build/everyday"), help="of networks")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of finished runs")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--turns", type=int, default=25)
    options = parser.parse_args()
    batches = tuple(int(part) for part in options.batch.split(","))
    lines, missed = [], 0
    for name in options.tasks.split(","):
        about = prepared(name, options.files, options.runs)
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


def prepared(name: str, folder: Path, runs: list[Path]) -> dict:
    """Make the files that are not there; return how each form was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    return {form: made(name, form, folder, runs) for form in FORMS}


def made(name: str, form: str, folder: Path, runs: list[Path]) -> dict:
    """Return how the network of a file was trained; pack it if need be."""
    record = folder / f"{name}-{form}.json"
    if record.exists():
        return json.loads(record.read_text())
    spec = SPECS["float32" if form == "int8" else form]
    model, about = trained(name, spec, runs)
    data = whit.task(name).load()
    step = max(1, len(data.train) // CALIBRATION)
    with float_inputs(model):
        packed = whit.pack(
            model,
            *data.valid.raw_example(64),
            labels=list(data.class_names) or None,
            input_range=data.input_range,
            info={"task": name, "spec": about["spec"], "seed": str(SEED)},
            calibration=data.train.inputs[0][::step][:CALIBRATION] if form in ROUNDED else None,
        )
    packed.save(folder / f"{name}-{form}.whit")
    print(f"{name} {form}:\n{packed.report()}", flush=True)
    record.write_text(json.dumps(about))
    return about


def trained(name: str, spec: str, runs: list[Path]) -> tuple[nn.Module, dict]:
    """Return a trained model and how it was trained: a finished run, else a short one made here."""
    technique, task = whit.spec(spec), whit.task(name)
    data = task.load()
    for path in (path for folder in runs for path in sorted(folder.rglob("result.json"))):
        row = json.loads(path.read_text())
        if (row.get("task"), row.get("spec"), row.get("seed")) == (name, technique.spec, SEED):
            about = about_run(name, spec, row["settings"]["epochs"], len(data.train))
            return load_result(path.parent).model, about
    epochs, part = SHORT.get(name, (task.settings.epochs, 1))
    train = data.train.subset(torch.arange(0, len(data.train), part))
    task = replace(task, load=lambda: replace(data, train=train))
    settings = task.settings.changed(epochs=epochs)
    result = whit.execute(task, technique, settings, seed=SEED)
    return result.model.eval(), about_run(name, spec, epochs, len(train))


def about_run(name: str, spec: str, epochs: int, samples: int) -> dict:
    spec = spec.replace(str(Path(__file__).parent), "benchmarks")
    return {"task": name, "spec": spec, "seed": SEED, "epochs": epochs, "train_samples": samples}


if __name__ == "__main__":
    raise SystemExit(main())
