"""How many moves of a discrete network are scored in a second, against one forward call for each.

    python benchmarks/conntra_throughput.py --out results/conntra_throughput.jsonl
    python benchmarks/conntra_throughput.py --hidden 128 --certify

Networks 784-128-10 and 784-256-10 with ternary weights, ReLU, 5,000 images of MNIST, cross-entropy,
one thread. Everything is timed in turns in this process, and ratios are those of medians:

    naive      change one weight, one forward call, loss; float32
    binary     scores of the whole first layer, exact; black and white pixels
    grey       the same for grey pixels, predicted from two levels
    corrected  the same for grey pixels, exact
    loop       the training loop on grey pixels: a new augmented block of 5,000 images each time,
               one sweep (scores, pursuit, line search, last layer, scales)
    sweep      the same on one block that stays

Scores are compared with the naive way on a sample of moves: `worst_error` is the largest
difference, relative to the loss, of float64 scores, and of the float32 ones that were timed. For
the grey prediction it is no error but how far predictions are off; `correlation` says how well they
order the moves. `--certify` also descends on the 5,000 black and white images until no single move
lowers the loss, and says how long the certifying pass over all moves took.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from whit.measure.provenance import provenance
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.group_descent import GroupDescent, GroupOptions
from whit.procedures.coordinate_descent.input_block import InputBlock, InputLevels
from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood
from whit.procedures.coordinate_descent.two_layer import TwoLayer, Weights
from whit.procedures.coordinate_descent.two_layer_training import descend_to_optimum
from whit.tasks.augmentation import random_shifts
from whit.tasks.mnist import load

SAMPLES = 5_000
CHECKED = 40
GATES = {"binary": (20_000, 150_000), "loop": (5_000, 30_000)}
CLOCK = time.perf_counter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--certify", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train = load().train
    grey = train.inputs[0][:SAMPLES].flatten(1).float() / 255
    for hidden in options.hidden:
        row = compare(hidden, grey, train.target[:SAMPLES], options)
        print(json.dumps(row, indent=1), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            with options.out.open("a") as file:
                file.write(json.dumps({**row, "provenance": provenance()}) + "\n")


class Case:
    """A random network on some inputs, scored in one way."""

    def __init__(self, hidden: int, inputs: Tensor, target: Tensor, group: int) -> None:
        self.inputs, self.target, self.group = inputs, target, group
        self.network = random_network(hidden)
        levels = InputLevels.of(inputs, grid=2)
        self.block = InputBlock(inputs, levels.values, levels.base, bias=False)
        self.network.load([(self.block, target)], group=group)

    def scores(self, exact: bool | None = None, adjacent: bool = True) -> Tensor:
        hood = Neighbourhood(self.network, adjacent)
        groups = range(len(self.network.groups))
        return torch.cat([hood.first_layer(group, exact).changes for group in groups], 1)

    def moves(self, adjacent: bool = True) -> int:
        hood = Neighbourhood(self.network, adjacent)
        return sum(hood.first_layer(g, False).candidates for g in range(len(self.network.groups)))

    def sample(self) -> list[tuple[int, int, int]]:
        """Return some moves (value, unit, column) of pixels that are not always dark."""
        generator = torch.Generator().manual_seed(1)
        index, found = self.network.first.index, []
        columns = (self.inputs != 0).any(0).nonzero()[:, 0]
        for _ in range(CHECKED):
            unit = int(torch.randint(len(index), (), generator=generator))
            column = int(columns[torch.randint(len(columns), (), generator=generator)])
            step = 1 if index[unit, column] == 0 else -1
            found.append((int(index[unit, column]) + step, unit, column))
        return found

    def naive(self, move: tuple[int, int, int], dtype: torch.dtype) -> float:
        """Return the loss after one move, by one forward call."""
        value, unit, column = move
        old = self.first[dtype][unit, column].clone()
        weights = self.network.first
        self.first[dtype][unit, column] = weights.scale[unit] * weights.values[value]
        hidden = torch.relu(self.wide[dtype] @ self.first[dtype].t())
        logits = hidden @ self.second[dtype].t()
        self.first[dtype][unit, column] = old
        return float(functional.cross_entropy(logits, self.target))

    def prepare_naive(self) -> None:
        types = (torch.float32, torch.float64)
        self.first = {dtype: self.network.first.real(dtype) for dtype in types}
        self.second = {dtype: self.network.second.real(dtype) for dtype in types}
        self.wide = {dtype: self.inputs.to(dtype) for dtype in types}


def random_network(hidden: int) -> TwoLayer:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)

    def layer(outputs: int, inputs: int, scale: float) -> Weights:
        index = torch.randint(0, 3, (outputs, inputs), generator=generator)
        return Weights(values, index, torch.full((outputs,), scale, dtype=torch.float64), False)

    first, second = layer(hidden, 784, 784**-0.5), layer(10, hidden, 4 * hidden**-0.5)
    return TwoLayer(first, second)


def compare(
    hidden: int, grey: Tensor, target: Tensor, options: argparse.Namespace
) -> dict[str, object]:
    binary_case = Case(hidden, (grey >= 0.5).float(), target, options.group)
    grey_case = Case(hidden, grey, target, options.group)
    loops = {
        "loop": Loop(Case(hidden, grey, target, options.group), options.group, stream(grey)),
        "sweep": Loop(Case(hidden, grey, target, options.group), options.group),
        "sweep_binary": Loop(
            Case(hidden, (grey >= 0.5).float(), target, options.group), options.group
        ),
    }
    for case in (binary_case, grey_case):
        case.prepare_naive()
    sample = binary_case.sample()
    rounds = iter(sample * 1000)
    counted = {
        "naive": lambda: sum(binary_case.naive(next(rounds), torch.float32) >= 0 for _ in range(3)),
        "binary": lambda: scored(binary_case, adjacent=True),
        "binary_all": lambda: scored(binary_case, adjacent=False),
        "grey": lambda: scored(grey_case, adjacent=True, exact=False),
        **{name: loop.sweep for name, loop in loops.items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in counted}
    for turn in range(-1, options.turns):
        for name, run in counted.items():
            begin = CLOCK()
            count = run()
            if turn >= 0:
                rates[name].append(count / (CLOCK() - begin))
    begin = CLOCK()
    rates["corrected"] = [scored(grey_case, adjacent=True, exact=True) / (CLOCK() - begin)]
    per_second = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {name: rate / per_second["naive"] for name, rate in per_second.items()}
    row: dict[str, object] = {
        "benchmark": "conntra_throughput",
        "network": f"784-{hidden}-10",
        "samples": SAMPLES,
        "threads": 1,
        "turns": options.turns,
        "moves": binary_case.moves(),
        "per_second": {name: round(rate, 1) for name, rate in per_second.items()},
        "ratio": {name: round(ratio, 1) for name, ratio in ratios.items()},
        "ratio_lowest": {
            name: round(min(a / b for a, b in zip(found, rates["naive"], strict=False)), 1)
            for name, found in rates.items()
        },
        "verdict": {
            name: "moonshot" if ratios[name] >= far else "pass" if ratios[name] >= gate else "miss"
            for name, (gate, far) in GATES.items()
        },
        "worst_error": errors(binary_case, grey_case, sample),
        "correlation": correlation(grey_case),
    }
    if options.certify:
        row["certificate"] = certified(binary_case)
    return row


class Loop:
    """Sweeps of the training loop, over one block that stays or over new ones."""

    def __init__(self, case: Case, group: int, batches: Batches | None = None) -> None:
        self.descent = GroupDescent(case.network, GroupOptions(group=group))
        self.blocks, self.batches = [(case.block, case.target)], batches

    def sweep(self) -> int:
        before = self.descent.tally.candidates
        self.descent.load(self.batches.next(SAMPLES) if self.batches else self.blocks)
        self.descent.sweep()
        return self.descent.tally.candidates - before


def stream(grey: Tensor) -> Batches:
    """Return blocks of all training images, each moved by a pixel at random."""
    train = load().train
    return Batches(
        train.inputs[0],
        train.target,
        lambda images: images.flatten(1) / 255,
        bias=False,
        augment=random_shifts(1),
        block=len(grey),
    )


def scored(case: Case, adjacent: bool, exact: bool | None = None) -> int:
    scores = case.scores(exact, adjacent)
    return int(torch.count_nonzero(scores < torch.inf))


def errors(
    binary: Case, grey: Case, sample: list[tuple[int, int, int]]
) -> dict[str, dict[str, float]]:
    """Return the largest differences of scores from one forward call for each, relative."""
    found: dict[str, dict[str, float]] = {"float64": {}, "float32": {}}
    for name, case, exact in (
        ("binary", binary, None),
        ("corrected", grey, True),
        ("grey", grey, False),
    ):
        wide = case.network.to(torch.float64)
        wide.load([(case.block.to(torch.float64), case.target)], group=case.group)
        loss = wide.loss()
        truth = [case.naive(move, torch.float64) - loss for move in sample]
        hood = Neighbourhood(wide, adjacent=True)
        units = {move[1]: move[1] // case.group for move in sample}
        changes = {g: hood.first_layer(g, exact).changes for g in set(units.values())}
        wide_scores = [
            float(changes[units[unit]][value, unit % case.group, column])
            for value, unit, column in sample
        ]
        narrow = case.scores(exact)
        narrow_scores = [float(narrow[move]) for move in sample]
        for dtype, scores in (("float64", wide_scores), ("float32", narrow_scores)):
            worst = max(abs(a - b) for a, b in zip(scores, truth, strict=True)) / loss
            found[dtype][name] = float(f"{worst:.3g}")
    return found


def correlation(grey: Case) -> float:
    """Return that of predicted and exact scores over all moves of a few units."""
    hood = Neighbourhood(grey.network, adjacent=True)
    pairs = torch.stack([hood.first_layer(0, exact).changes for exact in (False, True)])
    finite = pairs[:, pairs.isfinite().all(0)]
    return round(float(torch.corrcoef(finite)[0, 1]), 5)


def certified(case: Case) -> dict[str, float] | None:
    """Descend on the case's samples to a certified optimum."""
    descent = GroupDescent(case.network, GroupOptions(scales="fixed"))
    begin = CLOCK()
    found = descend_to_optimum(descent, [(case.block.to(torch.float64), case.target)], seconds=900)
    if found is None:
        return None
    return {
        "loss": found.loss,
        "best_change": found.best_change,
        "moves": found.candidates,
        "pass_seconds": round(found.seconds, 2),
        "seconds": round(CLOCK() - begin, 1),
        "exact_sweeps": found.sweeps,
        "moves_of_exact_sweeps": found.accepted,
        "accepted_before": descent.tally.accepted,
    }


if __name__ == "__main__":
    main()
