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
from whit.core.procedure import AfterTraining
from whit.core.run import Run
from whit.core.technique import Technique, technique
from whit.errors import NoEffect, SpecError
from whit.parts.level_counts import mark_chosen, takes_few_values
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

    With no more than k different weights the centroids are those weights, and sharing is exact. A
    centroid that lost all of its weights goes where the error is largest.

    Args:
        weights: [n], n >= 1, finite.
        k: centroids, >= 2.
        start: centroids between the smallest and the largest weight ("linear", which keeps the few
            large weights best), at quantiles ("density"), or at weights by chance ("random").
        generator: for "random"; None for torch's own.

    Returns:
        k values, sorted; fewer where there are fewer different weights.

    Raises:
        SpecError: an option is out of range, or a weight is infinite or not a number.
    """
    require(
        isinstance(k, int) and k >= 2, f"k was given {k!r}; expected a whole number, 2 or more."
    )
    require(start in STARTS, f"start was given {start!r}. {nearest(str(start), STARTS)}")
    if not bool(weights.isfinite().all()):
        raise SpecError("The weights hold NaN or infinite numbers; they cannot be clustered.")
    points, counts = torch.unique(weights.detach().double(), return_counts=True)
    if len(points) <= k:
        few: Tensor = points.to(weights.dtype)
        return few
    centroids = _start(points, counts, k, start, generator)
    for _ in range(MOST_STEPS):
        moved = _moved(points, counts, centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids.to(weights.dtype)


def _moved(points: Tensor, counts: Tensor, centroids: Tensor) -> Tensor:
    """Return the means of the clusters; empty ones at the points that err most."""
    place = nearest_level(points, centroids)
    k = len(centroids)
    sizes = torch.bincount(place, weights=counts.double(), minlength=k)
    sums = torch.bincount(place, weights=counts * points, minlength=k)
    means = sums / sizes.clamp_min(1)
    empty = sizes == 0
    if bool(empty.any()):
        errors = counts * (points - means[place]).square()
        means[empty] = points[errors.topk(int(empty.sum())).indices]
    return means.sort().values


def _start(
    points: Tensor, counts: Tensor, k: int, start: str, generator: torch.Generator | None
) -> Tensor:
    if start == "linear":
        return torch.linspace(float(points[0]), float(points[-1]), k, dtype=points.dtype)
    if start == "density":
        ranks = (torch.arange(k) + 0.5) / k * counts.sum()
        return points[torch.searchsorted(counts.cumsum(0), ranks.long(), right=True)]
    return points[torch.randperm(len(points), generator=generator)[:k]].sort().values


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
        if not bool(weight.isfinite().all()):
            raise SpecError(f"The weights of layer '{path}' hold NaN or infinite numbers.")
        used = weight != 0
        if takes_few_values(weight, 2**own):
            layer.weight.requires_grad_(False)  # its values and zeros are what they should be
            mark_chosen(layer)
            continue
        book = cluster(weight[used], 2**own, start, generator)
        place = torch.where(used, nearest_level(weight, book), -1)
        layer.weight.requires_grad_(False)  # the code book is trained in its place
        parametrize.register_parametrization(layer, "weight", CodeBook(book, place))
        mark_chosen(layer)
        shared += 1
    if not shared:
        raise _no_effect(model, bits, skip)
    return model


def _no_effect(model: nn.Module, bits: int, skip: Sequence[str]) -> NoEffect:
    layers = [layer for _, layer in weighted_layers(model, skip)]
    if all(takes_few_values(layer.weight.detach(), 2) for layer in layers):
        return NoEffect(
            "weight_sharing changed nothing: all weights are binary or ternary already, and no "
            "number of bits makes fewer values of them. Leave it out, or use it on real weights."
        )
    return NoEffect(
        f"weight_sharing changed nothing: no layer takes more than {2**bits} different values. Use "
        "fewer bits, or leave it out."
    )


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

    fewest = 2 ** min(bits, bits if conv_bits is None else conv_bits)
    after = AfterTraining(refine, chooses_values=True, unchanged=fewest)
    return Technique(train=after, finish_model=lambda model, data: bake(model))
