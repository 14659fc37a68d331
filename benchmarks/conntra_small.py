"""CoNNTrA on small networks: Iris 4-10-3, digits 64-32-10, and the 2-2-1 network of 3^9 settings.

    python benchmarks/conntra_small.py iris --seeds 20 --out results/conntra_small.jsonl
    python benchmarks/conntra_small.py digits --seeds 5 --out results/conntra_small.jsonl
    python benchmarks/conntra_small.py oracle --seeds 20 --out results/conntra_small.jsonl

Each network is a task's own (model='mlp2'): ternary weights and biases by coordinate descent from
random values, then the float network of the same architecture by gradients. Validation only: the
test split is sealed. The oracle descends from one random start after another until it reaches the
lowest loss among all settings, which are all tried.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import whit
from whit.core.execution import Conditions, train
from whit.measure.provenance import provenance
from whit.methods.low_bit.conntra import conntra_fit
from whit.procedures.coordinate_descent.options import SweepOptions

TASKS = {"iris": "iris(model='mlp2')", "digits": "digits(model='mlp2', width={width})"}
DIGITS_HIDDEN = 32


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    rows = [one(options, options.first_seed + number) for number in range(options.seeds)]
    if options.what != "oracle":
        found = [row["valid_accuracy"] for row in rows]
        print(f"median validation accuracy {statistics.median(found):.4f}, lowest {min(found):.4f}")
    else:
        starts = [row["starts"] for row in rows]
        print(f"starts until the global minimum: median {statistics.median(starts)}, {starts}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("iris", "digits", "oracle"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sweeps", type=int, default=8, help="at most")
    parser.add_argument("--technique", default="", help="options of conntra, such as 'guided=0'")
    parser.add_argument("--most-starts", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def one(options: argparse.Namespace, seed: int) -> dict[str, object]:
    row = {"benchmark": "conntra_small", "what": options.what, "seed": seed}
    row |= oracle(options, seed) if options.what == "oracle" else learnt(options, seed)
    print(json.dumps(row), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.write(json.dumps({**row, "provenance": provenance()}) + "\n")
    return row


def learnt(options: argparse.Namespace, seed: int) -> dict[str, object]:
    """Train the ternary network and the float one, and say how well they do."""
    whole = hidden_units(TASKS["digits"].format(width=1.0))
    task = whit.task(TASKS[options.what].format(width=DIGITS_HIDDEN / whole))
    more = f", {options.technique}" if options.technique else ""
    technique = whit.spec(f"conntra(scorer='exact', sweeps={options.sweeps}{more})")
    ternary = train(task, technique, task.settings, Conditions(seed=seed))
    control = train(task, whit.Technique(), task.settings, Conditions(seed=seed))
    weights = sum(p.numel() for p in ternary.model.parameters())
    history = ternary.run.history[-1]
    return {
        "task": task.name,
        "spec": technique.spec,
        "weights": weights,
        "sweeps": len(history["loss"]),
        "loss": history["loss"][-1],
        **accuracies(ternary),
        "train_seconds": round(ternary.run.meter.charge().train_seconds, 3),
        "train_macs": ternary.run.meter.charge().train_macs,
        "bytes_2_bits": math.ceil(weights / 4),
        "bytes_float32": 4 * weights,
        "bytes_float64": 8 * weights,
        "control": accuracies(control)
        | {
            "train_seconds": round(control.run.meter.charge().train_seconds, 3),
            "train_macs": control.run.meter.charge().train_macs,
        },
    }


def hidden_units(task: str) -> int:
    made = whit.task(task)
    model = made.build_model(made.checked_data().sealed(), {})
    return next(m.out_features for m in model.modules() if isinstance(m, nn.Linear))


def accuracies(trained) -> dict[str, float]:
    return {
        "train_accuracy": trained.run.evaluate(trained.model, "train"),
        "valid_accuracy": trained.run.evaluate(trained.model, "valid"),
    }


def oracle(options: argparse.Namespace, seed: int) -> dict[str, object]:
    """Descend from random starts until the lowest loss of all 3^9 settings is reached."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 2, generator=generator)
    target = torch.sign(inputs[:, :1] * inputs[:, 1:]) * 0.8
    lowest = float(all_settings(inputs, target).min())
    begin = time.perf_counter()
    for start in range(1, options.most_starts + 1):
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
        history = conntra_fit(
            model,
            inputs,
            target,
            scales=1.0,
            seed=1000 * seed + start,
            options=SweepOptions(criterion="mse", sweeps=50),
        )
        if history[-1].loss <= lowest + 1e-12:
            break
    return {
        "settings": 3**9,
        "lowest_loss": lowest,
        "loss": history[-1].loss,
        "reached": history[-1].loss <= lowest + 1e-12,
        "starts": start,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def all_settings(inputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of every setting of the 2-2-1 network."""
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 9)
    first, offset, second, last = torch.split(grid, [4, 2, 2, 1], 1)
    hidden = torch.tanh(inputs.double() @ first.reshape(-1, 2, 2).mT + offset.unsqueeze(1))
    output = (hidden @ second.unsqueeze(2)).squeeze(2) + last
    return (output - target.double().T).square().mean(1)


if __name__ == "__main__":
    main()
