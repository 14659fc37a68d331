"""Filter grafting: several copies train at once and mend one another's weak layers each epoch.

Meng, Cheng, Li, Xu, Ji, Sun and Lu, "Filter Grafting for Deep Neural Networks", 2020,
arXiv 2001.05868; with a teacher: Cheng et al., "DGD: Densifying the Knowledge of Neural Networks
with Filter Grafting and Knowledge Distillation", 2020, arXiv 2004.12311.

    alpha = A / pi arctan(c (H(W_k) - H(W_j))) + 1/2
    W_k' = alpha W_k + (1 - alpha) W_j        j = k - 1 in a ring

Shapes: any model of `nn.Conv1d/2d/3d` or `nn.Linear`; one of K networks is kept.

Deviations from the paper: see the card `filter_grafting.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.core.data import Batch
from whit.core.hook import Hook, Plan
from whit.core.notes import Lines, Table
from whit.core.options import check_flag, require
from whit.core.run import Run
from whit.core.technique import HookFactory, Technique, technique
from whit.errors import NotApplicable
from whit.parts.filter_statistics import LayerFilters, filter_entropy, invalid_filters
from whit.parts.grafting import DEFAULT_A, DEFAULT_C, INVALID_NORM
from whit.parts.group import Group
from whit.parts.norm_statistics import reestimate_norms
from whit.procedures.grafting import DifferentRates, Graft, GraftRule, Level, Source
from whit.procedures.member_ways import Way, check_way, note_way
from whit.procedures.own_gradients import OwnGradients
from whit.procedures.teachers import (
    DEFAULT_TEMPERATURE,
    DEFAULT_WEIGHT,
    Distillation,
    teacher_scores,
)

MOST_MEMBERS = 8
_NORM_BATCH = 128


@technique
def filter_grafting(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    members: int = 2,
    a: float = DEFAULT_A,
    c: float = DEFAULT_C,
    level: Level = "layer",
    source: Source = "neighbour",
    different_rates: bool = True,
    own_order: bool = True,
    recalibrate: bool = False,
    teacher_width: float | None = None,
    temperature: float = DEFAULT_TEMPERATURE,
    weight: float = DEFAULT_WEIGHT,
    way: Way = "one_by_one",
) -> Technique:
    """Train several networks that graft one another after each epoch, and keep one of them.

    Args:
        members: how many train together, 2..8.
        a: width of the coefficient's range, 0..1; 0 is the plain average of two neighbours.
        c: how steeply the coefficient follows the difference of entropies, > 0.
        level: "layer", or "filter": a coefficient a channel, by batch norm's scales.
        source: "neighbour", or for comparison "noise" or "internal".
        different_rates: each member has its own learning rate, from small to the full one.
        own_order: each member goes through the samples in an order of its own.
        recalibrate: estimate batch norm's statistics anew after the last graft.
        teacher_width: width of a teacher that is trained first (distilled grafting); None for none.
        temperature: T of the teacher's term, > 0.
        weight: share of the teacher's term, 0 < . <= 1.
        way: how the members run, "one_by_one", "batched", "threads" or "auto"; see `Group`.
    """
    _check_members(members)
    rule = GraftRule(a, c, level, source)
    for name, value in (
        ("different_rates", different_rates),
        ("own_order", own_order),
        ("recalibrate", recalibrate),
    ):
        check_flag(name, value)
    _check_teacher(teacher_width, temperature, weight)
    check_way(way)

    def train(run: Run) -> nn.Module:
        if own_order and run.data.train.shared:
            raise NotApplicable(
                f"Task '{run.task.name}' learns from a graph that all samples share, in which no "
                "network has an order of its own. Use filter_grafting(own_order=False)."
            )
        hooks: list[HookFactory] = [lambda group, plan: OwnGradients(group)]
        if different_rates:
            hooks.append(lambda group, plan: DifferentRates(group, plan.optimizer))
        watched: AbstractContextManager[object] = nullcontext()
        if teacher_width is not None:
            teacher = _taught(run, teacher_width)
            scores = _answers(teacher, run.data.train.inputs[0].dim())
            hooks.append(lambda group, plan: Distillation(scores, temperature, weight))
            watched = run.meter.training(teacher)
        networks = [run.build() for _ in range(members)]
        before = [_Look.at(network) for network in networks]
        group = Group(networks, way=way, own_inputs=own_order)
        with watched:
            grafts = _train(run, group, rule, hooks)
        note_way(run, group)
        if recalibrate:
            _recalibrate(run, networks)
        values = [run.evaluate(network) for network in networks]
        best = values.index(max(values))
        _note(run, grafts, values, best)
        before[best].note(run, _Look.at(networks[best]))
        return networks[best]

    return Technique(train=train)


def _check_members(members: object) -> None:
    require(
        isinstance(members, int) and not isinstance(members, bool) and 2 <= members <= MOST_MEMBERS,
        f"members was given {members!r}; expected a whole number from 2 to {MOST_MEMBERS}, since a "
        "network takes from another one. For a single network leave filter_grafting out.",
    )


def _check_teacher(width: float | None, temperature: float, weight: float) -> None:
    Distillation(lambda batch: batch.target, temperature, weight)
    require(weight > 0, "weight=0 leaves the teacher unused; leave teacher_width out instead.")
    require(
        width is not None or (temperature, weight) == (DEFAULT_TEMPERATURE, DEFAULT_WEIGHT),
        "temperature and weight are of the teacher's term, and there is no teacher. Give "
        "teacher_width too, or leave them out.",
    )


def _train(run: Run, group: Group, rule: GraftRule, hooks: list[HookFactory]) -> Graft:
    """Train the group in place; return the hook that grafted."""
    made: list[Graft] = []

    def look() -> list[float]:
        with run.meter.uncharged():
            return [run.evaluate(member) for member in group.members]

    def make(group: nn.Module, plan: Plan) -> Hook:
        epochs = plan.total_steps // plan.steps_per_epoch
        made.append(Graft(group, rule, epochs=epochs, look=look, generator=plan.generator))
        return made[0]

    run.fit(group, hooks=(*hooks, make))
    return made[0]


def _taught(run: Run, width: float) -> nn.Module:
    """Return a teacher, trained as the control is."""
    if run.task.output_axes != 1 or not run.data.class_names:
        raise NotApplicable(
            f"A teacher needs one set of class scores per sample; task '{run.task.name}' has none. "
            "Leave teacher_width out."
        )
    plain = run.plain()
    return plain.fit(plain.build(width=width))


def _answers(teacher: nn.Module, axes: int) -> Callable[[Batch], Tensor]:
    """Return `batch -> class scores`, also for a batch of each member's own samples.

    Args:
        teacher: trained.
        axes: of the first input of a batch that the members share.
    """
    scores = teacher_scores(teacher)

    def answers(batch: Batch) -> Tensor:
        if batch.inputs[0].dim() == axes:
            return scores(batch)
        flat = tuple(x.flatten(0, 1) for x in batch.inputs)
        return scores(Batch(flat, batch.target, batch.index)).reshape(*batch.index.shape, -1)

    return answers


def _recalibrate(run: Run, networks: list[nn.Module]) -> None:
    data = run.data.train
    order = torch.arange(len(data))
    size = min(_NORM_BATCH, len(data))
    for network in networks:
        with run.meter.training(network):
            reestimate_norms(network, (b.inputs for b in data.batches(order, size)))


def _note(run: Run, grafts: Graft, values: list[float], best: int) -> None:
    metric = f"valid {run.task.metric_name}"
    rows = [
        (k, earlier, value, k == best)
        for k, (earlier, value) in enumerate(zip(grafts.seen, values, strict=True))
    ]
    text = "Each network before and after the last graft; the best one after it is kept."
    if grafts.rule.source == "neighbour" and len(values) == 2:
        text += " Two networks are equal after a graft."
    if not grafts.by_graph:
        text += (
            " The way of the data could not be followed, so entries were given to the convolution "
            f"before them in the order of the state dict ({grafts.groups.reason})."
        )
    columns = ("member", f"{metric} before", f"{metric} after", "kept")
    run.note("Filter grafting: networks", Table(columns, rows, text))


@dataclass(frozen=True)
class _Look:
    """The filters of a network at some time."""

    filters: list[LayerFilters]
    entropies: dict[str, float]

    @classmethod
    def at(cls, network: nn.Module) -> _Look:
        return cls(invalid_filters(network), filter_entropy(network))

    def note(self, run: Run, after: _Look) -> None:
        rows = [
            (then.layer, then.filters, then.invalid, now.invalid,
             self.entropies[then.layer], after.entropies[now.layer])
            for then, now in zip(self.filters, after.filters, strict=True)
        ]  # fmt: skip
        columns = ("layer", "filters", "invalid before", "after", "entropy before", "after")
        text = f"Filters with an L1 norm below {INVALID_NORM:g}, and the layers' entropies in "
        text += "nats: of the kept network, before training and after."
        run.note("Filter grafting: layers", Table(columns, rows, text))
        text = f"Filters of each layer with an L1 norm below {INVALID_NORM:g}."
        series = {"before": self.invalid(), "after": after.invalid()}
        self._note_lines(run, "invalid filters", series, text)
        text = "Entropy of each layer's weights in nats; ln 10 = 2.30 is the most."
        series = {
            "before": list(self.entropies.values()),
            "after": list(after.entropies.values()),
        }
        self._note_lines(run, "entropy", series, text)

    def invalid(self) -> list[float]:
        return [row.invalid for row in self.filters]

    def _note_lines(self, run: Run, name: str, series: dict[str, list[float]], text: str) -> None:
        lines = Lines(("layer", list(self.entropies)), series, text)
        run.note(f"Filter grafting: {name}", lines)
