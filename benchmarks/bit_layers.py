r"""One file, many precisions: accuracy and time of a packed network by the bit planes it uses.

    python benchmarks/bit_layers.py "mnist(model='mlp4')" --bits 7
    python benchmarks/bit_layers.py "mnist(model='mlp4')" --bits 7 --seed 100 --seeds 3 --test \
        --out results/bit_layers.jsonl

Trains the control, stores it as bit layers without retraining, and predicts with 1 plane, 2, 3, ...
One line a network and number of planes: accuracy, milliseconds of one sample (the median of calls
in turns, so ratios within a run), and whether all planes give the dense product of the integers bit
for bit. Validation, or with --test the test split: for a frozen run on fresh seeds only.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

import whit
from whit.measure.provenance import provenance
from whit.runtime import Program

CALLS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--bits", type=int, default=7, help="of the magnitude")
    parser.add_argument("--activation-bits", type=int)
    parser.add_argument("--step", default="channel")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(options.seed, options.seed + options.seeds):
        for row in rows_of(options, seed):
            print(row["planes"], row["accuracy"], row["latency_ms"], flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def rows_of(options: argparse.Namespace, seed: int) -> list[dict]:
    task = whit.task(options.task)
    settings = task.settings
    if options.epochs:
        settings = settings.changed(epochs=options.epochs)
    call = f"precision_batching(bits={options.bits}, activation_bits={options.activation_bits}"
    result = whit.execute(task, whit.spec(f"{call}, step='{options.step}')"), settings, seed=seed)
    real = whit.execute(task, whit.spec("plain()"), settings, seed=seed)
    data = task.load()
    split = data.test if options.test else data.valid
    inputs, target = split.inputs[0].numpy(), split.target.numpy()
    program = result.packed.program
    counts = [*range(1, options.bits + 2), None]
    times = latencies(program, inputs[:1], counts)
    about = {
        "task": options.task,
        "spec": result.spec,
        "seed": seed,
        "split": "test" if options.test else "valid",
        "settings": settings.as_dict(),
        "stored_bytes": result.packed.nbytes,
        "real_bytes": real.packed.nbytes,
        "real_accuracy": accuracy(real.packed.program(inputs), target),
        "identity": planes_add_up(program),
        "isa": program.info.get("isa", "reference"),
        "provenance": provenance(),
    }
    found = []
    for planes in counts:
        share = accuracy(program(inputs, planes=planes), target)
        own = {"planes": planes or "all", "accuracy": share, "latency_ms": times[planes]}
        found.append(about | own)
    return found


def accuracy(scores: NDArray, target: NDArray) -> float:
    return float((scores.argmax(-1) == target).mean())


def latencies(program: Program, sample: NDArray, counts: list) -> dict:
    seconds: dict = {planes: [] for planes in counts}
    for _ in range(CALLS):
        for planes in counts:
            begin = time.perf_counter()
            program(sample, planes=planes)
            seconds[planes].append(time.perf_counter() - begin)
    return {planes: 1e3 * median(found) for planes, found in seconds.items()}


def planes_add_up(program: Program) -> bool:
    """Say whether the planes of every weight, summed, give its product with whole numbers."""
    generator = np.random.default_rng(0)
    for step in program.steps:
        weight = step.operator.matrix
        if weight is None or weight.form.name != "planes":
            continue
        count, integers = weight.bits, weight.values.astype(np.int64)
        x = generator.integers(-128, 128, (4, weight.columns))
        total = np.zeros((4, weight.rows), np.int64)
        for place in range(count):
            plane = (integers >> place) & 1
            sign = -1 if place == count - 1 else 1
            total += sign * (1 << place) * (x @ plane.T)
        if not np.array_equal(total, x @ integers.T):
            return False
    return True


if __name__ == "__main__":
    main()
