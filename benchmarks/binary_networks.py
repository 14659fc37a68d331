r"""Choose settings of binary networks on validation; the test split is never read.

    python benchmarks/binary_networks.py "mnist(model='conv4')" \
        "binarized_network(first='real', last='real') @ epochs=6" "plain() @ epochs=6" --seeds 2
    python benchmarks/binary_networks.py cifar10 "binary_densenet() @ epochs=2" --out trials.jsonl

One line a run: validation quality by epoch, seconds, and the bits of each layer. What is chosen
here is then run once, at fresh seeds and beside its float control, by `whit compare`, which reads
the test split:

    whit compare "mnist(model='conv4')" "binarized_network(first='real', last='real')" \
        --epochs 6 --seed 100 --seeds 3

Training settings follow a technique behind an @, as in `whit compare`.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import whit
from whit.core.execution import Conditions, train
from whit.core.fit import Progress
from whit.parts.level_counts import level_summary
from whit.spec_strings import parse_entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("specs", nargs="+", metavar="SPEC")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no line for each epoch")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text in options.specs:
        for seed in range(options.seed, options.seed + options.seeds):
            row = trial(options.task, text, seed, options.quiet)
            print(f"{row['valid']:.4f}  seed {seed}  {row['seconds']:.0f} s  {text}", flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def trial(task_text: str, text: str, seed: int, quiet: bool) -> dict:
    task = whit.task(task_text)
    entry = parse_entry(text)
    settings = task.settings.changed(**entry.settings_changes)

    def told(progress: Progress) -> None:
        if not quiet:
            print(f"  epoch {progress.epoch}: {progress.loss:.4f} {progress.valid:.4f}", flush=True)

    begin = time.perf_counter()
    trained = train(task, entry.technique, settings, Conditions(seed=seed, progress=told))
    return {
        "task": task_text,
        "spec": text,
        "seed": seed,
        "valid": trained.run.evaluate(trained.model),
        "seconds": time.perf_counter() - begin,
        "threads": torch.get_num_threads(),
        "history": trained.run.history,
        "layers": [str(row) for row in level_summary(trained.model)],
    }


if __name__ == "__main__":
    main()
