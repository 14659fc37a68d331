"""Weight sharing: the weights of a layer take k values, found by k-means and then trained.

Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
Quantization and Huffman Coding", 2016, arXiv 1510.00149.

    w_i = c[q_i],   q_i = the nearest of the k centroids,   dL/dc_k = sum over q_i = k of dL/dw_i

Only weights that are not 0 are clustered; pruned ones stay 0. A layer of n weights takes n b + k B
bits instead of n B, with k = 2^b and B = 32.

Shapes: weights of linear and convolution layers keep their shape.

Deviations from the paper: see the card `weight_sharing.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.core.options import is_number, nearest, require
from whit.core.run import Run
from whit.core.technique import AfterTraining, Technique, technique
from whit.errors import NoEffect, SpecError
from whit.parts.levels import CodeBook, nearest_level
from whit.parts.surgery import bake, weighted_layers

Start = Literal["linear", "density", "random"]
STARTS = ("linear", "density", "random")
MOST_STEPS = 300
MOST_BITS = 8


def cluster(
    weights: Tensor, k: int, start: Start = "linear", generator: torch.Generator | None = None
) -> Tensor:
    """Return k centroids of one-dimensional k-means, ascending.

    With no more than k different weights the centroids are those weights, and sharing is exact.

    Args:
        weights: [n], n >= 1.
        k: centroids, >= 2.
        start: centroids between the smallest and the largest weight ("linear", which keeps the few
            large weights best), at quantiles ("density"), or at weights by chance ("random").
        generator: for "random"; None for torch's own.

    Returns:
        At most k values, sorted: a centroid without weights is left out.
    """
    points = weights.detach().double().flatten()
    different = _distinct(points)
    if len(different) <= k:
        return different.to(weights.dtype)
    centroids = _start(points, different, k, start, generator)
    for _ in range(MOST_STEPS):
        place = nearest_level(points, centroids)
        counts = torch.bincount(place, minlength=len(centroids))
        sums = torch.bincount(place, weights=points, minlength=len(centroids))
        moved = _distinct((sums / counts)[counts > 0])
        if len(moved) == len(centroids) and torch.equal(moved, centroids):
            break
        centroids = moved
    return _distinct(centroids.to(weights.dtype))


def _distinct(points: Tensor) -> Tensor:
    """Return the different values, ascending."""
    values: Tensor = torch.unique(points)
    return values


def _start(
    points: Tensor, different: Tensor, k: int, start: str, generator: torch.Generator | None
) -> Tensor:
    if start == "linear":
        return torch.linspace(float(different[0]), float(different[-1]), k, dtype=points.dtype)
    if start == "density":
        ranks = ((torch.arange(k) + 0.5) / k * len(points)).long()
        return _distinct(points.sort().values[ranks])
    return different[torch.randperm(len(different), generator=generator)[:k]].sort().values


def share_weights(
    model: nn.Module,
    bits: int = 4,
    *,
    conv_bits: int | None = None,
    start: Start = "linear",
    skip: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Let the weights of each layer share 2^bits values, in place, and return the model.

    The values are parameters now (`whit.parts.levels.CodeBook`): give them to an optimiser and
    train on, then `bake`. A layer whose channels take few values already is left as it is, frozen.

    Args:
        model: trained; parametrised weights are baked first.
        bits: of a place in the book, 1 to 8.
        conv_bits: of convolution layers; None for `bits`.
        start: of k-means, see `cluster`.
        skip: paths or child names of layers whose weights stay their own.
        generator: for start="random".

    Raises:
        NoEffect: every layer takes no more than so many values already.
        SpecError: an option is out of range.
    """
    _check(bits, conv_bits, start)
    bake(model)
    shared = 0
    for path, layer in weighted_layers(model, skip):
        if hasattr(layer, "stored_as"):
            raise SpecError(
                f"The weights of layer '{path}' are bit layers of precision_batching already, "
                "which a code book would replace. Use one of the two."
            )
        own = bits if isinstance(layer, nn.Linear) or conv_bits is None else conv_bits
        weight = layer.weight.detach()
        used = weight != 0
        if _is_shared(weight, used, 2**own):
            layer.weight.requires_grad_(False)  # its values and zeros are what they should be
            continue
        book = cluster(weight[used], 2**own, start, generator)
        place = torch.where(used, nearest_level(weight, book), -1)
        parametrize.register_parametrization(layer, "weight", CodeBook(book, place))
        shared += 1
    if not shared:
        raise NoEffect(
            f"weight_sharing changed nothing: no layer takes more than {2**bits} different values. "
            "Use fewer bits, or leave it out."
        )
    return model


def _is_shared(weight: Tensor, used: Tensor, k: int) -> bool:
    """Say whether each channel takes k values already: low-bit weights with a scale a channel."""
    for row, kept in zip(weight.flatten(1), used.flatten(1), strict=True):
        values = len(_distinct(row[kept]))
        # What few weights pruning left in a row differ from one another: they are not levels.
        if values > k or 2 * values > int(kept.sum()):
            return False
    return True


def _check(bits: object, conv_bits: object, start: object) -> None:
    for name, value in (("bits", bits), ("conv_bits", conv_bits)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = isinstance(value, int) and whole and 1 <= value <= MOST_BITS
        require(
            fits or (name == "conv_bits" and value is None),
            f"{name} was given {value!r}; expected a whole number from 1 to {MOST_BITS}.",
        )
    require(start in STARTS, f"start was given {start!r}. {nearest(str(start), STARTS)}")


@technique
def weight_sharing(
    *,
    bits: int = 4,
    conv_bits: int | None = None,
    start: Start = "linear",
    epochs: int | None = None,
    learning_rate: float = 0.1,
) -> Technique:
    """Cluster a trained network's weights, layer by layer, and train the shared values.

    Args:
        bits: of a place in a layer's book of 2^bits values, 1 to 8.
        conv_bits: of convolution layers; None for `bits` (the paper: 8, and 5 for linear ones).
        start: of k-means: "linear", "density" or "random".
        epochs: for the shared values, 0 to leave them as k-means found them; None for a quarter of
            the run's.
        learning_rate: of these epochs, as a share of the run's, > 0.
    """
    _check(bits, conv_bits, start)
    whole = isinstance(epochs, int) and not isinstance(epochs, bool)
    require(
        epochs is None or (whole and epochs >= 0),
        f"epochs was given {epochs!r}; expected a whole number, 0 or more, or None.",
    )
    require(
        is_number(learning_rate) and learning_rate > 0,
        f"learning_rate was given {learning_rate!r}; expected a number above 0.",
    )

    def refine(run: Run, model: nn.Module) -> nn.Module:
        share_weights(model, bits, conv_bits=conv_bits, start=start)
        count = max(1, run.settings.epochs // 4) if epochs is None else epochs
        if count == 0:
            return bake(model)
        # The clustered network is trained plainly: what moved weights or masks before is over.
        settings = run.settings.changed(
            epochs=count,
            learning_rate=learning_rate * run.settings.learning_rate,
            weight_decay=0.0,
        )
        return bake(run.plain().fit(model, settings=settings))

    return Technique(train=AfterTraining(refine), finish_model=lambda model, data: bake(model))
