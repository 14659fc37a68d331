"""Ternary networks of one hidden layer on MNIST and Fashion-MNIST, by coordinate descent alone.

    python benchmarks/conntra_mnist.py --hidden 128 --seconds 120 --out results/conntra_mnist.jsonl
    python benchmarks/conntra_mnist.py --data fashion_mnist --hidden 256 --seconds 120
    python benchmarks/conntra_mnist.py --hidden 128 --start float --seconds 60
    python benchmarks/conntra_mnist.py --hidden 256 --start straight_through --full --seconds 120

One run: 55,000 images to learn from, 5,000 to validate on. `--start random` begins with random
values and sees no gradient; `float` rounds a network that back-propagation trained for as many
seconds, `straight_through` goes on from one that was trained with ternary weights. Beside it stands
the control: the same architecture with real weights, trained by Adam for the same seconds on the
same augmentation. `--full` descends on all images as they are, so the training loss never rises.
The test images are looked at with `--test` only. One thread; `--clock cpu` counts processor
seconds, for a machine with other work.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

import whit
from whit.core.data import Augment, Data, Split
from whit.measure.provenance import provenance
from whit.packing import pack
from whit.parts.levels import Levels, add_levels
from whit.parts.normalise import Normalise
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.group_descent import GroupDescent, GroupOptions
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.stages import split_stages
from whit.procedures.coordinate_descent.two_layer import TwoLayer
from whit.procedures.coordinate_descent.two_layer_training import RoundReport, train_on_batches
from whit.tasks.augmentation import in_turn, random_flips, random_shifts

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STARTS = ("random", "float", "straight_through")
# Chosen on the validation split; --sizes, --pixels and so on try others.
SHIFTS = {"mnist": 1, "fashion_mnist": 1}
SIZES = (10_000, 20_000, 40_000)
RATES = {"float": 2e-3, "straight_through": 3e-3}


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    data = whit.task(options.data).load().sealed()
    clock = CLOCKS[options.clock]
    control, seconds = with_gradients(build(options), data, options, clock, ternary=False)
    row = {
        "benchmark": "conntra_mnist",
        **{key: value for key, value in vars(options).items() if key not in ("out", "log")},
        "control": about(control, data) | {"train_seconds": round(seconds, 2)},
    }
    model = build(options)
    if options.start == "float":
        model = deepcopy(control)
    if options.start == "straight_through":
        model, row["start_seconds"] = with_gradients(model, data, options, clock, ternary=True)
    network = DiscreteNetwork.from_model(
        model,
        values="auto" if options.start == "straight_through" else "ternary",
        start="random" if options.start == "random" else "from_model",
        generator=torch.Generator().manual_seed(options.seed),
    )
    network.write_back()
    row["before"] = about(model, data)
    row |= descend(network, data, options, clock)
    network.write_back()
    row["after"] = about(model, data) | stored(model, data)
    if options.test:
        test = whit.task(options.data).load().test
        row["test"] = {"after": accuracy(model, test), "control": accuracy(control, test)}
    print(json.dumps(row), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.write(json.dumps({**row, "provenance": provenance()}) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(SHIFTS), default="mnist")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--start", choices=STARTS, default="random")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--block", type=int, default=5_000)
    parser.add_argument("--reuse", type=int, default=1, help="batches that a block is in")
    parser.add_argument("--pixels", type=int, help="largest shift of an image")
    parser.add_argument("--flips", action="store_true", help="mirror images at random")
    parser.add_argument("--moves", type=int, default=16, help="for each unit at a visit")
    parser.add_argument("--least-gain", type=float, default=0.0, help="nats over a batch")
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--last-layer", type=int, default=2)
    parser.add_argument("--normalise", choices=("task", "positive", "centred"), default="centred")
    parser.add_argument("--no-bias", action="store_true")
    parser.add_argument("--full", action="store_true", help="all images, not augmented")
    parser.add_argument("--no-control", action="store_true")
    parser.add_argument("--test", action="store_true", help="look at the test images too")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--log", type=float, default=30.0, help="seconds between two lines")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.pixels is None:
        options.pixels = SHIFTS[options.data]
    return options


def build(options: argparse.Namespace) -> nn.Module:
    """Return Normalise, Flatten, Linear, ReLU, Linear."""
    torch.manual_seed(options.seed)
    images = whit.task(options.data).load().train.inputs[0]
    normalise = {
        "task": Normalise(128.0, 128.0),
        "positive": Normalise(0.0, 255.0),
        "centred": Normalise(float(images.float().mean().round()), 255.0),
    }[options.normalise]
    bias = not options.no_bias
    first, last = nn.Linear(784, options.hidden, bias), nn.Linear(options.hidden, 10, bias)
    return nn.Sequential(normalise, nn.Flatten(), first, nn.ReLU(), last)


def augmentation(options: argparse.Namespace) -> Augment | None:
    parts = [random_shifts(options.pixels)] if options.pixels else []
    parts += [random_flips()] if options.flips else []
    return in_turn(*parts) if parts and not options.full else None


def descend(
    network: DiscreteNetwork, data: Data, options: argparse.Namespace, clock: Callable[[], float]
) -> dict[str, object]:
    """Train a discrete network in place; return what was spent."""
    front, _ = split_stages(network)
    two_layer = TwoLayer.from_network(network)
    batches = Batches(
        data.train.inputs[0],
        data.train.target,
        nn.Sequential(*front),
        bias=two_layer.first.bias,
        augment=augmentation(options),
        block=options.block,
        reuse=options.reuse,
        seed=options.seed,
    )
    descent = GroupDescent(
        two_layer,
        GroupOptions(
            moves_per_unit=options.moves,
            least_gain=options.least_gain,
            group=options.group,
            last_layer=options.last_layer,
        ),
        options.seed,
    )
    begin = clock()
    losses: list[float] = []
    shown = 0.0

    def show(report: RoundReport) -> None:
        nonlocal shown
        losses.append(report.loss)
        if report.seconds - shown >= options.log:
            shown = report.seconds
            two_layer.write_to(network)
            said = about(network.model, data, train=False)
            print(f"{report.seconds:.0f} s, {report}, {said}", flush=True)

    if options.full:
        descent.load(batches.all())
        losses.append(descent.loss)
        while clock() - begin < options.seconds and descent.sweep():
            losses.append(descent.loss)
    else:
        train_on_batches(
            descent,
            batches,
            sizes=options.sizes,
            seconds=options.seconds,
            clock=clock,
            on_round=show,
        )
    spent = clock() - begin
    two_layer.write_to(network)
    return {
        "train_seconds": round(spent, 2),
        "rounds": len(losses),
        "candidates": descent.tally.candidates,
        "accepted_moves": descent.tally.accepted,
        "candidates_per_second": round(descent.tally.candidates / spent),
        "losses_rise": any(b > a for a, b in zip(losses, losses[1:], strict=False))
        if options.full
        else None,
    }


def with_gradients(
    model: nn.Module,
    data: Data,
    options: argparse.Namespace,
    clock: Callable[[], float],
    ternary: bool,
) -> tuple[nn.Module, float]:
    """Train by Adam, with ternary weights or real ones; return the model and its seconds."""
    layers = [m for m in model if isinstance(m, nn.Linear)]
    rate = RATES["straight_through" if ternary else "float"]
    if ternary:
        for layer in layers:
            add_levels(layer, Levels("ternary", "layer"))
    seconds = 0.1 if options.no_control and options.start != "float" else options.seconds
    seconds = options.seconds if ternary else seconds
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(options.seed)
    augment = augmentation(options)
    images, target = data.train.inputs[0], data.train.target
    begin = clock()
    while (done := (clock() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.02, (1 + math.cos(math.pi * done)) / 2)
        for chosen in torch.randint(len(target), (25, 200), generator=generator):
            inputs = images[chosen].float()
            inputs = inputs if augment is None else augment(inputs, generator)
            loss = functional.cross_entropy(model(inputs), target[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    spent = clock() - begin
    for layer in layers if ternary else []:
        parametrize.remove_parametrizations(layer, "weight")
    return model, round(spent, 2)


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part.float()) for part in images.split(5_000)])


def accuracy(model: nn.Module, split: Split) -> float:
    right = outputs(model, split.inputs[0]).argmax(1) == split.target
    return round(float(right.float().mean()), 5)


def about(model: nn.Module, data: Data, train: bool = True) -> dict[str, float]:
    """Return errors and losses on the training and validation images."""
    found = {}
    for name, split in (("train", data.train), ("valid", data.valid))[not train :]:
        logits = outputs(model, split.inputs[0])
        loss = functional.cross_entropy(logits, split.target)
        found[f"{name}_accuracy"] = accuracy(model, split)
        found[f"{name}_loss"] = round(float(loss), 5)
    return found


def stored(model: nn.Module, data: Data) -> dict[str, float]:
    """Return the bytes of the packed file, and those of the same weights as floats."""
    packed = pack(model, data.valid.inputs[0][:1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.whit"
        packed.save(path)
        size = path.stat().st_size
    weights = sum(p.numel() for p in model.parameters())
    return {
        "stored_bytes": size,
        "float64_ratio": round(8 * weights / size, 2),
        "float32_ratio": round(4 * weights / size, 2),
    }


if __name__ == "__main__":
    main()
