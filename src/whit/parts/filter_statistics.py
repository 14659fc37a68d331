"""Which filters of a network carry nothing, and how much its layers' histograms tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from whit.errors import SpecError
from whit.parts.grafting import INVALID_NORM, filter_norms, layer_entropy
from whit.parts.layer_groups import Owners, owner_layers


@dataclass(frozen=True)
class LayerFilters:
    """The filters of a layer.

    Attributes:
        layer: its path.
        filters: how many it has.
        invalid: how many of these have an L1 norm below the threshold.
    """

    layer: str
    filters: int
    invalid: int


def invalid_filters(
    model: nn.Module, threshold: float = INVALID_NORM, layers: Owners = "convolution"
) -> list[LayerFilters]:
    """Count the filters whose L1 norm is below a threshold, layer by layer.

    The effective weights count: of a masked layer a pruned filter is invalid.

    Args:
        model: any network; without a convolution its linear layers' rows count.
        threshold: > 0; 0.1 in the paper.
        layers: "convolution", or "convolution_and_linear".

    Raises:
        NoEffect: there is neither a convolution nor a linear layer.
        SpecError: the threshold is not above 0.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold > 0:
        raise SpecError(f"threshold was given {threshold!r}; expected a number above 0.")
    rows = []
    with torch.no_grad():
        for layer, path in owner_layers(model, layers).items():
            norms = filter_norms(layer.weight)  # type: ignore[arg-type]
            rows.append(LayerFilters(path, len(norms), int((norms < threshold).sum())))
    return rows


def filter_entropy(
    model: nn.Module, bins: int = 10, closed: bool = True, layers: Owners = "convolution"
) -> dict[str, float]:
    """Return the entropy of every layer's effective weights, in nats, by path.

    Args:
        model: any network; without a convolution its linear layers count.
        bins: see `layer_entropy`.
        closed: see `layer_entropy`.
        layers: "convolution", or "convolution_and_linear".

    Raises:
        NoEffect: there is neither a convolution nor a linear layer.
        SpecError: a weight is not finite, or no bins.
    """
    with torch.no_grad():
        return {
            path: layer_entropy(layer.weight, bins, closed)  # type: ignore[arg-type]
            for layer, path in owner_layers(model, layers).items()
        }
