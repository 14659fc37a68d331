r"""Filter grafting against one network and other ways to spend K trainings, at equal epochs.

    python benchmarks/filter_grafting.py "cifar10(model='resnet8')" --epochs 20 --members 2 3 \
        --seed 0 --seeds 3 --out trials.jsonl
    python benchmarks/filter_grafting.py "fashion_mnist(model='conv4')" --epochs 8 --ways filter

Every network of a row is trained for --epochs epochs, and one network is kept. Ways:

single       one network, once for every seed;
graft        `filter_grafting(members=K)`;
average      the same with a=0: the plain average of neighbours;
mutual       `mutual_learning(members=K)`;
distilled    K networks apart, whose mean probabilities teach one more;
long         one network for K times the epochs;
filter, noise, internal, recalibrated, taught
             variants of grafting; taught has a teacher of twice the width.

A row holds the quality of the kept network, of every member and their mean (of `distilled`: the K
teachers and their ensemble), invalid filters and the mean entropy of the kept network as it was
built and at the end, the charged MACs and the seconds. A row that --out holds already, made from
the same commit, is not made again.

Quality is of the validation split. --test opens the test split, once, after all choices are frozen.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import whit
from whit.core.data import Batch, Data
from whit.core.execution import Conditions, Trained, train
from whit.core.fit import predict
from whit.core.run import Run
from whit.core.settings import OPTIMIZERS, SCHEDULES, Settings
from whit.core.task import Task
from whit.core.technique import Technique
from whit.measure.provenance import provenance
from whit.measure.store import Store
from whit.methods.together.filter_grafting import filter_grafting
from whit.methods.together.mutual_learning import mutual_learning
from whit.parts.filter_statistics import filter_entropy, invalid_filters
from whit.parts.group import Group
from whit.procedures.teachers import Distillation, teacher_scores

THRESHOLDS = (0.1, 0.01)


def distilled(members: int) -> Technique:
    """Return plain trainings of K networks, and one of a student of their mean probabilities."""

    def train(run: Run) -> nn.Module:
        plain = run.plain()
        teacher = Group([plain.fit(plain.build()) for _ in range(members)])
        scores = teacher_scores(teacher)
        with run.meter.training(teacher):
            if run.data.augment is None:  # as in `distillation`: each sample is answered once
                cached = predict(teacher, run.data.train, run.task, run.device.torch)
                cached = cached.to(run.device.torch)

            def answers(batch: Batch) -> Tensor:
                if run.data.augment is None:
                    return cached[batch.index]
                return run.task.combined_output(scores(batch))

            return run.fit(run.build(), hooks=(lambda model, plan: Distillation(answers),))

    return Technique(train=train)


WAYS: dict[str, Callable[[int], Technique]] = {
    "single": lambda members: Technique(),
    "graft": lambda members: filter_grafting(members=members),
    "average": lambda members: filter_grafting(members=members, a=0.0),
    "mutual": lambda members: mutual_learning(members=members),
    "distilled": distilled,
    "long": lambda members: Technique(),
    "filter": lambda members: filter_grafting(members=members, level="filter"),
    "noise": lambda members: filter_grafting(members=members, source="noise"),
    "internal": lambda members: filter_grafting(members=members, source="internal"),
    "recalibrated": lambda members: filter_grafting(members=members, recalibrate=True),
    "taught": lambda members: filter_grafting(members=members, teacher_width=2.0),
}
DEFAULT_WAYS = ("single", "graft", "average", "mutual", "distilled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(DEFAULT_WAYS))
    parser.add_argument("--members", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="other than the task's")
    parser.add_argument("--schedule", choices=SCHEDULES)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--test", action="store_true", help="read the test split")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = whit.task(options.task)
    settings = settings_of(task, options)
    store = Store(options.out) if options.out else None
    made = {key_of(row) for row in store.rows()} if store else set()
    for seed in range(options.seed, options.seed + options.seeds):
        for way in options.ways:
            for members in [1] if way == "single" else options.members:
                case = Case(options.task, way, members, seed, options.test)
                facts = provenance()
                row = {**case.as_dict(), "settings": settings.as_dict(), "provenance": facts}
                if key_of(row) in made:
                    continue
                row |= result(task, case, settings)
                print(told(row), flush=True)
                if store:
                    store.append(row)


def settings_of(task: Task, options: argparse.Namespace) -> Settings:
    names = ("epochs", "optimizer", "schedule", "learning_rate", "batch_size", "weight_decay")
    given = {name: getattr(options, name) for name in names}
    return task.settings.changed(**{n: value for n, value in given.items() if value is not None})


@dataclass(frozen=True)
class Case:
    """One training of networks together, or of one network."""

    task: str
    way: str
    members: int
    seed: int
    test: bool

    def as_dict(self) -> dict[str, object]:
        split = "test" if self.test else "valid"
        return {"task": self.task, "way": self.way, "members": self.members, "seed": self.seed,
                "split": split}  # fmt: skip


def key_of(row: dict) -> str:
    """Return what tells a row from others: a repeated command makes only the missing ones."""
    about = {
        name: row.get(name) for name in ("task", "way", "members", "seed", "split", "settings")
    }
    return json.dumps([about, (row.get("provenance") or {}).get("commit")], sort_keys=True)


def result(task: Task, case: Case, settings: Settings) -> dict[str, object]:
    """Train and return what is measured of it."""
    built: list[nn.Module] = []
    starts: list[dict[str, object]] = []

    def build(data: Data, **choices: object) -> nn.Module:
        model = task.build(data, **choices)
        built.append(model)
        starts.append(filters_of(model))
        return model

    if case.way == "long":
        settings = settings.changed(epochs=settings.epochs * case.members)
    begin = time.perf_counter()
    technique = WAYS[case.way](case.members)
    trained = train(replace(task, build=build), technique, settings, Conditions(seed=case.seed))
    seconds = time.perf_counter() - begin
    kept = next(k for k, model in enumerate(built) if model is trained.model)
    return {
        "spec": technique.spec if case.way != "distilled" else "an ensemble distilled to one",
        "epochs": settings.epochs,
        **qualities(task, case, trained, built),
        "filters_before": starts[kept],
        "filters_after": filters_of(trained.model),
        "networks": trained.run.notes.get("Filter grafting: networks"),
        "train_macs": trained.run.meter.charge().train_macs,
        "seconds": seconds,
    }


def qualities(
    task: Task, case: Case, trained: Trained, built: list[nn.Module]
) -> dict[str, object]:
    """Return what the kept network and its companions reach alone, and these together.

    Companions are the members of a group (the last K that were built: a teacher is built before
    them), of `distilled` the K teachers. They are asked on validation, and with --test on test.
    """
    if case.way in ("single", "long"):
        companions = [trained.model]
    elif case.way == "distilled":
        companions = built[: case.members]
    else:
        companions = built[-case.members :]
    splits = {"valid": trained.run.data.valid}
    if case.test:
        splits["test"] = trained.test
    found: dict[str, object] = {}
    for name, split in splits.items():
        kept, *each = [
            predict(model, split, task, trained.run.device.torch)
            for model in (trained.model, *companions)
        ]
        values = [task.score(output, split.target) for output in each]
        together = task.combined_output(torch.stack(each))
        found[f"{name}_{task.metric_name}"] = task.score(kept, split.target)
        found[f"{name}_each"] = values
        found[f"{name}_mean"] = sum(values) / len(values)
        found[f"{name}_ensemble"] = task.score(together, split.target)
    return found


def filters_of(model: nn.Module) -> dict[str, object]:
    """Return how many filters a network has, how many are invalid, and its mean entropy."""
    rows = invalid_filters(model)
    entropies = filter_entropy(model)
    return {
        "filters": sum(row.filters for row in rows),
        "invalid": {
            f"{bound:g}": sum(row.invalid for row in invalid_filters(model, bound))
            for bound in THRESHOLDS
        },
        "invalid_per_layer": {row.layer: row.invalid for row in rows},
        "mean_entropy": sum(entropies.values()) / len(entropies),
        "entropy_per_layer": entropies,
    }


def told(row: dict) -> str:
    split = row["split"]
    quality = next(v for k, v in row.items() if k.startswith(f"{split}_"))
    before, after = row["filters_before"], row["filters_after"]
    return (
        f"{row['way']:>12} K={row['members']} seed {row['seed']}: {split} {quality:.4f} "
        f"mean {row[f'{split}_mean']:.4f} ensemble {row[f'{split}_ensemble']:.4f} "
        f"invalid {before['invalid']['0.1']} -> {after['invalid']['0.1']} of {after['filters']}, "
        f"entropy {before['mean_entropy']:.3f} -> {after['mean_entropy']:.3f}, "
        f"{row['train_macs']:.3g} MACs, {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
