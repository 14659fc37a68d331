"""Which entries of a state dict belong to which convolution, by the way of the data.

An entry belongs to the convolution that feeds the module which holds it. The way of the data is
found by `torch.fx`; names say nothing, and neither does the order in which modules were made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from whit.errors import NoEffect, SpecError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
OWNERS = ("convolution", "convolution_and_linear")
Owners = Literal["convolution", "convolution_and_linear"]
_PARAMETRISED = ".parametrizations."


@dataclass(frozen=True)
class LayerGroup:
    """A layer and all entries of the state dict that are treated as it is.

    Attributes:
        owner: path of the layer; None for entries that no such layer feeds.
        weight: key of the owner's weight, the latent one if it is parametrised; None without owner.
        keys: of the state dict, the weight's among them.
    """

    owner: str | None
    weight: str | None
    keys: tuple[str, ...]


@dataclass(frozen=True)
class LayerGroups:
    """All groups of a module; iterate over it.

    Attributes:
        groups: in the order of the state dict.
        by_graph: the way of the data was found. Where `torch.fx` cannot follow `forward` (it
            decides by values or shapes), an entry belongs to the layer before it in the order of
            the state dict instead, and this is False.
        reason: why the way of the data was not found; "" if it was.
    """

    groups: tuple[LayerGroup, ...]
    by_graph: bool
    reason: str = ""

    def __iter__(self) -> Iterator[LayerGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def graft_groups(module: nn.Module, layers: Owners = "convolution") -> LayerGroups:
    """Give every entry of the state dict to the layer that feeds it.

    Where two layers feed a module (after an addition), it belongs to the one that ran last. Masks,
    scales and all else that a parametrisation holds beside the latent tensor are in no group.
    Entries of modules that `forward` never calls are in the group without owner.

    Args:
        module: any network.
        layers: which own a group: "convolution" (linear layers then belong to the convolution
            before them), or "convolution_and_linear". In a network without a convolution the linear
            layers own the groups.

    Raises:
        NoEffect: there is neither a convolution nor a linear layer.
        SpecError: `layers` is another text.
    """
    owners = owner_layers(module, layers)
    state = module.state_dict()
    paths = _all_paths(module)
    belongs: dict[str, str | None] = {}
    reason = ""
    try:
        graph = trace(module, owners)
    except Exception as error:  # whatever a forward does that a stand-in for a tensor cannot
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        belongs = _by_order(state, owners.values())
    else:
        belongs = _by_graph(module, graph, owners, state, paths)
    for layer, path in owners.items():  # a layer that is never called owns itself all the same
        for alias in paths[layer]:
            belongs.update((key, path) for key in state if key.startswith(f"{alias}."))
    if "" in owners.values():
        belongs = dict.fromkeys(state, "")
    return LayerGroups(_gathered(module, state, belongs), not reason, reason)


def owner_layers(module: nn.Module, layers: Owners = "convolution") -> dict[nn.Module, str]:
    """Return {layer: path} of the layers that own a group, in registration order.

    Raises:
        NoEffect: there is neither a convolution nor a linear layer.
        SpecError: `layers` is another text.
    """
    if layers not in OWNERS:
        raise SpecError(f"layers was given {layers!r}; expected one of {', '.join(OWNERS)}.")
    kinds: tuple[type[nn.Module], ...] = CONVOLUTIONS
    has_convolutions = any(isinstance(m, CONVOLUTIONS) for m in module.modules())
    if not has_convolutions or layers == "convolution_and_linear":
        kinds = (*CONVOLUTIONS, nn.Linear)
    found = {m: path for path, m in module.named_modules() if isinstance(m, kinds)}
    if not found:
        raise NoEffect(
            "There is nothing to graft: the model has neither a convolution nor a linear layer "
            "(torch.nn.Conv1d, Conv2d, Conv3d, Linear)."
        )
    return found


def weight_key(layer: nn.Module, path: str) -> str:
    """Return the state-dict key of a layer's weight: of the latent one if it is parametrised.

    A parametrisation of several tensors (weight norm) counts by its largest.
    """
    prefix = f"{path}." if path else ""
    inner = {
        key: tensor
        for key, tensor in layer.state_dict().items()
        if key.startswith("parametrizations.weight.original")
    }
    name = max(inner, key=lambda key: inner[key].numel()) if inner else "weight"
    return prefix + name


def trace(module: nn.Module, layers: Collection[nn.Module]) -> fx.Graph:
    """Return the way of the data; layers and batch norms are steps of their own.

    Raises:
        Exception: of any kind, where `forward` cannot be followed.
    """
    norms = [m for m in module.modules() if isinstance(m, BATCH_NORMS)]
    return _Tracer({*layers, *norms}).trace(module)


class _Tracer(fx.Tracer):
    """Looks into what holds a layer of interest, and takes all else as one step."""

    def __init__(self, layers: set[nn.Module]) -> None:
        super().__init__()
        self.layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.layers or not any(part in self.layers for part in m.modules())


def _by_graph(
    module: nn.Module,
    graph: fx.Graph,
    owners: Mapping[nn.Module, str],
    state: Mapping[str, Tensor],
    paths: Mapping[nn.Module, list[str]],
) -> dict[str, str | None]:
    fed_by: dict[fx.Node, tuple[int, str] | None] = {}
    belongs: dict[str, str | None] = {}
    for number, node in enumerate(graph.nodes):
        before = [fed_by[n] for n in node.all_input_nodes]
        fed_by[node] = max((b for b in before if b is not None), default=None)
        if node.op != "call_module":
            continue
        called = module.get_submodule(str(node.target))
        if called in owners:
            fed_by[node] = (number, owners[called])
            continue
        owner = fed_by[node]
        for path in paths[called]:
            for key in state:
                if key.startswith(f"{path}."):
                    belongs.setdefault(key, owner[1] if owner else None)
    for node in graph.nodes:  # a parameter that `forward` takes itself goes with what it meets
        if node.op == "get_attr":
            met = [o for user in node.users if (o := fed_by[user]) is not None]
            belongs.setdefault(str(node.target), max(met)[1] if met else None)
    return belongs


def _by_order(state: Mapping[str, Tensor], owners: Collection[str]) -> dict[str, str | None]:
    belongs: dict[str, str | None] = {}
    last: str | None = None
    for key in state:
        last = next((path for path in owners if key.startswith(f"{path}.")), last)
        belongs[key] = last
    return belongs


def _all_paths(module: nn.Module) -> dict[nn.Module, list[str]]:
    """Return every path of every module: a shared one stands in the state dict more than once."""
    paths: dict[nn.Module, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        paths.setdefault(part, []).append(path)
    return paths


def _gathered(
    module: nn.Module, state: Mapping[str, object], belongs: Mapping[str, str | None]
) -> tuple[LayerGroup, ...]:
    keys: dict[str | None, list[str]] = {}
    for key, value in state.items():
        latent = key.rpartition(".")[2].startswith("original")
        beside_latent = _PARAMETRISED in f".{key}" and not latent
        if isinstance(value, torch.Tensor) and not beside_latent:
            keys.setdefault(belongs.get(key), []).append(key)
    return tuple(
        LayerGroup(
            owner,
            None if owner is None else weight_key(module.get_submodule(owner), owner),
            tuple(members),
        )
        for owner, members in keys.items()
    )
