"""Masks on weights: parametrisations that multiply by 0 or 1, and how scores become masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.errors import SpecError
from whit.parts.surgery import WEIGHTED, WeightedLayer, weight_parametrizations, weighted_layers

GRANULARITIES = ("element", "filter")
SCOPES = ("global", "layer")


class Mask(nn.Module):
    """Parametrisation weight = latent * mask.

    Args:
        weight: gives shape and device; the mask starts with ones.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Start with everything kept."""
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, requires_grad=False))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        return weight * self.mask


def add_masks(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, tuple[WeightedLayer, Mask]]:
    """Register a mask on the weight of every linear and convolution layer, after what is there.

    Returns:
        {path: (layer, mask)}.

    Raises:
        NoEffect: no layer to mask.
        SpecError: a layer is masked already.
    """
    masks = {}
    for path, layer in weighted_layers(model, skip):
        if find_mask(layer) is not None:
            raise SpecError(
                f"Layer '{path}' is pruned by an earlier technique of the sum. Use one pruning "
                f"technique."
            )
        mask = Mask(layer.weight.detach())
        parametrize.register_parametrization(layer, "weight", mask)
        masks[path] = (layer, mask)
    return masks


def find_mask(layer: nn.Module) -> Mask | None:
    """Return the mask on a layer's weight, or None."""
    for parametrization in weight_parametrizations(layer):
        if isinstance(parametrization, Mask):
            return parametrization
    return None


def find_masks(model: nn.Module) -> dict[str, tuple[WeightedLayer, Mask]]:
    """Return {path: (layer, mask)} of all masked layers."""
    found = {}
    for path, layer in model.named_modules():
        mask = find_mask(layer)
        if mask is not None and isinstance(layer, WEIGHTED):
            found[path] = (layer, mask)
    return found


def latent_weight(layer: nn.Module) -> Tensor:
    """Return what is trained: the tensor under the parametrisations, or the weight itself."""
    if parametrize.is_parametrized(layer, "weight"):
        weights = cast(Mapping[str, parametrize.ParametrizationList], layer.parametrizations)
        return weights["weight"].original
    return cast(Tensor, layer.weight)


def lowest_units(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Mask],
    sparsity: float,
    scope: str,
    min_keep: int,
) -> dict[str, Tensor]:
    """Turn scores into masks that prune the given fraction of weights, lowest scores first.

    Units that are pruned stay pruned, so successive masks are nested. Ties fall by position, so the
    number of pruned weights is exact for elements; whole filters are pruned while they fit.

    Args:
        scores: per layer, one score per unit: shape of the weight (elements) or [filters].
        masks: the present masks; the result has their shapes.
        sparsity: fraction of all these weights to prune, 0..1.
        scope: "global" pools all layers, "layer" prunes each by itself.
        min_keep: units with the highest scores that each layer keeps whatever happens.
    """
    if scope == "layer":
        pruned = {}
        for path in scores:
            one = {path: scores[path]}
            pruned.update(lowest_units(one, masks, sparsity, "global", min_keep))
        return pruned
    flat, sizes = [], []
    for path, score in scores.items():
        alive = _unit_view(masks[path].mask, score).reshape(-1) > 0
        layer_scores = torch.where(alive, score.detach().reshape(-1).double(), -torch.inf)
        best = layer_scores.topk(min(min_keep, layer_scores.numel())).indices
        layer_scores[best] = torch.inf
        flat.append(layer_scores)
        weights = masks[path].mask.numel() // score.numel()
        sizes.append(torch.full((score.numel(),), weights, device=score.device))
    pool, size = torch.cat(flat), torch.cat(sizes)
    doomed = _cheapest(pool, size, round(sparsity * int(size.sum())))
    keep = torch.ones_like(pool)
    keep[doomed] = 0.0
    keep[pool == torch.inf] = 1.0
    result, first = {}, 0
    for path, score in scores.items():
        mask = masks[path].mask
        units = keep[first : first + score.numel()].to(mask.dtype).reshape(score.shape)
        first += score.numel()
        trailing = [1] * (mask.dim() - score.dim())
        result[path] = units.reshape(*score.shape, *trailing).expand_as(mask).clone()
    return result


def _cheapest(pool: Tensor, size: Tensor, budget: int) -> Tensor:
    """Return the indices of the lowest scores whose sizes add up to at most `budget`."""
    if int(size.max()) == 1:
        return pool.topk(min(budget, len(pool)), largest=False).indices
    order = pool.argsort(stable=True)
    return order[size[order].cumsum(0) <= budget]


def _unit_view(mask: Tensor, score: Tensor) -> Tensor:
    """Return a mask with one entry per unit: itself for elements, else the filters' maximum."""
    return mask if mask.shape == score.shape else mask.flatten(1).amax(1)


def unit_scores(scores: Tensor, granularity: str) -> Tensor:
    """Reduce element scores to units: "element" keeps [out, ...], "filter" gives [out]."""
    return scores if granularity == "element" else scores.flatten(1).mean(1)


def realised_sparsity(model: nn.Module) -> float:
    """Return the share of exact zeros among the effective weights of the masked layers."""
    zeros = weights = 0
    for layer, _ in find_masks(model).values():
        weight = layer.weight.detach()
        zeros += int((weight == 0).sum())
        weights += weight.numel()
    return zeros / max(weights, 1)
