"""The layers of a model as plain facts, kept while the model itself is changed in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from whit.parts.surgery import WEIGHTED

# Few levels are worth a word; more are no longer a code book that a reader cares for.
FEW_LEVELS = 16
_ACTIVATIONS = "torch.nn.modules.activation"


@dataclass(frozen=True)
class Layer:
    """One module of a model, without its children.

    Attributes:
        kind: its class; that of the layer itself where parametrisations made a new class.
        options: as its repr shows them.
        shapes: of its own parameters by name, as the forward call sees them.
        quantisers: classes of the parametrisations by parameter.
        children: classes of its children.
        numbers: in its parameters.
        zeros: share of exact zeros in its weight, 0..1; None without a weight matrix.
        levels: most different values in one output channel of the weight, `FEW_LEVELS + 1` for
            many or hardly repeated ones; None without a weight matrix.
        is_activation: whether it is one of torch's activation modules.
        is_weighted: whether it is a linear or convolution layer.
        same_as: path under which the same module was met before.
        tied_to: path of an earlier layer that owns its weight.
    """

    kind: str
    options: str
    shapes: dict[str, tuple[int, ...]]
    quantisers: dict[str, tuple[str, ...]]
    children: tuple[str, ...]
    numbers: int
    zeros: float | None
    levels: int | None
    is_activation: bool
    is_weighted: bool
    same_as: str | None = None
    tied_to: str | None = None


Layers = Mapping[str, Layer]


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Return all modules of a model by path, parametrisations left out."""
    found: dict[str, Layer] = {}
    first_paths: dict[int, str] = {}
    owners: dict[int, str] = {}
    with torch.no_grad():
        for path, module in model.named_modules(remove_duplicate=False):
            if "parametrizations" in path.split("."):
                continue
            earlier = first_paths.setdefault(id(module), path)
            layer = _layer(module)
            if earlier != path:
                layer = replace(layer, same_as=earlier)
            else:
                shared = [owners.setdefault(id(p), path) for p in _own_parameters(module)]
                others = [owner for owner in shared if owner != path]
                layer = replace(layer, tied_to=others[0] if others else None)
            found[path] = layer
    return found


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    yield from module.parameters(recurse=False)
    if parametrize.is_parametrized(module) and isinstance(module.parametrizations, nn.ModuleDict):
        for one in module.parametrizations.values():
            yield from one.parameters(recurse=False)


def _layer(module: nn.Module) -> Layer:
    tensors = {n: p for n, p in module.named_parameters(recurse=False) if not is_lazy(p)}
    quantisers = {}
    parametrised = parametrize.is_parametrized(module)
    if parametrised and isinstance(module.parametrizations, nn.ModuleDict):
        for name, steps in module.parametrizations.items():
            tensors[name] = getattr(module, name)
            quantisers[name] = tuple(type(step).__name__ for step in steps.children())
    own_class = type(module).__bases__[0] if parametrised else type(module)
    weight = tensors.get("weight")
    zeros, levels = _values(weight) if weight is not None and weight.dim() > 1 else (None, None)
    return Layer(
        kind=own_class.__name__,
        options=module.extra_repr(),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        quantisers=quantisers,
        children=tuple(
            type(m).__name__ for n, m in module.named_children() if n != "parametrizations"
        ),
        numbers=sum(tensor.numel() for tensor in tensors.values()),
        zeros=zeros,
        levels=levels,
        is_activation=own_class.__module__ == _ACTIVATIONS and not tensors.keys() - {"weight"},
        is_weighted=isinstance(module, WEIGHTED),
    )


def _values(weight: Tensor) -> tuple[float, int]:
    """Return the share of zeros, and the most different values in a row if they repeat much.

    Values repeat much when there are twice as many numbers other than 0 as there are values: ten
    numbers that a pruning left are no code book.
    """
    rows = weight.detach().flatten(1)
    zeros = float((rows == 0).double().mean())
    if rows.numel() == 0:
        return zeros, FEW_LEVELS + 1
    ordered = rows.sort(1).values
    values = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    nonzero = (rows != 0).sum()
    if 2 * (values - (rows == 0).any(1).long()).sum() > nonzero:
        return zeros, FEW_LEVELS + 1
    return zeros, min(FEW_LEVELS + 1, int(values.max()))
