"""Find, swap and bake modules of somebody's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import nn
from torch.nn.utils import parametrize

from whit.errors import NoEffect

WeightedLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weighted_layers(model: nn.Module, skip: Sequence[str] = ()) -> list[tuple[str, WeightedLayer]]:
    """Return (path, module) of all linear and convolution layers, in registration order.

    Args:
        model: any module.
        skip: paths, or names of children on the way ("head" skips "block.head.linear"); a name that
            is the path of a module means this module alone.

    Raises:
        NoEffect: a name of `skip` matches no layer, or no layer is left.
    """
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, WEIGHTED)]
    paths = {path for path, _ in model.named_modules()}

    def is_under(path: str, name: str) -> bool:
        below = path == name or path.startswith(name + ".")
        return below or (name not in paths and f".{name}." in f".{path}.")

    for name in skip:
        if not any(is_under(path, name) for path, _ in layers):
            raise NoEffect(
                f"skip names '{name}', which is no linear or convolution layer of this model. Its "
                f"layers: " + ", ".join(path or "(the model itself)" for path, _ in layers) + "."
            )
    kept = [(p, m) for p, m in layers if not any(is_under(p, name) for name in skip)]
    if not kept:
        raise NoEffect(
            "The model has no linear or convolution layer to change"
            + (
                f" beside the skipped {list(skip)}."
                if skip
                else " (torch.nn.Linear, Conv1d/2d/3d)."
            )
        )
    return kept


def swap_modules(
    model: nn.Module,
    matches: Callable[[nn.Module], bool],
    replacement: Callable[[nn.Module], nn.Module],
) -> list[str]:
    """Replace, in place, every child that matches; return their paths.

    Args:
        model: searched through all its descendants; the model itself is never replaced.
        matches: says which modules.
        replacement: makes the new module from the old one.
    """
    found = [
        (path, parent, name, child)
        for path, parent in model.named_modules()
        for name, child in parent.named_children()
        if matches(child)
    ]
    for _, parent, name, child in found:
        setattr(parent, name, replacement(child))
    return [f"{path}.{name}" if path else name for path, _, name, _ in found]


def bake(model: nn.Module) -> nn.Module:
    """Replace, in place, every parametrised tensor by its present effective value.

    The state dict is an ordinary one afterwards; latent weights and masks are gone.
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        values = {
            name: getattr(module, name).detach().clone()
            for name in cast(nn.ModuleDict, module.parametrizations)
        }
        # parametrize.remove_parametrizations deletes the property from the class, which a deep copy
        # shares with the original: the original would lose its weight.
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))
    return model


def weight_parametrizations(layer: nn.Module) -> list[nn.Module]:
    """Return the parametrisations on a layer's weight, first applied first."""
    if not parametrize.is_parametrized(layer, "weight"):
        return []
    return list(cast(Mapping[str, nn.ModuleList], layer.parametrizations)["weight"])
