r"""Collaborative students against independent ones at equal compute.

    python benchmarks/collaborative_groups.py fashion_mnist --seed 0 --seeds 3 --epochs 6 \
        --out trials.jsonl
    python benchmarks/collaborative_groups.py fashion_mnist --epochs 6 --variants no_imitation

Each variant of collaborative group learning is trained for --epochs epochs. Beside each stand as
many independent networks of the same size, trained for the fewest whole epochs whose charged MACs
are not below the variant's; both charges stand in the rows. A row holds the quality of every
student, their mean, that of the averaged probabilities, and how often two students disagree.

Variants: full, all_labels (share=1), no_imitation (weight=0), all_peers (each imitates all others),
all_peers_all_labels, apart (modules=students), heads (modules=1), own_norms.

Quality is of the validation split. --test opens the test split, once, after all choices are frozen.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import whit
from whit.core.data import Split
from whit.core.execution import Conditions, Trained, train
from whit.core.fit import predict
from whit.core.task import Task
from whit.core.technique import Technique
from whit.measure.provenance import provenance
from whit.methods.together.collaborative_group_learning import collaborative_group_learning

VARIANTS = {
    "full": {},
    "all_labels": {"share": 1.0},
    "no_imitation": {"weight": 0.0},
    "all_peers": {"group": 1000},
    "all_peers_all_labels": {"group": 1000, "share": 1.0},
    "apart": {"modules": None},
    "heads": {"modules": 1},
    "own_norms": {"norms": "student"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["full"])
    parser.add_argument("--students", type=int, default=4)
    parser.add_argument("--modules", type=int, default=2)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="read the test split")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = whit.task(options.task)
    for seed in range(options.seed, options.seed + options.seeds):
        for variant in options.variants:
            for row in compared(task, variant, seed, options):
                print(told(row), flush=True)
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def compared(task: Task, variant: str, seed: int, options: argparse.Namespace) -> list[dict]:
    """Return the row of the variant and that of independent students at its compute."""
    changes = {"students": options.students, "modules": options.modules, **VARIANTS[variant]}
    if changes["modules"] is None:
        changes["modules"] = options.students
    technique = collaborative_group_learning(keep="ensemble", **changes)
    together, together_seconds = timed(task, technique, options.epochs, seed)
    budget = together.run.meter.charge().train_macs
    one_epoch = timed(task, Technique(), 1, seed)[0].run.meter.charge().train_macs
    epochs = -(-budget // (one_epoch * options.students))  # rounded up
    apart, seconds = [], 0.0
    for number in range(options.students):
        # Seeds far from those of the other rows.
        trained, spent = timed(task, Technique(), epochs, seed * 1000 + 7 + number)
        apart.append(trained)
        seconds += spent
    common = {"task": task.name, "variant": variant, "seed": seed, "students": options.students}
    split = split_of(task, together, options.test)
    name = "test" if options.test else "valid"
    network = together.model[0]
    rows = [
        {"group": "together", "spec": technique.spec, "epochs": options.epochs,
         "train_macs": budget, "seconds": together_seconds,
         "parameters": sum(p.numel() for p in network.parameters()),
         **quality(task, together, list(network.students), split, name)},
        {"group": "apart", "spec": "plain()", "epochs": epochs,
         "train_macs": sum(t.run.meter.charge().train_macs for t in apart), "seconds": seconds,
         "parameters": sum(p.numel() for t in apart for p in t.model.parameters()),
         **quality(task, apart[0], [t.model for t in apart], split, name)},
    ]  # fmt: skip
    facts = provenance()
    return [{**common, **row, "provenance": facts} for row in rows]


def timed(task: Task, technique: Technique, epochs: int, seed: int) -> tuple[Trained, float]:
    begin = time.perf_counter()
    settings = task.settings.changed(epochs=epochs)
    return train(task, technique, settings, Conditions(seed=seed)), time.perf_counter() - begin


def split_of(task: Task, trained: Trained, test: bool) -> Split:
    if not test:
        return trained.run.data.valid
    split = task.load().test
    assert isinstance(split, Split)
    return split


def quality(
    task: Task, trained: Trained, students: list[nn.Module], split: Split, name: str
) -> dict[str, object]:
    """Return what the students reach alone and together, and how much they differ."""
    scores = torch.stack([predict(s, split, task, trained.run.device.torch) for s in students])
    each = [task.score(z, split.target) for z in scores]
    mean: Tensor = scores.softmax(-1).mean(0)
    chosen = scores.argmax(-1)
    pairs = [(a, b) for a in range(len(chosen)) for b in range(a)]
    apart = [float((chosen[a] != chosen[b]).double().mean()) for a, b in pairs]
    return {
        f"{name}_each": each,
        f"{name}_mean": sum(each) / len(each),
        f"{name}_ensemble": task.score(mean.clamp_min(1e-12).log(), split.target),
        "disagreement": sum(apart) / len(apart),
    }


def told(row: dict) -> str:
    name = "test" if "test_mean" in row else "valid"
    return (
        f"{row['variant']:>20} {row['group']:>8} seed {row['seed']}: mean {row[f'{name}_mean']:.4f}"
        f" ensemble {row[f'{name}_ensemble']:.4f} disagreement {row['disagreement']:.4f}"
        f" {row['train_macs']:.3g} MACs {row['epochs']} epochs {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
