"""Samples per second of `fit` against an ordinary DataLoader loop, on MNIST.

Same model, same start, same batch size, same samples, no augmentation; the repetitions of both
loops are interleaved in one process, and medians are compared.
Run: `python benchmarks/fit_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from whit.core.data import Split
from whit.core.fit import Surroundings, fit
from whit.core.settings import Settings
from whit.core.task import Task
from whit.measure.meter import Meter
from whit.measure.provenance import provenance
from whit.tasks.mnist import mnist

RESULTS = Path(__file__).resolve().parents[1] / "results" / "fit_speed.jsonl"
GOAL = 1.5


def train_with_fit(task: Task, model: nn.Module, split: Split, settings: Settings) -> None:
    fit(model, split, settings, (), Surroundings(task, torch.device("cpu"), Meter()))


def train_with_loader(task: Task, model: nn.Module, split: Split, settings: Settings) -> None:
    """The loop of the tutorials: DataLoader, Adam, `.item()` for the running loss."""
    samples = TensorDataset(split.inputs[0].float(), split.target)
    loader = DataLoader(samples, batch_size=settings.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    loss_function = nn.CrossEntropyLoss()
    model.train()
    running = 0.0
    for _ in range(settings.epochs):
        for inputs, target in loader:
            optimizer.zero_grad()
            loss = loss_function(model(inputs), target)
            loss.backward()
            optimizer.step()
            running += loss.item()


LOOPS: dict[str, Callable[[Task, nn.Module, Split, Settings], None]] = {
    "fit": train_with_fit,
    "loader": train_with_loader,
}


def compare(name: str, samples: int, batch_size: int, repetitions: int) -> dict[str, object]:
    """Time both loops in turn and return a row of results."""
    task = mnist(model=name)
    data = task.load().sealed()
    split = data.train.subset(torch.arange(samples))
    settings = Settings(epochs=1, batch_size=batch_size, learning_rate=1e-3, optimizer="adam")
    start = task.build(data)
    warm_up = split.subset(torch.arange(4 * batch_size))
    seconds: dict[str, list[float]] = {loop: [] for loop in LOOPS}
    for train in LOOPS.values():
        train(task, deepcopy(start), warm_up, settings)
    for repetition in range(repetitions):
        # The order alternates, so that neither loop always follows the other.
        for loop in list(LOOPS)[:: 1 if repetition % 2 == 0 else -1]:
            model = deepcopy(start)
            began = time.perf_counter()
            LOOPS[loop](task, model, split, settings)
            seconds[loop].append(time.perf_counter() - began)
    trained = samples // batch_size * batch_size
    rate = {loop: trained / statistics.median(times) for loop, times in seconds.items()}
    pairs = [slow / fast for fast, slow in zip(seconds["fit"], seconds["loader"], strict=True)]
    return {
        "benchmark": "fit_speed",
        "model": name,
        "samples": trained,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
        "fit_samples_per_second": round(rate["fit"], 1),
        "loader_samples_per_second": round(rate["loader"], 1),
        "ratio": round(rate["fit"] / rate["loader"], 3),
        "ratio_lowest": round(min(pairs), 3),
        "ratio_highest": round(max(pairs), 3),
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mlp4", "conv4"])
    parser.add_argument("--samples", type=int, default=0, help="0: 20,000 or 5,120")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: what torch chooses")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.models:
        samples = options.samples or (20_000 if name == "mlp4" else 5_120)
        row = compare(name, samples, options.batch_size, options.repetitions)
        print(
            f"{name}: fit {row['fit_samples_per_second']:,.0f} samples/s, DataLoader loop "
            f"{row['loader_samples_per_second']:,.0f}, ratio {row['ratio']:.2f} "
            f"({row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}, goal {GOAL}); "
            f"{row['threads']} threads, batch {options.batch_size}",
            flush=True,
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.write(json.dumps({**row, "provenance": provenance()}) + "\n")


if __name__ == "__main__":
    main()
