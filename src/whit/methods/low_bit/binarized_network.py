"""Binarized neural networks: weights and activations of +1 and -1.

Courbariaux, Hubara, Soudry, El-Yaniv and Bengio, "Binarized Neural Networks", 2016, arXiv
1602.02830.

    weight      w_b = scale * b(w),  b(x) = +1 if x >= 0 else -1   (so b(0) = +1)
    activation  a   = b(x),          da/dx = 1 where |x| <= window, else 0
    latent      w  <- clip(w, -1, 1) after each step; its gradient is that of w_b times the scale,
                and what moves the scale

A dot product of n such values is n - 2 popcount(w xor a); batch norm and sign fold into one integer
threshold a channel when the network is packed.

Options of later work, and deviations from the paper: see the card `binarized_network.md`.

Shapes: any `nn.Linear` or `nn.Conv1d/2d/3d`; weights keep their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.core.data import Data
from whit.core.hook import Hook, Plan
from whit.core.options import check_flag, require
from whit.core.procedure import WeightUse
from whit.core.technique import Technique, technique
from whit.parts.binary_layers import (
    ACTIVATIONS,
    PADDINGS,
    BinaryWeight,
    Padding,
    drop_activations,
    layers_to_binarize,
    pad_binary_inputs,
    padding_readers,
    require_activations,
    sign_activations,
)
from whit.parts.binary_layers import binary_layers as binary_layers
from whit.parts.channel_gates import gate_convolutions
from whit.parts.shift_batch_norm import shift_batch_norms
from whit.parts.sign_readers import activation_readers
from whit.parts.straight_through import GRADIENTS, Gradient, Sign, check_sign
from whit.parts.surgery import WeightedLayer, bake
from whit.procedures.binary_networks import Ends, check_choice, check_ends, real_ends
from whit.procedures.latent_weights import (
    Bop,
    ClipLatentWeights,
    check_bop,
    start_at_signs,
)

Scale = Literal["none", "layer", "channel", "real_to_binary"]
Stochastic = Literal["none", "weights", "activations", "both"]
BatchNorm = Literal["real", "shift"]
Optimizer = Literal["latent", "bop"]
KNOWN = {
    "scale": ("none", "layer", "channel", "real_to_binary"),
    "padding": tuple(PADDINGS),
    "gradient": GRADIENTS,
    "stochastic": ("none", "weights", "activations", "both"),
    "batch_norm": ("real", "shift"),
    "optimizer": ("latent", "bop"),
}
FLIP_GAMMA, FLIP_THRESHOLD = 1e-3, 1e-6
OF_ACTIVATIONS = ("window", "padding", "gradient")


@dataclass(frozen=True)
class Binary:
    """How weights and activations become binary.

    Attributes:
        weights: make them binary.
        activations: make them binary.
        scale: of the weights: "none" (+1 and -1), "layer" (mean |w|), "channel" (mean |w| of each
            output channel), or "real_to_binary": none, but each convolution that reads an
            activation is scaled by a gate computed from its real input (`parts.channel_gates`).
        window: an activation's gradient passes where |x| <= window, > 0.
        padding: what convolutions with binary input pad with: "minus_one", "plus_one", or "zero",
            which is not binary and packs larger.
        gradient: of an activation: "ste" or "approxsign", see `parts.straight_through`.
        stochastic: what is binarised by chance in training mode: "none", "weights", "activations"
            or "both".
        batch_norm: "real", or "shift": every product one with a power of two.
        optimizer: of the weights: "latent" (the run's, on latent weights), or "bop": no latent
            weights, an average of gradients flips the signs.

    Raises:
        SpecError: an option is out of range, contradicts another, or has no effect beside it.
    """

    weights: bool = True
    activations: bool = True
    scale: Scale = "channel"
    window: float = 1.0
    padding: Padding = "minus_one"
    gradient: Gradient = "ste"
    stochastic: Stochastic = "none"
    batch_norm: BatchNorm = "real"
    optimizer: Optimizer = "latent"

    def __post_init__(self) -> None:
        """Check each option, and that they fit each other."""
        for name, known in KNOWN.items():
            check_choice(name, getattr(self, name), known)
        for name in ("weights", "activations"):
            check_flag(name, getattr(self, name))
        check_sign(self.window, self.gradient)
        self._check_together()

    def _check_together(self) -> None:
        require(
            self.weights or self.activations,
            "weights and activations are both False: nothing would change.",
        )
        for what in ("weights", "activations"):
            require(
                getattr(self, what) or self.stochastic not in (what, "both"),
                f"stochastic={self.stochastic!r} needs binary {what}, and {what} is False.",
            )
        require(
            self.scale != "real_to_binary" or (self.weights and self.activations),
            "scale='real_to_binary' needs binary weights and activations.",
        )
        bop = "optimizer='bop' moves weights that are +1 and -1 themselves"
        if self.optimizer == "bop":
            require(self.weights, f"{bop}: it needs weights=True.")
            require(
                self.scale in ("none", "real_to_binary"),
                f"{bop}. Write scale='none' (or 'real_to_binary'), not {self.scale!r}.",
            )
            require(not self.by_chance, f"{bop}: it needs no stochastic weights.")
        for one in [f for f in fields(self) if f.name in OF_ACTIVATIONS]:
            require(
                self.activations or getattr(self, one.name) == one.default,
                f"{one.name} has no effect with activations=False: leave it out.",
            )

    @property
    def by_chance(self) -> bool:
        """Whether weights are binarised by chance."""
        return self.stochastic in ("weights", "both")

    @property
    def sign(self) -> Sign:
        """An activation with these options."""
        by_chance = self.stochastic in ("activations", "both")
        return Sign(self.window, self.gradient, "stochastic" if by_chance else "nearest")


def binarize(  # noqa: PLR0913 - the options of one technique, all by name
    model: nn.Module,
    *,
    weights: bool = True,
    activations: bool = True,
    scale: Scale = "channel",
    window: float = 1.0,
    padding: Padding = "minus_one",
    gradient: Gradient = "ste",
    stochastic: Stochastic = "none",
    batch_norm: BatchNorm = "real",
    optimizer: Optimizer = "latent",
    skip: Sequence[str] = (),
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> nn.Module:
    """Make a model's weights and activations binary, in place, and return it.

    The optimiser may be made before or after: latent weights stay the parameters that they were.
    Activation modules (ReLU and the like) become `Sign`, and so do calls of `torch.relu` and its
    likes in a `forward` of your own; calls of tanh and sigmoid, mostly gates or outputs, stay.

    Args:
        model: any module with linear or convolution layers and activations.
        weights: this and the following up to `optimizer`: see `Binary`.
        activations: see there.
        scale: see there.
        window: see there.
        padding: see there.
        gradient: see there.
        stochastic: see there.
        batch_norm: see there.
        optimizer: see there.
        skip: paths or child names of layers whose weights stay real.
        example: what the model is called with, or a tuple of its inputs. The model is run on it to
            see which layers read activations (they are padded with signs, and gated by
            scale="real_to_binary"), or that it calls activation functions. Without it, all layers
            but the first in registration order count as reading activations: wrong for two first
            layers side by side, and for a layer right behind another one.

    Raises:
        NoEffect: there is nothing to make binary.
        SpecError: an option is out of range, or the weights are binary or pruned already.
        WhitError: the model fails on the example.
    """
    how = Binary(
        weights, activations, scale, window, padding, gradient, stochastic, batch_norm, optimizer
    )
    layers = layers_to_binarize(model, "binarized_network", skip, how.weights)
    if how.activations:
        require_activations(model, example, "use activations=False")
    if how.batch_norm == "shift":
        shift_batch_norms(model)
    if how.activations:
        inputs = example if isinstance(example, tuple) or example is None else (example,)
        _binarize_activations(model, how, inputs)
    if how.weights:
        _binarize_weights([layer for _, layer in layers], how)
    return model


def _binarize_weights(layers: Sequence[WeightedLayer], how: Binary) -> None:
    if how.optimizer == "bop":
        start_at_signs(layers)
        return
    scale = "none" if how.scale == "real_to_binary" else how.scale
    for layer in layers:
        levels = BinaryWeight(scale, "stochastic" if how.by_chance else "nearest")
        parametrize.register_parametrization(layer, "weight", levels)


def _binarize_activations(model: nn.Module, how: Binary, inputs: tuple[Tensor, ...] | None) -> None:
    value = PADDINGS[how.padding]
    if how.scale == "real_to_binary":
        reading = activation_readers(model, ACTIVATIONS, inputs)
        gate_convolutions(model, reading, how.sign, value)
        drop_activations(model)
        return
    readers = padding_readers(model, value, inputs)
    sign_activations(model, how.sign)
    pad_binary_inputs(model, value, readers)


@technique
def binarized_network(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    weights: bool = True,
    activations: bool = True,
    scale: Scale = "channel",
    window: float = 1.0,
    padding: Padding = "minus_one",
    first: Ends = "binary",
    last: Ends = "binary",
    gradient: Gradient = "ste",
    stochastic: Stochastic = "none",
    batch_norm: BatchNorm = "real",
    optimizer: Optimizer = "latent",
    flip_gamma: float = FLIP_GAMMA,
    flip_threshold: float = FLIP_THRESHOLD,
) -> Technique:
    """Train with weights and activations of +1 and -1.

    Args:
        weights: binary weights.
        activations: binary activations.
        scale: of the weights: "none", "layer", "channel", or "real_to_binary" (from the input).
        window: the activation's gradient passes where |x| <= window, > 0.
        padding: of convolutions with binary input: "minus_one", "plus_one" or "zero".
        first: weights of the first layer, "binary" (its input stays real, as in the paper) or
            "real".
        last: weights of the last layer, "binary" or "real".
        gradient: of the activation, "ste" or "approxsign".
        stochastic: signs by chance in training: "none", "weights", "activations" or "both".
        batch_norm: "real", or "shift" (products with powers of two only).
        optimizer: of binary weights: "latent" (the run's), or "bop" (flips, no latent weights).
        flip_gamma: share of the newest gradient in Bop's average at the peak of the learning rate,
            0 < flip_gamma <= 1.
        flip_threshold: averages above this flip a weight, >= 0.
    """
    how = Binary(
        weights, activations, scale, window, padding, gradient, stochastic, batch_norm, optimizer
    )
    check_ends(first, last)
    check_bop(flip_gamma, flip_threshold)
    require(
        optimizer == "bop" or (flip_gamma == FLIP_GAMMA and flip_threshold == FLIP_THRESHOLD),
        "flip_gamma and flip_threshold have no effect without optimizer='bop': leave them out.",
    )

    def prepare(model: nn.Module, data: Data) -> nn.Module:
        skip = real_ends(model, first, last) if weights else ()
        samples = torch.arange(min(2, len(data.train)))
        example = data.train.batch(samples).inputs if activations else None
        return binarize(model, skip=skip, example=example, **vars(how))

    def flips(model: nn.Module, plan: Plan) -> Hook:
        return Bop(model, plan, flip_gamma, flip_threshold)

    # The gates of "real_to_binary" hold real weights.
    every = weights and first == last == "binary" and scale != "real_to_binary"
    mover = flips if optimizer == "bop" else ClipLatentWeights
    return Technique(
        prepare_model=prepare,
        hooks=(mover,) if weights else (),
        finish_model=lambda model, data: bake(model),
        weights=WeightUse(2 if every else None),
    )
