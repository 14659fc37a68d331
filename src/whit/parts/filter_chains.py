"""Grafting filter by filter: the scales of batch norm say whose filter counts.

    alpha_j = |g_k,j| / (|g_k,j| + |g_other,j|)

mixes all that belongs to channel j: its batch norm's entries, row j of the layer before it, and the
input columns j of the layer behind it. A weight is in a row of one channel and in a column of
another; it is mixed with the mean of the two coefficients (our reconstruction), so that two
networks are equal after each graft here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from whit.errors import NoEffect, NotApplicable
from whit.parts.grafting import State, kept, mixed, require_alike
from whit.parts.layer_groups import BATCH_NORMS, CONVOLUTIONS, owner_layers, trace, weight_key


@dataclass(frozen=True)
class ChainLayer:
    """A convolution or linear layer and its batch norm.

    Attributes:
        weight: key of the weight, the latent one if it is parametrised.
        bias: key of the bias, or None.
        scale: key of the batch norm's scales; None for a last layer without batch norm.
        norm: all keys of the batch norm.
    """

    weight: str
    bias: str | None
    scale: str | None
    norm: tuple[str, ...]


def filter_chain(module: nn.Module) -> tuple[ChainLayer, ...]:
    """Return the layers of a network that is one row of layers, each but the last with batch norm.

    Args:
        module: any network. Between the layers there may be whatever keeps channels apart and in
            order: activations, pooling, flattening.

    Raises:
        NotApplicable: it is another network; the message says where.
        NoEffect: there is neither a convolution nor a linear layer, or no batch norm.
    """
    owners = owner_layers(module, "convolution_and_linear")
    if not any(isinstance(part, BATCH_NORMS) for part in module.modules()):
        raise NoEffect(
            "There is nothing to graft filter by filter: the model has no batch norm, whose scales "
            "say which filter counts. Use level='layer'."
        )
    found: list[tuple[str, nn.Module, tuple[str, nn.Module] | None]] = []
    for path, step in _row(module, _traced(module, owners)):
        if step in owners:
            if any(layer is step for _, layer, _ in found):
                raise _refusal(f"the layer '{path}' is called twice")
            found.append((path, step, None))
        elif isinstance(step, BATCH_NORMS) and found:
            layer_path, layer, norm = found[-1]
            if norm is not None or not step.affine or step.num_features != _outputs(layer):
                raise _refusal(f"the batch norm '{path}' does not fit the layer '{layer_path}'")
            found[-1] = (layer_path, layer, (path, step))
    if len(found) != len(owners):
        raise _refusal("not every layer is called")
    _check(found)
    return tuple(_chain_layer(path, layer, norm) for path, layer, norm in found)


def graft_filters(states: Sequence[State], chain: Sequence[ChainLayer]) -> list[dict[str, Tensor]]:
    """Return the grafted states: network k takes from network k - 1, the first from the last.

    All read the states before anyone grafted. Entries outside of the chain, and the bias of a layer
    without batch norm, are averaged; integer entries and what a parametrisation holds beside the
    latent tensor are kept.

    Args:
        states: state dicts of two or more networks of one kind.
        chain: of `filter_chain`, of any of them.

    Raises:
        SpecError: fewer than two states, or they are not alike.
    """
    require_alike(states)
    return [_grafted(state, states[k - 1], chain) for k, state in enumerate(states)]


def _grafted(own: State, other: State, chain: Sequence[ChainLayer]) -> dict[str, Tensor]:
    shares: dict[str, Tensor | float] = {}
    columns: Tensor | None = None
    for layer in chain:
        weight = own[layer.weight]
        scale = layer.scale
        rows = None if scale is None else _channel_shares(own[scale], other[scale])
        by_row = None if rows is None else rows.reshape(-1, *[1] * (weight.dim() - 1))
        by_column = None
        if columns is not None:
            repeated = columns.repeat_interleave(weight.shape[1] // len(columns))
            by_column = repeated.reshape(1, -1, *[1] * (weight.dim() - 2))
        parts = [part for part in (by_row, by_column) if part is not None]
        shares[layer.weight] = sum(parts) / len(parts) if parts else 0.5
        for key in (*layer.norm, *([layer.bias] if layer.bias else [])):
            shares[key] = 0.5 if rows is None else rows
        columns = rows
    new = {}
    for key, value in own.items():
        beside_latent = ".parametrizations." in f".{key}" and key not in shares
        if not isinstance(value, Tensor) or beside_latent:
            new[key] = kept(value)
        else:
            new[key] = mixed(value, other[key], shares.get(key, 0.5))
    return new


def _channel_shares(own: Tensor, other: Tensor) -> Tensor:
    """Return alpha of every channel; 1/2 where both scales are 0."""
    mine, theirs = own.detach().double().abs(), other.detach().double().abs().to(own.device)
    total = mine + theirs
    return torch.where(total > 0, mine / total, 0.5)


def _traced(module: nn.Module, owners: dict[nn.Module, str]) -> fx.Graph:
    try:
        return trace(module, owners)
    except Exception as error:  # whatever a forward does that a stand-in for a tensor cannot
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise _refusal(f"its forward cannot be followed step by step: {reason}") from error


def _row(module: nn.Module, graph: fx.Graph) -> list[tuple[str, nn.Module | None]]:
    steps: list[tuple[str, nn.Module | None]] = []
    for node in graph.nodes:
        if node.op != "output" and len(node.users) != 1:
            raise _refusal(f"the data split at '{node.name}'")
        if node.op == "get_attr":
            raise _refusal(f"'{node.target}' is used outside of a layer")
        if node.op != "placeholder" and len(node.all_input_nodes) != 1:
            raise _refusal(f"'{node.name}' joins several inputs")
        if node.op == "call_module":
            steps.append((str(node.target), module.get_submodule(str(node.target))))
    return steps


def _check(found: list[tuple[str, nn.Module, tuple[str, nn.Module] | None]]) -> None:
    for number, (path, layer, norm) in enumerate(found):
        if norm is None and number < len(found) - 1:
            raise _refusal(f"the layer '{path}' has no batch norm")
        if isinstance(layer, CONVOLUTIONS) and layer.groups != 1:
            raise _refusal(f"the convolution '{path}' has {layer.groups} groups")
        if number and _inputs(layer) % _outputs(found[number - 1][1]):
            raise _refusal(
                f"the layer '{path}' reads {_inputs(layer)} values of "
                f"{_outputs(found[number - 1][1])} channels"
            )


def _chain_layer(path: str, layer: nn.Module, norm: tuple[str, nn.Module] | None) -> ChainLayer:
    keys = () if norm is None else tuple(f"{norm[0]}.{key}" for key in norm[1].state_dict())
    return ChainLayer(
        weight_key(layer, path),
        f"{path}.bias" if "bias" in layer.state_dict() else None,
        None if norm is None else f"{norm[0]}.weight",
        tuple(key for key in keys if not key.endswith("num_batches_tracked")),
    )


def _outputs(layer: nn.Module) -> int:
    return cast(int, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _inputs(layer: nn.Module) -> int:
    return cast(int, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _refusal(reason: str) -> NotApplicable:
    return NotApplicable(
        "Grafting filter by filter needs one row of convolutions and linear layers, each but the "
        f"last followed by batch norm, and in this model {reason}. Use level='layer'."
    )
