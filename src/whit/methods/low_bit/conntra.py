"""CoNNTrA: weights from a finite set, trained by coordinate descent, without gradients.

Date, Carothers, Mitchell, Hendler and Magdon-Ismail, "Training Deep Neural Networks with
Constrained Learning Parameters", 2020, arXiv 2009.00540.

    for each weight w, in random order:   w <- argmin over v in V of E(w = v), all else fixed

Real weight = s v with one scale s a layer. E is the loss on all training samples. The search ends
where no single move lowers it. Only the abstract of the paper could be read: what is ours, and that
is most of it, is said in the card `conntra.md`.

Shapes: any model with one input whose weights are in `nn.Linear` and `nn.Conv2d`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from whit.core.options import nearest, require
from whit.core.procedure import AfterTraining, WithoutSteps
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NotApplicable
from whit.parts.surgery import bake
from whit.procedures.coordinate_descent.batches import BLOCK
from whit.procedures.coordinate_descent.descent import CoordinateDescent
from whit.procedures.coordinate_descent.group_descent import GroupOptions
from whit.procedures.coordinate_descent.network import Biases, DiscreteNetwork, Starting
from whit.procedures.coordinate_descent.options import Sweep, SweepOptions
from whit.procedures.coordinate_descent.rounds import descend_by_groups, descend_exactly
from whit.procedures.coordinate_descent.stages import (
    BATCH_NORMS,
    DEFAULT_GUIDED,
    against_neighbourhood,
)
from whit.procedures.coordinate_descent.start import StartRule

SCORERS = ("auto", "exact", "neighbourhood")
INSTEAD = "conntra(start='from_model')"


def conntra_fit(  # noqa: PLR0913 - model and data, then what the network may be, by name
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    values: object = "ternary",
    start: Starting = "random",
    scales: float | str | Mapping[str, float] | None = None,
    biases: Biases = "auto",
    skip: Sequence[str] = (),
    options: SweepOptions | None = None,
    valid: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> list[Sweep]:
    """Train a model in place by coordinate descent over discrete weights; return the history.

    Args:
        model: takes one tensor; on the CPU, without parametrisations. Its batch norms use the
            statistics of the training samples at a random start, and the stored ones from a model;
            `SweepOptions(batch_statistics=True)` always uses those of the samples.
        inputs: training samples [samples, ...].
        targets: int64 classes [samples], or numbers of the outputs' shape. All must be finite.
        values: the values that weights may take, see `DiscreteNetwork.from_model`.
        start: "random", or "from_model" for the values nearest to the model's weights.
        scales: of the layers, see `DiscreteNetwork.from_model`.
        biases: "discrete", "keep" or "auto", see `DiscreteNetwork.from_model`.
        skip: paths of layers that stay as they are; a text is one path.
        options: criterion, rule, order, limits and so on.
        valid: inputs and targets of validation samples, for the history and keep="best_valid".
        seed: of the start and of the orders.

    Raises:
        SpecError: an option is out of range, data do not fit the model or are not finite, or the
            start is one from which nothing can move.
        NotApplicable: layers that cannot be treated, with the reason.
    """
    network = DiscreteNetwork.from_model(
        model,
        values=values,
        scales=scales,
        biases=biases,
        start=start,
        skip=skip,
        generator=torch.Generator().manual_seed(seed),
    )
    options = _with_statistics(options or SweepOptions(), model, start)
    _require_random_restarts(start, options.restarts)
    return CoordinateDescent(network, inputs, targets, options, valid=valid, seed=seed).run()


def _with_statistics(options: SweepOptions, model: nn.Module, start: str) -> SweepOptions:
    # A fresh batch norm holds no statistics worth keeping; those of a trained model are part of it.
    fresh = start == "random" and any(isinstance(m, BATCH_NORMS) for m in model.modules())
    return replace(options, batch_statistics=options.batch_statistics or fresh)


@technique
def conntra(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    values: object = "auto",
    start: Starting = "random",
    criterion: str | None = None,
    rule: Literal["best", "first", "gradient"] = "best",
    order: Literal["random", "cyclic"] = "random",
    block: int | Literal["unit"] = "unit",
    scorer: Literal["auto", "exact", "neighbourhood"] = "auto",
    guided: int | None = None,
    batch: int | None = None,
    scales: float | str | Mapping[str, float] | None = None,
    scale_search: bool = False,
    biases: Biases = "auto",
    sweeps: int | None = None,
    seconds: float | None = None,
    restarts: int = 1,
    pairs: int = 0,
    keep: Literal["last", "best_valid"] = "last",
    nonzero_cost: float = 0.0,
    energy_cost: float = 0.0,
    skip: Sequence[str] = (),
) -> Technique:
    """Train weights from a finite set by exact coordinate descent, without gradients.

    Args:
        values: that weights may take: a name ("binary", "ternary", "powers_of_two"), a number of
            levels, the values themselves, a mapping from layers to such, "own" (those that the
            layers of a trained model hold, up to 256), or "auto" (own where a layer holds few, or
            where a term before has chosen them, else ternary).
        start: "random" trains from random values; "from_model" goes on from the model that the
            terms before it in the sum have trained.
        criterion: None for the task's loss; "cross_entropy", "mse", "zero_one", "zero_one_ties".
        rule: "best", "first" or "gradient", see `SweepOptions`.
        order: "random" or "cyclic".
        block: "unit", or how many weights are scored against the same state.
        scorer: "exact" for the general engine; "neighbourhood" for the fast one, which takes ...
            Linear, elementwise activation, Linear: batches that grow, with the task's augmentation,
            from a random start, and all samples as they are from a model. Its scores are float32,
            and predictions in the last layer and between the levels of inputs. "auto" for the fast
            one where network and other options allow it, and where there are 5,000 samples or more.
        guided: moves of each unit that guided sweeps score, 0 for exhaustive sweeps only; None for
            8, or 0 where guided sweeps are not possible (rule="gradient", batch, "zero_one").
        batch: samples of a batch; None for all samples, and a loss that never rises.
        scales: None for the default ones, a number > 0, or one by layer; "layer" or "channel" from
            a model. Given scales are kept. The fast engine fits that of the last layer where none
            is given, to 8 significant bits.
        scale_search: double or halve scales after each sweep where that lowers the loss.
        biases: "auto", "discrete" or "keep".
        sweeps: most sweeps of a restart (epochs of the fast engine at a random start); None for the
            epochs of the settings.
        seconds: most seconds; None for no limit.
        restarts: random starts, of which the best is kept.
        pairs: first moves of pairs that are tried where no single move improves.
        keep: "last" or "best_valid".
        nonzero_cost: added to the loss if all weights were non-zero, else in proportion, >= 0.
        energy_cost: the same for modelled energy, >= 0.
        skip: paths of layers that stay as they are; a text is one path.
    """
    options = SweepOptions(
        criterion=criterion or "cross_entropy",
        rule=rule,
        order=order,
        block=block,
        guided=_guided(guided, rule, batch, criterion),
        batch=batch,
        scale_search=scale_search,
        pairs=pairs,
        seconds=seconds,
        restarts=restarts,
        keep=keep,
        nonzero_cost=nonzero_cost,
        energy_cost=energy_cost,
    )
    network = _Network(values, scales, biases, start, skip)
    descent = _Descent(network, options, scorer, sweeps, of_the_task=criterion is None)
    if start == "from_model":
        return Technique(
            train=AfterTraining(
                lambda run, model: descent.run(run, bake(model)),
                chooses_values=True,
                keeps_values=True,
            )
        )
    return Technique(train=WithoutSteps(lambda run: descent.run(run, _new_model(run)), INSTEAD))


@dataclass(frozen=True)
class _Network:
    """How a model becomes a discrete network; the options of `DiscreteNetwork.from_model`."""

    values: object
    scales: float | str | Mapping[str, float] | None
    biases: Biases
    start: Starting
    skip: Sequence[str]

    def __post_init__(self) -> None:
        StartRule(
            self.values, self.scales, self.biases, self.start, torch.Generator()
        ).check_alone()

    def of(self, model: nn.Module, seed: int) -> DiscreteNetwork:
        return DiscreteNetwork.from_model(
            model,
            values=self.values,
            scales=self.scales,
            biases=self.biases,
            start=self.start,
            skip=self.skip,
            generator=torch.Generator().manual_seed(seed),
        )


@dataclass(frozen=True)
class _Descent:
    """The descent that the options of the technique describe."""

    network: _Network
    options: SweepOptions
    scorer: str
    sweeps: int | None
    of_the_task: bool

    def __post_init__(self) -> None:
        scorer, sweeps = self.scorer, self.sweeps
        require(scorer in SCORERS, f"scorer was given {scorer!r}. {nearest(str(scorer), SCORERS)}")
        _require_random_restarts(self.network.start, self.options.restarts)
        whole = isinstance(sweeps, int) and not isinstance(sweeps, bool)
        require(
            sweeps is None or (whole and sweeps >= 1),
            f"sweeps was given {sweeps!r}; expected a whole number, 1 or more, or None.",
        )

    def run(self, run: Run, model: nn.Module) -> nn.Module:
        """Train the model."""
        known = _criterion_of(run)
        _require_one_input(run)
        start = self.network.start
        chosen = replace(
            _with_statistics(self.options, model, start),
            criterion=known if self.of_the_task else self.options.criterion,
            sweeps=self.sweeps or run.settings.epochs,
        )
        loop = run.loop(model, chosen.sweeps * chosen.restarts)
        network = self.network.of(model, loop.seed)
        against = against_neighbourhood(network, chosen, known)
        if self.scorer == "neighbourhood" and against:
            raise NotApplicable(f"scorer='neighbourhood' is not possible here: {against}")
        few = self.scorer == "auto" and len(run.data.train) < BLOCK
        if self.scorer == "exact" or against or few:
            return descend_exactly(run, loop, network, chosen)
        return descend_by_groups(
            run,
            loop,
            network,
            self._group_options(network),
            criterion=known,
            monotone=start == "from_model",
            seconds=chosen.seconds,
        )

    def _group_options(self, network: DiscreteNetwork) -> GroupOptions:
        """Return the options of the fast engine: scales that were given stay as they are."""
        given, monotone = self.network.scales, self.network.start == "from_model"
        of_logits = network.layers[-1].path in given if isinstance(given, Mapping) else True
        if self.options.scale_search:
            scales = "powers_of_two"
        elif given is not None and not isinstance(given, str) and of_logits:
            scales = "fixed"
        else:
            scales = "eight_bits" if monotone else "free"
        return GroupOptions(scales=scales, single=monotone)


def _require_random_restarts(start: str, restarts: int) -> None:
    require(
        start == "random" or restarts == 1,
        f"restarts={restarts} draws random starts, and start='from_model' has one. Leave it out.",
    )


def _guided(guided: int | None, rule: str, batch: int | None, criterion: object) -> int:
    if guided is not None:
        return guided
    unguided = rule == "gradient" or batch is not None or criterion == "zero_one"
    return 0 if unguided else DEFAULT_GUIDED


def _criterion_of(run: Run) -> Literal["cross_entropy", "mse"]:
    """Return the criterion that is the task's loss."""
    if run.task.loss is functional.cross_entropy and run.task.output_axes == 1:
        return "cross_entropy"
    if run.task.loss is functional.mse_loss and run.task.output_axes == 1:
        return "mse"
    raise NotApplicable(
        f"conntra lowers cross-entropy or mean squared error of one output vector a sample; task "
        f"'{run.task.name}' has the loss '{getattr(run.task.loss, '__name__', 'of its own')}' over "
        f"{run.task.output_axes} axes. In your own loop, conntra_fit takes such models too, and a "
        "criterion of your own: a function (outputs, targets) -> [samples]."
    )


def _require_one_input(run: Run) -> None:
    split = run.data.train
    given = len(split.inputs) + len(split.shared)
    if given != 1:
        raise NotApplicable(
            f"conntra treats models with one input; task '{run.task.name}' gives {given}."
        )


def _new_model(run: Run) -> nn.Module:
    """Return a new model for a random start, which leaves nothing to other techniques."""
    model = run.build()
    bound = [path for path, m in model.named_modules() if parametrize.is_parametrized(m)]
    if bound or run.technique.hooks:
        raise NotApplicable(
            f"'{run.technique.brief}': conntra starts from random values and has no gradient "
            "steps, so what another technique puts on weights or does at each step is lost. Write "
            f"conntra behind it, to go on from its trained model: '... + {INSTEAD}'."
        )
    return model
