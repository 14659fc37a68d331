"""PrecisionBatching: a trained network's weights as bit layers, as many of them as each call wants.

Lam, Yedidia, Banbury and Janapa Reddi, "Quantized Neural Network Inference with Precision
Batching", 2020, arXiv 2003.00822.

    y = sum_j c_j (P_j x),   w ~ step sum_j c_j P_j

Nothing is retrained. Activations stay real, or get k bits. One packed file holds all planes, and
`program(x, planes=r)` uses the r highest.

Shapes: weights of linear and convolution layers keep their shape.

Deviations from the paper: see the card `precision_batching.md`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from whit.core.data import Data
from whit.core.options import check_flag, is_number, require
from whit.core.run import Run
from whit.core.technique import AfterTraining, Technique, technique
from whit.errors import NoEffect, NotApplicable, SpecError
from whit.parts.bit_planes import FixedPoint, Step, check_bits, quantised
from whit.parts.level_counts import takes_few_values
from whit.parts.surgery import WEIGHTED, WeightedLayer, bake, swap_modules, weighted_layers

CALIBRATION_SAMPLES = 1000
FORMAT = "planes"
MOST_ZEROS = 0.5  # above, a sparse format takes fewer bytes than planes


def bit_layers(
    model: nn.Module,
    bits: int | Mapping[str, int] = 4,
    *,
    step: Step = "channel",
    cutoff: bool = True,
    skip: Sequence[str] = (),
) -> nn.Module:
    """Round a trained model's weights to integers of so many bits, in place, and return it.

    The packer stores these weights as planes, so that a call may use fewer of them. Binary and
    ternary layers stay as they are, and weights of which more than half are zeros are rounded but
    stored in a sparse format, which takes fewer bytes.

    Args:
        model: any module with linear or convolution layers; parametrised weights are baked.
        bits: of the magnitude, 1 to 15 (11 with step="channel"), for all layers or by path.
        step: see `whit.parts.bit_planes.quantised`.
        cutoff: see there.
        skip: paths or child names of layers whose weights stay as they are.

    Raises:
        NoEffect: no weight changed: all lie on such integers already.
        SpecError: an option is out of range, bits by path do not name the layers, or a weight is
            infinite or not a number.
    """
    bake(model)
    layers = _with_real_weights(model, skip)
    if isinstance(bits, Mapping) and set(bits) != {path for path, _ in layers}:
        raise SpecError(
            f"bits names the layers {', '.join(map(str, bits)) or 'none'}; give a number for each "
            f"of {', '.join(path for path, _ in layers)}."
        )
    changed = False
    for path, layer in layers:
        own = bits[path] if isinstance(bits, Mapping) else bits
        weight = layer.weight.detach().clone()
        _round(layer, weight, own, step, cutoff)
        changed = changed or not torch.allclose(layer.weight, weight)
        _ask_for_planes(layer)
    if not changed:
        raise _no_effect()
    return model


def _with_real_weights(
    model: nn.Module, skip: Sequence[str] = ()
) -> list[tuple[str, WeightedLayer]]:
    """Return the layers that are neither binary nor ternary.

    Raises:
        NoEffect: there are none.
        SpecError: a weight is infinite or not a number.
    """
    layers = weighted_layers(model, skip)
    for path, layer in layers:
        if not bool(layer.weight.isfinite().all()):
            raise SpecError(f"The weights of layer '{path}' hold NaN or infinite numbers.")
    real = [(p, m) for p, m in layers if not takes_few_values(m.weight.detach(), 2)]
    if not real:
        raise _no_effect()
    return real


def _no_effect() -> NoEffect:
    return NoEffect(
        "precision_batching changed no weight: all are binary, ternary, or integers times a step "
        "already. Use it on a network with real weights, or with fewer bits."
    )


def _round(layer: WeightedLayer, weight: Tensor, bits: int, step: Step, cutoff: bool) -> None:
    integers, size = quantised(weight, bits, step, cutoff)
    layer.weight.data = integers * size


def store_as_planes(model: nn.Module) -> nn.Module:
    """Let the packer store weights as planes, those apart that are sparse, binary or ternary."""
    for _, layer in weighted_layers(model):
        if not takes_few_values(layer.weight.detach(), 2):
            _ask_for_planes(layer)
    return model


def _ask_for_planes(layer: Any) -> None:
    if float((layer.weight == 0).float().mean()) <= MOST_ZEROS:
        layer.stored_as = FORMAT  # an attribute that no module declares


def quantise_inputs(model: nn.Module, bits: int, skip: Sequence[str] = ()) -> nn.Module:
    """Put `FixedPoint` before every linear and convolution layer, in place; see `calibrate`.

    Raises:
        NotApplicable: the model itself is the layer, and cannot be replaced in place, or a layer
            stands at several places.
        SpecError: the inputs are quantised already.
    """
    if any(isinstance(module, FixedPoint) for module in model.modules()):
        raise SpecError("The inputs of this model are quantised already; do it once.")
    places = [id(m) for _, m in model.named_modules(remove_duplicate=False)]
    for path, layer in weighted_layers(model, skip):
        if places.count(id(layer)) > 1:
            raise NotApplicable(
                f"Layer '{path}' stands at several places of the model, and its inputs there may "
                "differ in range. Use activation_bits=None."
            )
    if isinstance(model, WEIGHTED):
        raise NotApplicable(
            "The model is a single layer, whose input cannot be quantised in place. Put it into "
            "torch.nn.Sequential(layer)."
        )
    layers = {id(layer) for _, layer in weighted_layers(model, skip)}
    swap_modules(
        model,
        lambda module: id(module) in layers,
        lambda module: nn.Sequential(OrderedDict(input=FixedPoint(bits), layer=module)),
    )
    return model


def calibrate(model: nn.Module, *inputs: Tensor) -> None:
    """Set the steps of all `FixedPoint` to the largest magnitudes that they see.

    Args:
        model: after `quantise_inputs`.
        inputs: what the model is called with, training samples.

    Raises:
        SpecError: an activation is infinite or not a number.
    """
    largest: dict[int, float] = {}

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen = float(given[0].abs().max())
        if not math.isfinite(seen):
            raise SpecError(
                "An activation is NaN or infinite while the model is calibrated. Look at the "
                "samples and at the training."
            )
        largest[id(module)] = max(largest.get(id(module), 0.0), seen)
        cast(FixedPoint, module).calibrate(largest[id(module)])

    quantisers = [m for m in model.modules() if isinstance(m, FixedPoint)]
    hooks = [m.register_forward_pre_hook(look) for m in quantisers]
    mode = model.training
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()


def choose_bits(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    lowest: float,
    bits: int,
    *,
    step: Step = "channel",
    cutoff: bool = True,
) -> dict[str, int]:
    """Return the bits of each layer, as few as a score allows, layer after layer.

    The layer with most weights comes first; each gets the fewest bits with which the score of the
    whole network, the layers before it rounded already, does not fall below the limit.

    Args:
        model: with real weights; it keeps the rounded ones.
        score: of a model, higher is better.
        lowest: that the score may take.
        bits: most bits of a layer, 1 to 15 (11 with step="channel").
        step: see `whit.parts.bit_planes.quantised`.
        cutoff: see there.

    Raises:
        SpecError: the limit cannot be kept with so many bits.
    """
    layers = sorted(_with_real_weights(model), key=lambda pair: -pair[1].weight.numel())
    real = {path: layer.weight.detach().clone() for path, layer in layers}
    for path, layer in layers:
        _round(layer, real[path], bits, step, cutoff)
    reached = score(model)
    if reached < lowest:
        raise SpecError(
            f"With bits={bits} in every layer the score is {reached:.4f}, below the {lowest:.4f} "
            "that error_margin allows. Give more bits or a wider margin."
        )
    chosen = {}
    for path, layer in layers:
        chosen[path] = bits
        for fewer in range(bits - 1, 0, -1):
            _round(layer, real[path], fewer, step, cutoff)
            if score(model) < lowest:
                break
            chosen[path] = fewer
        _round(layer, real[path], chosen[path], step, cutoff)
    return chosen


@technique
def precision_batching(
    *,
    bits: int = 4,
    activation_bits: int | None = None,
    step: Step = "channel",
    cutoff: bool = True,
    error_margin: float | None = None,
) -> Technique:
    """Store a trained network's weights as bit layers; a call may use fewer of them.

    Args:
        bits: of a weight's magnitude, 1 to 15 (11 with step="channel"); the file holds bits + 1
            planes, or fewer where they are enough.
        activation_bits: of every layer's input, 2 to 16; None keeps them real.
        step: "power_of_two" (the paper's), "layer" or "channel".
        cutoff: clip weights where that lowers their mean error ("layer" and "channel").
        error_margin: give each layer as few bits as the validation metric allows when it may fall
            by so much in all, >= 0; None gives every layer `bits`.
    """
    check_bits(bits, step)
    check_flag("cutoff", cutoff)
    require(
        error_margin is None or (is_number(error_margin) and error_margin >= 0),
        f"error_margin was given {error_margin!r}; expected a number of 0 or more, or None.",
    )
    if activation_bits is not None:
        FixedPoint(activation_bits)

    def shape(model: nn.Module, data: Data) -> nn.Module:
        bake(model)
        if activation_bits is not None and not _is_quantised(model):
            quantise_inputs(model, activation_bits)
        return store_as_planes(model)

    def refine(run: Run, model: nn.Module) -> nn.Module:
        bake(model)
        with run.meter.training(model):
            lowest = -1.0 if error_margin is None else run.evaluate(model) - error_margin
        shape(model, run.data)
        with run.meter.training(model), torch.no_grad():
            if activation_bits is not None:
                known = torch.arange(min(CALIBRATION_SAMPLES, len(run.data.train)))
                samples = run.data.train.subset(known).to(run.device.torch)
                calibrate(model, *samples.batch(known.to(run.device.torch)).inputs)
            if error_margin is None:
                return bit_layers(model, bits, step=step, cutoff=cutoff)
            choose_bits(model, run.evaluate, lowest, bits, step=step, cutoff=cutoff)
        return model

    return Technique(
        train=AfterTraining(refine, chooses_values=True, unchanged=2), finish_model=shape
    )


def _is_quantised(model: nn.Module) -> bool:
    return any(isinstance(module, FixedPoint) for module in model.modules())
