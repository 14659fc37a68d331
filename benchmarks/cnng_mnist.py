r"""A collaborative group by reflection against its first network and five other ways to be better.

    python benchmarks/cnng_mnist.py "mnist(model='conv4')" --epochs 8 --seed 100 --seeds 5 \
        --augment --test --out results/cnng_mnist.jsonl
    python benchmarks/cnng_mnist.py --two-tasks --seeds 3 --out trials.jsonl

For each seed one row a network:

    first        member 0, trained on F, 5/6 of the training samples
    group        what `cnng` returns
    all_members  the mean probabilities of all members, for every input
    equal_nets   as many plain networks as the group has members, averaged
    one_longer   one plain network with the fewest whole epochs whose charged MACs are not below the
                 group's
    author       the author's way: clusters of true labels, a decision tree that routes
    distilled    one new network that learned the group's answers, after the group's training
    oracle       the members, chosen by the true label: a bound, which nobody can reach

Each row has its accuracy, the epochs of every network that was trained for it, the charged MACs of
that training, the MACs of one input in units of one member, and McNemar's exact test between the
group and it. At the end of several seeds the pairs of all of them are tested together.

--two-tasks asks the question of benchmarks/two_tasks.py instead: is the group 10 points better than
its first network, and do the situations agree with the hidden variable? Agreement is the share of
unfamiliar inputs whose situation is that of their hidden variable, after the best matching, and
the adjusted Rand index.

Accuracy is of the validation split; --test opens the test split, after all choices are frozen.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

import whit
from whit.core.data import Data, Split
from whit.core.execution import Conditions, Trained, train
from whit.core.fit import predict
from whit.core.hook import Hook, Plan
from whit.core.run import Run
from whit.core.task import Task
from whit.core.technique import Technique
from whit.measure.provenance import provenance
from whit.procedures.reflection.author_style import author_style
from whit.procedures.reflection.strategies import member_calls, oracle_accuracy
from whit.procedures.teachers import Distillation, teacher_scores
from whit.tasks.augmentation import random_affine

# Specs found on validation.
TWO_TASKS = {
    "benchmarks/two_tasks.py:own_classes": "cnng(eps=0.02, epochs=8, rate=1.0)",
    "benchmarks/two_tasks.py:shared_classes": (
        "cnng(eps=0.02, epochs=8, rate=1.0, situations='kmeans')"
    ),
}


@dataclass(frozen=True)
class Question:
    """What is the same for all networks of one seed."""

    task: Task
    group: Technique
    epochs: int
    seed: int
    test: bool
    augment: bool

    def trained(self, technique: Technique, epochs: int | None = None, seed: int = 0) -> Trained:
        if self.augment:
            technique = Technique(prepare_data=augmented) + technique
        settings = self.task.settings.changed(epochs=epochs or self.epochs)
        begin = time.perf_counter()
        found = train(self.task, technique, settings, Conditions(seed=self.seed + seed))
        history = [record["epochs"] for record in found.run.history]
        seconds = time.perf_counter() - begin
        print(f"trained for {history} epochs in {seconds:.0f} s", file=sys.stderr, flush=True)
        return found

    def split(self, trained: Trained) -> Split:
        return trained.test if self.test else trained.run.data.valid


@dataclass(frozen=True)
class Answer:
    """What one network says, and what it cost.

    Attributes:
        scores: [samples, classes].
        epochs: of every network that was trained for it.
        train_macs: charged for all of that.
        members_run: MACs of one input, in units of one member.
    """

    scores: Tensor
    epochs: list[int]
    train_macs: int | None
    members_run: float

    def right(self, target: Tensor) -> Tensor:
        return self.scores.argmax(-1) == target


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    rows: list[dict] = []
    cases = TWO_TASKS.items() if options.two_tasks else [(options.task, options.spec)]
    for (name, spec), seed in product(cases, range(options.seed, options.seed + options.seeds)):
        task = whit.task(name)
        question = Question(
            task,
            whit.spec(spec),
            1 if options.one_epoch else options.epochs or task.settings.epochs,
            seed,
            options.test,
            options.augment,
        )
        found = two_tasks(question) if options.two_tasks else compared(question)
        for row in found:
            row = {"benchmark": "cnng_mnist", **common(question), **row, "provenance": provenance()}
            rows.append(row)
            print(told(row), flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    summed_up(rows, options.two_tasks)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?", default="mnist(model='conv4')")
    parser.add_argument(
        "--spec", default="cnng()", help="of the group, such as \"cnng(situations='linkage')\""
    )
    parser.add_argument("--epochs", type=int, help="of every member; the task's own by default")
    parser.add_argument("--one-epoch", action="store_true", help="every member sees data once")
    parser.add_argument("--augment", action="store_true", help="turn, scale and move the images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="read the test split")
    parser.add_argument("--two-tasks", action="store_true", help="the synthetic question")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    return parser.parse_args()


def common(question: Question) -> dict:
    return {
        "task": question.task.name,
        "spec": question.group.spec,
        "seed": question.seed,
        "split": "test" if question.test else "valid",
        "epochs_each": question.epochs,
        "augment": question.augment,
        "threads": torch.get_num_threads(),
    }


def augmented(data: Data) -> Data:
    """Turn up to 10 degrees, scale by 0.9 to 1.1, move by up to 2 pixels."""
    return replace(data, augment=random_affine(10.0, 0.1, 2.0))


def compared(question: Question) -> list[dict]:
    """Return the rows of one seed: all networks are trained, then the split is read."""
    student: dict = {}
    trained = question.trained(replace(question.group, train=then_distilled(question, student)))
    members = len(trained.model.members)
    plain = [question.trained(Technique(), seed=1000 * (k + 1)) for k in range(members)]
    per_epoch = plain[0].run.meter.charge().train_macs / question.epochs
    longer_epochs = int(-(-student["group_macs"] // per_epoch))
    longer = question.trained(Technique(), epochs=longer_epochs, seed=7000)
    own_way = question.trained(Technique(train=in_the_authors_way(members - 1)), seed=8000)
    split = question.split(trained)
    answers = {
        **group_answers(trained, split, student),
        "equal_nets": averaged(plain, split),
        "one_longer": answer_of(longer, longer.model, split, 1.0),
        "author": answer_of(own_way, own_way.model, split, 1.0),
    }
    target = split.target
    outputs = [scores_of(trained, m, split) for m in trained.model.members]
    group = answers["group"].right(target)
    rows = [row_of(name, answer, group, target) for name, answer in answers.items()]
    for row in rows:
        if row["network"] == "group":
            row["strategies"] = trained.model.strategies
            count = routed(trained.model, split).bincount(minlength=members)
            row["situation_shares"] = (count / len(split)).tolist()
        if row["network"] == "author":
            sent = own_way.model.route(*all_inputs(split))
            row["situation_shares"] = (sent.bincount(minlength=members) / len(sent)).tolist()
            each = [scores_of(own_way, m, split) for m in own_way.model.members]
            row["members_alone"] = [accuracy(z, target) for z in each]
            row["oracle"] = oracle_accuracy(torch.stack(each), target)
    rows.append({"network": "oracle", "accuracy": oracle_accuracy(torch.stack(outputs), target)})
    rows[-1]["members_alone"] = [accuracy(z, target) for z in outputs]
    return rows


def then_distilled(question: Question, kept: dict):
    """Return a procedure that trains the group, then one network on its answers."""

    def procedure(run: Run) -> nn.Module:
        route = question.group.train(run)
        kept["group_macs"] = run.meter.charge().train_macs
        kept["group_epochs"] = [record["epochs"] for record in run.history]
        teacher = teacher_scores(route)

        def hook(model: nn.Module, plan: Plan) -> Hook:
            return Distillation(teacher)

        kept["network"] = run.fit(run.build(), hooks=(hook,))
        return route

    return procedure


def in_the_authors_way(clusters: int):
    def procedure(run: Run) -> nn.Module:
        return author_style(run, run.fit(run.build()), clusters, run.fits)

    return procedure


def group_answers(trained: Trained, split: Split, student: dict) -> dict[str, Answer]:
    """Return what is made of the group's networks."""
    route, macs, epochs = trained.model, student["group_macs"], student["group_epochs"]
    total = trained.run.meter.charge().train_macs
    history = [record["epochs"] for record in trained.run.history]
    scores = torch.stack([scores_of(trained, m, split) for m in route.members])
    mean = scores.softmax(-1).mean(0).clamp_min(1e-12).log()
    calls = member_calls(routed(route, split), route.strategies, len(route.members))
    return {
        # Its MACs are not charged apart: the group's training is one run.
        "first": Answer(scores[0], epochs[:1], None, 1.0),
        "group": Answer(
            scores_of(trained, route, split), epochs, macs, float(calls.sum()) / len(split)
        ),
        "all_members": Answer(mean, epochs, macs, float(len(route.members))),
        "distilled": answer_of(trained, student["network"], split, 1.0, history, total),
    }


def answer_of(
    trained: Trained,
    network: nn.Module,
    split: Split,
    members_run: float,
    epochs: list[int] | None = None,
    macs: int | None = None,
) -> Answer:
    return Answer(
        scores_of(trained, network, split),
        epochs or [record["epochs"] for record in trained.run.history],
        macs or trained.run.meter.charge().train_macs,
        members_run,
    )


def averaged(plain: list[Trained], split: Split) -> Answer:
    scores = torch.stack([scores_of(t, t.model, split) for t in plain])
    return Answer(
        scores.softmax(-1).mean(0).clamp_min(1e-12).log(),
        [t.run.settings.epochs for t in plain],
        sum(t.run.meter.charge().train_macs for t in plain),
        float(len(plain)),
    )


def scores_of(trained: Trained, network: nn.Module, split: Split) -> Tensor:
    return predict(network, split, trained.run.task, trained.run.device.torch).cpu()


def all_inputs(split: Split) -> tuple[Tensor, ...]:
    return split.batch(torch.arange(len(split))).inputs


def routed(route: nn.Module, split: Split) -> Tensor:
    with torch.no_grad():
        numbers = torch.split(torch.arange(len(split)), 1000)
        return torch.cat([route.route(*split.batch(n).inputs) for n in numbers])


def accuracy(scores: Tensor, target: Tensor) -> float:
    return float((scores.argmax(-1) == target).double().mean())


def row_of(name: str, answer: Answer, group: Tensor, target: Tensor) -> dict:
    right = answer.right(target)
    return {
        "network": name,
        "accuracy": float(right.double().mean()),
        "epochs": answer.epochs,
        "train_macs": answer.train_macs,
        "members_run": answer.members_run,
        "group_alone_right": int((group & ~right).sum()),
        "it_alone_right": int((right & ~group).sum()),
        "mcnemar_p": mcnemar(int((group & ~right).sum()), int((right & ~group).sum())),
    }


def mcnemar(one: int, other: int) -> float:
    """Return the exact two-sided p of samples that only the one, or only the other, gets right."""
    return 1.0 if one + other == 0 else float(binomtest(one, one + other).pvalue)


def two_tasks(question: Question) -> list[dict]:
    """Return one row: what the group gains, and whether its situations are the hidden tasks."""
    trained = question.trained(question.group)
    split, route = question.split(trained), trained.model
    hidden = (split.inputs[0][:, :4].mean(1) > 0).long()  # as two_tasks.py has it
    situations = routed(route, split)
    first, group = (
        accuracy(scores_of(trained, m, split), split.target) for m in (route.members[0], route)
    )
    unfamiliar = situations > 0
    return [{
        "network": "group", "accuracy": group, "first_accuracy": first,
        "gain_points": 100 * (group - first),
        "unfamiliar_share": float(unfamiliar.double().mean()),
        "agreement": agreement(situations[unfamiliar], hidden[unfamiliar]),
        "adjusted_rand": float(adjusted_rand_score(hidden[unfamiliar], situations[unfamiliar])),
        "strategies": route.strategies,
        "epochs": [record["epochs"] for record in trained.run.history],
        "train_macs": trained.run.meter.charge().train_macs,
        "specialists_here": [
            own_situation(trained, split, situations, k) for k in range(1, len(route.strategies))
        ],
    }]  # fmt: skip


def agreement(situations: Tensor, hidden: Tensor) -> float:
    """Return the share in agreement, after situations and values are matched for the best."""
    if len(situations) == 0:
        return 0.0
    table = torch.zeros(int(situations.max()) + 1, 2, dtype=torch.int64)
    table.index_put_((situations, hidden), torch.ones_like(hidden), accumulate=True)
    pairs = linear_sum_assignment(-table.numpy())
    return int(table.numpy()[pairs].sum()) / len(situations)


def own_situation(trained: Trained, split: Split, situations: Tensor, k: int) -> dict:
    """Return the accuracies of member 0 and of specialist k on the inputs of situation k."""
    here = situations == k
    if not bool(here.any()):
        return {"samples": 0}
    first, own = (
        accuracy(scores_of(trained, trained.model.members[m], split)[here], split.target[here])
        for m in (0, k)
    )
    return {"samples": int(here.sum()), "first": first, "specialist": own}


def told(row: dict) -> str:
    text = f"{row['task']}  seed {row['seed']}  {row['network']:12s} {100 * row['accuracy']:7.3f} %"
    if "gain_points" in row:
        return text + (
            f"  first {100 * row['first_accuracy']:.2f} %, gain {row['gain_points']:.1f} points, "
            f"agreement {row['agreement']:.3f}, adjusted Rand {row['adjusted_rand']:.3f}, "
            f"unfamiliar {row['unfamiliar_share']:.2f}"
        )
    if "mcnemar_p" not in row:
        return text + "  (a bound that needs the labels)"
    macs = "" if row["train_macs"] is None else f"{row['train_macs']:.3g} MACs  "
    text += f"  runs {row['members_run']:.2f} members  epochs {row['epochs']}  {macs}"
    if row["network"] == "group":
        return text
    pair = f"{row['group_alone_right']}:{row['it_alone_right']}"
    return f"{text}group against it {pair}, p {row['mcnemar_p']:.3g}"


def summed_up(rows: list[dict], two: bool) -> None:
    if two:
        for task in dict.fromkeys(row["task"] for row in rows):
            gains = [row["gain_points"] for row in rows if row["task"] == task]
            print(f"{task}: gain {sum(gains) / len(gains):.1f} points, least {min(gains):.1f}")
        return
    for name in dict.fromkeys(row["network"] for row in rows):
        of_it = [row for row in rows if row["network"] == name]
        mean = sum(row["accuracy"] for row in of_it) / len(of_it)
        text = f"mean of {len(of_it)}: {name:12s} {100 * mean:7.3f} %"
        if "mcnemar_p" in of_it[0] and name != "group":
            pair = [sum(r[key] for r in of_it) for key in ("group_alone_right", "it_alone_right")]
            text += f"  group against it {pair[0]}:{pair[1]}, p {mcnemar(*pair):.3g} (all seeds)"
        print(text)


if __name__ == "__main__":
    main()
