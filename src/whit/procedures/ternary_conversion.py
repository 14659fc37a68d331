"""From a trained teacher to a ternary student within a run: charged, shown, saved and resumed.

Every hidden layer, every training between layers and the last layer is a `fit` of its own, so that
a killed run goes on in the layer where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.core.options import nearest, require
from whit.core.run import Run
from whit.errors import NotApplicable
from whit.parts.firing_blocks import blocks
from whit.parts.layer_samples import inputs_of_last, observe
from whit.parts.levels import find_levels
from whit.parts.ternary_last_layer import LastFit
from whit.parts.ternary_layers import (
    HiddenFit,
    chunks,
    copied,
    in_batches,
    is_ternary,
    round_block,
)
from whit.parts.ternary_search import SearchOptions

Last = Literal["ternary", "real"]
# Neurons that are fitted between two looks at the network.
NEURONS_A_ROUND = 64
# The last layer is swept until a sweep gains less than this share of right samples.
LEAST_GAIN = 0.001
MOST_SWEEPS = 20


@dataclass(frozen=True)
class Conversion:
    """How a teacher becomes a student.

    Attributes:
        last: "ternary", fitted to the labels, or "real", left as it is.
        samples: outputs that a hidden neuron is fitted on, drawn from all samples and places; >= 1.
            The last layer, which is few neurons, is fitted on all.
        search: of a neuron's weights.
    """

    last: Last = "ternary"
    samples: int = 10_000
    search: SearchOptions = field(default_factory=SearchOptions)

    def __post_init__(self) -> None:
        """Check the ranges."""
        known = ("ternary", "real")
        require(self.last in known, f"last was given {self.last!r}. {nearest(self.last, known)}")
        count = self.samples
        whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
        require(whole, f"samples was given {count!r}; expected a whole number >= 1.")


def has_ternary_weights(model: nn.Module) -> bool:
    """Say whether a teacher was trained with ternary weights, so that it is folded exactly.

    Its rows are -a, 0 and +a, with one a for the whole last layer, whose sums are compared. Other
    sets of values, as those of a sum with finite_set_weights(values=5), are fitted.

    Args:
        model: teacher in evaluation mode.
    """
    layers = [block.layer for block in blocks(model)]
    if not all(find_levels(layer) is not None for layer in layers):
        return False
    hidden = all(is_ternary(layer.weight) for layer in layers[:-1])
    return hidden and is_ternary(layers[-1].weight.reshape(1, -1))


def require_classes(has_classes: bool, last: str) -> None:
    """Refuse to fit a ternary last layer where there is no class for each sample.

    Raises:
        NotApplicable: `last` is "ternary", and there are no classes.
    """
    if last == "ternary" and not has_classes:
        raise NotApplicable(
            "The last layer of a ternary network is fitted to classes, and this task has no class "
            "for each sample. Use ternary_network(last='real')."
        )


def convert(run: Run, model: nn.Module, options: Conversion, retrain: float) -> nn.Module:
    """Turn a trained teacher into its student, layer by layer, in place.

    Args:
        run: gives the training samples and is charged.
        model: teacher.
        options: of the conversion.
        retrain: epochs on which the real rest is trained after each hidden layer, as a share of the
            run's, >= 0.

    Raises:
        NotApplicable: the task has no classes, or several inputs.
    """
    require_classes(run.task.output_axes == 1 and bool(run.data.class_names), options.last)
    if len(run.data.train.inputs) != 1 or run.data.train.shared:
        raise NotApplicable("ternary_network takes models of one input tensor.")
    exact = has_ternary_weights(model.eval())
    original = copied(model)
    for number in range(len(blocks(model)) - 1):
        if exact:
            round_block(blocks(model)[number])
            continue
        _convert_hidden(run, model, number, None if retrain else original, options)
        if retrain:
            epochs = max(1, round(retrain * run.settings.epochs))
            # Hooks of the sum belong to the first training: a pruning has reached its end.
            run.plain().fit(model, epochs=epochs)
    if options.last == "ternary":
        _convert_last(run, model, options, exact)
    return model.eval()


def _convert_hidden(
    run: Run, model: nn.Module, number: int, reference: nn.Module | None, options: Conversion
) -> None:
    source = copied(model)
    fit = HiddenFit(model, number)
    parts = list(chunks(fit.channels, NEURONS_A_ROUND))
    with run.loop(model, len(parts)) as loop:
        state = loop.resume()
        if state is not None:
            fit.go_on(state)
        if loop.round == loop.rounds:
            return
        generator = torch.Generator().manual_seed(loop.seed)
        order = torch.randperm(len(run.data.train), generator=generator)[: options.samples]
        batches = list(_batches(run, order.sort().values))
        with ExitStack() as charged:
            if state is None:  # what is seen again after a kill was charged before it
                for network in (source, reference or nn.Identity()):
                    charged.enter_context(run.meter.training(network))
            seen = observe(source, reference or source, number, batches, options.samples, generator)
        while loop.round < loop.rounds:
            before = fit.work
            fit.fit(parts[loop.round], seen, options.search)
            loop.meter.add_macs(fit.work - before)  # an addition counts as one
            loop.end_round(1 - fit.mean_score(), fit.state())


def _convert_last(run: Run, model: nn.Module, options: Conversion, exact: bool) -> None:
    everything = torch.arange(len(run.data.train))
    with run.loop(model, MOST_SWEEPS + 1) as loop:
        inputs = inputs_of_last(model, _batches(run, everything))
        last = LastFit(model, inputs, run.data.train.target, options.search)
        state = loop.resume()
        if state is not None:
            last.go_on(state)
        accuracy = last.neurons.accuracy() if loop.round else 0.0
        while loop.round < loop.rounds:
            before, work = accuracy, last.neurons.work
            accuracy, done = next_accuracy(last, exact, loop.round == 0, before)
            loop.meter.add_macs(last.neurons.work - work)  # an addition counts as one
            loop.end_round(1 - accuracy, last.state(), last=done)


def next_accuracy(last: LastFit, exact: bool, first: bool, before: float) -> tuple[float, bool]:
    """Start or sweep the last layer; return its accuracy, and whether it has settled.

    Args:
        last: layer.
        exact: the teacher's weights are ternary: only offsets are fitted, once.
        first: start it.
        before: accuracy of the sweep before.
    """
    if not first:
        accuracy = last.sweep()
        return accuracy, accuracy - before < LEAST_GAIN
    return last.start(exact), exact


def _batches(run: Run, order: Tensor) -> Iterator[Tensor]:
    """Yield the training inputs with these numbers."""
    split: Split = run.data.train
    for rows in in_batches(order):
        yield split.batch(rows).inputs[0].to(run.device.torch)
