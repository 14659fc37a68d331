"""Ternary neural networks: a teacher that fires by chance, and a student of -1, 0 and +1.

Alemdar, Leroy, Prost-Boucle and Petrot, "Ternary Neural Networks for Resource-Efficient AI
Applications", IJCNN 2017, arXiv 1609.00222.

    teacher   n = sign(rho) with probability |rho|, else 0,   rho = tanh(BN(W x))
    student   n = -1 if s < low, +1 if s > high, else 0,      s = T x,  T in {-1, 0, 1}

The student is fitted to the teacher layer by layer and neuron by neuron: candidates (k+, k-) of the
sorted weights, the two thresholds by an exact scan, the score the expected agreement. The last
layer is fitted to the labels. Between layers the real rest is trained on.

Shapes: an `nn.Sequential` of Linear, Conv1d and Conv2d, batch norms and max pools; weights keep
their shape.

Deviations from the paper: see the card `ternary_network.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from whit.core.data import Data
from whit.core.options import is_number, nearest, require
from whit.core.technique import AfterTraining, Technique, technique
from whit.errors import SpecError
from whit.parts.firing_blocks import Block, blocks, make_teacher
from whit.parts.layer_samples import inputs_of_last, observe
from whit.parts.levels import Levels, add_levels
from whit.parts.stochastic_firing import SQUASHES, Squash, TernaryInput
from whit.parts.surgery import weighted_layers
from whit.parts.ternary_last_layer import LastFit, round_last
from whit.parts.ternary_layers import (
    HiddenFit,
    copied,
    in_batches,
    round_block,
)
from whit.parts.ternary_search import SearchOptions
from whit.procedures.latent_weights import ClipLatentWeights
from whit.procedures.ternary_conversion import (
    MOST_SWEEPS,
    Conversion,
    Last,
    convert,
    has_ternary_weights,
    next_accuracy,
    require_classes,
)

Input = Literal["ternary", "binary", "integer", "given"]
Weights = Literal["real", "ternary"]
INPUTS = ("ternary", "binary", "integer", "given")
_RETRAIN, _SAMPLES, _CANDIDATES = 0.25, 10_000, 256


def ternary_teacher(
    model: nn.Module,
    *,
    squash: Squash = "tanh",
    weights: Weights = "real",
    input: Input = "ternary",
    threshold: float | None = None,
) -> nn.Module:
    """Make a network the teacher of a ternary one, in place, and return it; then train it.

    Args:
        model: an `nn.Sequential` of linear layers, convolutions, batch norms, max pools and
            activations.
        squash: "tanh" or "hardtanh", in the place of every activation.
        weights: "real", or "ternary": rounded by chance in every forward call of the training.
        input: how the (normalised) input is quantised: "ternary", "binary" (0 and 1), "integer"
            (8 bits), or "given" for small whole numbers that need no quantiser.
        threshold: of a ternary (0.5 by default) or binary (0) input.

    Raises:
        NoEffect: the model has no activation module, or no weight.
        NotApplicable: a module cannot be part of a ternary network; it is named.
        SpecError: an option is out of range, or the weights are quantised or pruned already.
    """
    _check_teacher(squash, weights, input, threshold)
    make_teacher(model, squash, _quantiser(input, threshold))
    if weights == "ternary":
        layers = [layer for _, layer in weighted_layers(model)]
        for layer in layers[:-1]:
            add_levels(layer, Levels("ternary", "channel", "stochastic"))
        # One scale for all classes: their sums are compared with one another.
        add_levels(layers[-1], Levels("ternary", "layer", "stochastic"))
    return model


def _quantiser(input: str, threshold: float | None) -> TernaryInput | None:
    if input == "given":
        return None
    usual = 0.0 if input == "binary" else 0.5
    return TernaryInput(input, usual if threshold is None else threshold)


@dataclass(frozen=True)
class LayerReport:
    """How a layer was converted.

    Attributes:
        path: of the layer.
        score: mean expected agreement with the teacher, 0..1; for the last layer the share of right
            training samples.
        bound: which the score cannot exceed.
        zeros: share of zero weights, 0..1.
    """

    path: str
    score: float
    bound: float
    zeros: float


def ternarise(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor | None = None,
    conversion: Conversion | None = None,
    *,
    retrain: Callable[[nn.Module], object] | None = None,
    seed: int = 0,
) -> list[LayerReport]:
    """Turn a trained teacher into its ternary student, in place.

    Args:
        model: a trained `ternary_teacher`.
        inputs: training samples [samples, ...]; never those that will judge the student.
        labels: int64 [samples], for the last layer; None with `last="real"`.
        conversion: options.
        retrain: trains what is still real; called with the model after each hidden layer. Without
            it, layers imitate the teacher on clean inputs, so that early errors are corrected.
        seed: of the draws of samples.

    Returns:
        One report for each layer that became ternary.

    Raises:
        NotApplicable: the model is no chain of blocks, or its input is not quantised.
        SpecError: there are no samples, they or the model are not finite, or the labels of a last
            layer that is to be fitted are missing, too few, or no classes of the model.
    """
    options = conversion or Conversion()
    _check_finite(model)
    _check_samples(model, inputs, labels, options.last)
    generator = torch.Generator().manual_seed(seed)
    exact = has_ternary_weights(model.eval())
    original = copied(model)
    batches = in_batches(_drawn(inputs, options.samples, generator))
    reports = []
    for number in range(len(blocks(model)) - 1):
        source = copied(model)
        fit = HiddenFit(model, number)
        reference = original if retrain is None else source
        if not exact:
            fit.fit(
                range(fit.channels),
                observe(source, reference, number, batches, options.samples, generator),
                options.search,
            )
        reports.append(_hidden_report(fit, blocks(model)[number], exact))
        if retrain is not None and not exact:
            retrain(model)
    if options.last == "ternary" and labels is not None:
        last = LastFit(model, inputs_of_last(model, in_batches(inputs)), labels, options.search)
        accuracy, done = next_accuracy(last, exact, True, 0.0)
        for _ in range(0 if done else MOST_SWEEPS):
            accuracy, done = next_accuracy(last, exact, False, accuracy)
            if done:
                break
        reports.append(LayerReport(last.path, accuracy, 1.0, _zeros(blocks(model)[-1])))
    model.eval()
    return reports


def _check_finite(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        require(
            bool(tensor.isfinite().all()),
            f"The teacher's '{name}' holds NaN or infinite numbers: its training diverged. Train "
            "it again with a smaller learning rate.",
        )


def _check_samples(model: nn.Module, inputs: Tensor, labels: Tensor | None, last: str) -> None:
    require(len(inputs) > 0, "inputs was given no sample; expected one or more.")
    require(bool(inputs.isfinite().all()), "inputs holds NaN or infinite numbers.")
    if last == "real":
        return
    if labels is None:
        raise SpecError(
            "The last layer is fitted to labels, and labels is None; give them, or last='real'."
        )
    require(
        labels.dtype == torch.int64 and labels.shape == (len(inputs),),
        f"labels was given {labels.dtype} {list(labels.shape)}; expected torch.int64 "
        f"[{len(inputs)}], one class number for each sample.",
    )
    classes = len(blocks(model)[-1].layer.weight)
    low, high = int(labels.min()), int(labels.max())
    require(
        0 <= low and high < classes,
        f"labels was given numbers from {low} to {high}; the model has the classes 0 to "
        f"{classes - 1}.",
    )


def _drawn(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return some of the samples, in their order."""
    chosen = torch.randperm(len(inputs), generator=generator)[:count].sort().values
    return inputs[chosen.to(inputs.device)]


def _zeros(block: Block) -> float:
    return float((block.layer.weight == 0).double().mean())


def _hidden_report(fit: HiddenFit, block: Block, exact: bool) -> LayerReport:
    if exact:
        return LayerReport(fit.path, 1.0, 1.0, _zeros(block))
    return LayerReport(fit.path, fit.mean_score(), float(fit.bounds.nanmean()), _zeros(block))


def round_all(model: nn.Module, last: Last = "ternary") -> nn.Module:
    """Turn a teacher into a ternary network without data, in place, and return it.

    Weights are rounded and batch norms folded: exact for a teacher with ternary weights, and the
    yardstick for the fit of another one.

    Args:
        model: a `ternary_teacher`, trained or not; hidden blocks that are ternary stay.
        last: "real" leaves the last layer as it is.
    """
    _check_finite(model)
    model.eval()
    for block in blocks(model)[:-1]:
        if not block.is_ternary:
            round_block(block)
    final = blocks(model)[-1]
    if last == "ternary" and not _is_rounded(final):
        round_last(final)
    return model


def _is_rounded(block: Block) -> bool:
    weight = block.layer.weight
    return not weight.requires_grad and bool((weight.abs() <= 1).all() & (weight % 1 == 0).all())


@technique
def ternary_network(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    squash: Squash = "tanh",
    weights: Weights = "real",
    input: Input = "ternary",
    threshold: float | None = None,
    last: Last = "ternary",
    retrain: float = _RETRAIN,
    samples: int = _SAMPLES,
    candidates: int = _CANDIDATES,
) -> Technique:
    """Train a teacher that fires by chance, then fit a network of -1, 0 and +1 to it.

    Args:
        squash: "tanh" or "hardtanh", in the place of every activation.
        weights: of the teacher: "real", or "ternary" (then the student is the folded teacher, and
            `retrain`, `samples` and `candidates` have no meaning).
        input: how the normalised input is quantised: "ternary", "binary" (0 and 1), "integer" (8
            bits), or "given" for small whole numbers that need no quantiser.
        threshold: of a ternary (None: 0.5) or binary (None: 0) input.
        last: "ternary", fitted to the labels, or "real".
        retrain: epochs on which the real rest is trained after each hidden layer, as a share of the
            run's; 0 for none.
        samples: outputs that a hidden neuron is fitted on, >= 1; the last layer is fitted on all.
        candidates: of the exhaustive search of a neuron that the quick search did not fit well.
    """
    _check_teacher(squash, weights, input, threshold)
    _check_fit(weights, retrain, samples, candidates)
    options = Conversion(last, samples, SearchOptions(most_candidates=candidates))

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        require_classes(bool(data.class_names), last)  # before the teacher is trained in vain
        return ternary_teacher(
            model, squash=squash, weights=weights, input=input, threshold=threshold
        )

    return Technique(
        prepare_model=prepare,
        hooks=(ClipLatentWeights,) if weights == "ternary" else (),
        train=AfterTraining(
            lambda run, model: convert(run, model, options, retrain), chooses_values=True
        ),
        # Where the procedure has run, nothing is left to round.
        finish_model=lambda model, data: round_all(model, last),
    )


def _check_fit(weights: str, retrain: float, samples: int, candidates: int) -> None:
    require(
        is_number(retrain) and 0 <= retrain <= 10,
        f"retrain was given {retrain!r}; expected a number from 0 to 10.",
    )
    whole = isinstance(candidates, int) and not isinstance(candidates, bool) and candidates >= 0
    require(whole, f"candidates was given {candidates!r}; expected a whole number >= 0.")
    if weights == "real":
        return
    for name, value, usual in (
        ("retrain", retrain, _RETRAIN),
        ("samples", samples, _SAMPLES),
        ("candidates", candidates, _CANDIDATES),
    ):
        require(
            value == usual,
            f"{name} has no meaning with weights='ternary': the teacher is folded, not fitted.",
        )


def _check_teacher(squash: str, weights: str, input: str, threshold: float | None) -> None:
    for name, value, known in (
        ("squash", squash, SQUASHES),
        ("weights", weights, ("real", "ternary")),
        ("input", input, INPUTS),
    ):
        require(value in known, f"{name} was given {value!r}. {nearest(str(value), known)}")
    if threshold is not None:
        good = is_number(threshold) and (input == "binary" or threshold > 0)
        require(good, f"threshold was given {threshold!r}; expected a number above 0.")
        require(input in ("ternary", "binary"), f"threshold has no meaning with input={input!r}.")
