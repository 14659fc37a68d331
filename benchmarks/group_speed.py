"""Training steps of a group of networks, by the ways of `Group`, against networks trained alone.

A step is forward pass, cross-entropy, backward pass and fused AdamW. "alone" is what one does
without a group: a step of one network after the other, each with its own optimiser. Everyone gets
the same batches. All candidates take turns in one process; their order alternates, and medians are
compared. Every candidate runs at one thread and at all threads of torch (members on threads of
their own at one thread each), and the goals compare the best of the group with the best of "alone".
Processor time is kept beside wall time: on a busy machine it says more for one thread.

    nice -n -10 python benchmarks/group_speed.py --turns 30
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from whit.core.data import Data
from whit.core.fit import Surroundings, fit
from whit.core.settings import Settings
from whit.core.task import Task
from whit.measure.meter import Meter
from whit.measure.provenance import provenance
from whit.parts.group import Group
from whit.parts.member_threads import pool_size
from whit.parts.normalise import Normalise
from whit.tasks.digits import digits
from whit.tasks.mnist import mnist
from whit.tasks.models import conv4, mlp4

RESULTS = Path(__file__).resolve().parents[1] / "results" / "group_speed.jsonl"
WARM_UP = 2
LEARNING_RATE = 1e-3
Step = Callable[[Tensor, Tensor], None]


def small_mlp(data: Data) -> nn.Module:
    """Two hidden layers of 128 with batch norm and ReLU."""
    return nn.Sequential(
        Normalise.fitted(data.train.inputs[0], data.input_range),
        nn.Flatten(),
        nn.Linear(math.prod(data.input_shape), 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 128, bias=False),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, data.output_size),
    )


@dataclass(frozen=True)
class Case:
    """Networks to train, the ways that are tried, and the goal of the best one over "alone"."""

    members: int
    task: Callable[[], Task]
    build: Callable[[Data], nn.Module]
    ways: tuple[str, ...]
    goal: float


MLP_WAYS = ("one_by_one", "batched", "threads")
CASES = {
    "mlp 784-128-128-10": Case(8, mnist, small_mlp, MLP_WAYS, 2.5),
    "mlp4 on mnist": Case(8, mnist, mlp4, MLP_WAYS, 2.5),
    "mlp 64-128-128-10": Case(8, digits, small_mlp, MLP_WAYS, 2.5),
    "mlp4 on digits": Case(8, digits, mlp4, MLP_WAYS, 2.5),
    "mlp4 on digits, width 0.25": Case(8, digits, lambda d: mlp4(d, 0.25), MLP_WAYS, 2.5),
    "conv4 on mnist": Case(4, mnist, conv4, ("one_by_one", "threads"), 1.6),
}


@dataclass
class Candidate:
    """A way of training and the times of its steps."""

    step: Step
    threads: int
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, batches: list[tuple[Tensor, Tensor]], keep: bool) -> None:
        """Take one step a batch; keep the mean time of a step."""
        torch.set_num_threads(self.threads)
        begin, spent = time.perf_counter(), time.process_time()
        for inputs, target in batches:
            self.step(inputs, target)
        if keep:
            self.wall.append((time.perf_counter() - begin) / len(batches))
            self.processor.append((time.process_time() - spent) / len(batches))


def alone(networks: list[nn.Module]) -> Step:
    """Return a step of each network after the other."""
    optimizers = [_optimizer(network) for network in networks]

    def step(inputs: Tensor, target: Tensor) -> None:
        for network, optimizer in zip(networks, optimizers, strict=True):
            loss = cross_entropy(network(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


def together(networks: list[nn.Module], way: str) -> Step:
    """Return a step of the group."""
    group = Group(networks, way=way).train()
    optimizer = _optimizer(group)

    def step(inputs: Tensor, target: Tensor) -> None:
        output = group(inputs)
        loss = cross_entropy(output.flatten(0, 1), target.repeat(len(group)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def halves_in_threads(networks: list[nn.Module]) -> Step:
    """Return a step of a group of two batched groups, each on a thread of its own."""
    half = len(networks) // 2
    halves = [Group(part, way="batched") for part in (networks[:half], networks[half:])]
    group = Group(halves, way="threads").train()
    optimizer = _optimizer(group)

    def step(inputs: Tensor, target: Tensor) -> None:
        output = group(inputs)
        loss = cross_entropy(output.flatten(0, 2), target.repeat(len(networks)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)


def compare(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Time all candidates of a case in turns and return a row of results."""
    case = CASES[name]
    data = case.task().load().sealed()
    networks = [case.build(data).train() for _ in range(case.members)]
    if any(isinstance(m, nn.Conv2d) for m in networks[0].modules()):
        networks = [n.to(memory_format=torch.channels_last) for n in networks]  # type: ignore[call-overload]
    candidates: dict[str, Candidate] = {}
    for threads in sorted({1, 1 if options.no_team else options.threads}):
        candidates[f"alone, {threads} thread(s)"] = Candidate(alone(deepcopy(networks)), threads)
        for way in case.ways:
            if way == "threads":
                continue
            step = together(deepcopy(networks), way)
            candidates[f"{way}, {threads} thread(s)"] = Candidate(step, threads)
    if "threads" in case.ways and options.threads > 1:
        candidates["threads"] = Candidate(together(deepcopy(networks), "threads"), 1)
        if "batched" in case.ways:
            candidates["batched halves in threads"] = Candidate(
                halves_in_threads(deepcopy(networks)), 1
            )
    batches = [data.train.batch(torch.randint(len(data.train), (options.batch,))) for _ in range(2)]
    given = [(batch.inputs[0], batch.target) for batch in batches]
    for turn in range(WARM_UP + options.turns):
        for candidate in list(candidates.values())[:: 1 if turn % 2 == 0 else -1]:
            candidate.run(given, turn >= WARM_UP)
    return {"benchmark": "group_speed", "network": name, **_summary(case, candidates, options)}


def compare_fits(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Time one epoch by `fit`: of each network after the other, and of the group.

    `fit` decides on the threads by the size of a step. Its own work for a step is there once for
    the group, and once for each network alone.
    """
    case = CASES[name]
    task = case.task()
    data = task.load().sealed()
    networks = [case.build(data) for _ in range(case.members)]
    size = min(len(data.train), options.samples)
    split = data.train.subset(torch.arange(size))
    settings = Settings(epochs=1, batch_size=options.batch, optimizer="adamw")

    def train(model: nn.Module) -> None:
        fit(model, split, settings, (), Surroundings(task, torch.device("cpu"), Meter()))

    def trained(way: str) -> float:
        copies = deepcopy(networks)
        begin = time.perf_counter()
        for model in copies if way == "alone" else [Group(copies, way=way)]:
            train(model)
        return time.perf_counter() - begin

    torch.set_num_threads(1 if options.no_team else options.threads)
    ways = ["alone", *(w for w in case.ways if w != "threads" or options.threads > 1)]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(1 + options.fits):
        for way in ways[:: 1 if turn % 2 == 0 else -1]:
            took = trained(way)
            if turn > 0:
                seconds[way].append(took)
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    best = min((way for way in ways if way != "alone"), key=lambda way: medians[way])
    samples = size // options.batch * options.batch * case.members
    ratio = medians["alone"] / medians[best]
    return {
        "benchmark": "group_fit_speed",
        "network": name,
        "members": case.members,
        "batch_size": options.batch,
        "turns": options.fits,
        "threads": torch.get_num_threads(),
        "samples_per_second": {way: round(samples / took, 1) for way, took in medians.items()},
        "best": best,
        "ratio": round(ratio, 3),
        "ratio_of_lowest": round(min(seconds["alone"]) / min(seconds[best]), 3),
        "goal": case.goal,
        "reached": ratio >= case.goal,
    }


def _summary(
    case: Case, candidates: dict[str, Candidate], options: argparse.Namespace
) -> dict[str, object]:
    medians = {name: statistics.median(c.wall) for name, c in candidates.items()}
    base = min((n for n in medians if n.startswith("alone")), key=lambda n: medians[n])
    best = min((n for n in medians if not n.startswith("alone")), key=lambda n: medians[n])
    pairs = [
        slow / fast for slow, fast in zip(candidates[base].wall, candidates[best].wall, strict=True)
    ]
    ratio = medians[base] / medians[best]
    return {
        "members": case.members,
        "cores": pool_size(),
        "batch_size": options.batch,
        "turns": options.turns,
        "step_ms": {n: round(1e3 * m, 3) for n, m in medians.items()},
        "lowest_step_ms": {n: round(1e3 * min(c.wall), 3) for n, c in candidates.items()},
        "processor_ms": {
            n: round(1e3 * statistics.median(c.processor), 3) for n, c in candidates.items()
        },
        "alone": base,
        "best": best,
        "samples_per_second": round(case.members * options.batch / medians[best], 1),
        "ratio": round(ratio, 3),
        "ratio_of_lowest": round(min(candidates[base].wall) / min(candidates[best].wall), 3),
        "ratio_lowest": round(min(pairs), 3),
        "ratio_highest": round(max(pairs), 3),
        "goal": case.goal,
        "reached": ratio >= case.goal,
    }


def main() -> None:
    """Print a line a case, and append the rows to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument(
        "--no-team",
        action="store_true",
        help="leave out torch's own two threads, which wait in a loop and crawl on a busy machine",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="the most")
    parser.add_argument("--fits", type=int, default=5, help="turns of one epoch by fit")
    parser.add_argument("--samples", type=int, default=3200, help="the most of an epoch by fit")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.cases:
        for measure in (compare, compare_fits):
            load_before = os.getloadavg()[0]
            row = measure(name, options)
            row["load_average"] = [round(load_before, 2), round(os.getloadavg()[0], 2)]
            print(f"{name}, {row['benchmark']}: {row['ratio']} (goal {row['goal']}), {row['best']}")
            for times in ("step_ms", "lowest_step_ms", "processor_ms", "samples_per_second"):
                if times in row:
                    print(f"    {times}: {row[times]}", flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            with options.out.open("a") as file:
                file.write(json.dumps({**row, "provenance": provenance()}) + "\n")


if __name__ == "__main__":
    main()
