"""A network as a chain of blocks: matrix, pools and batch norms, ternary firing.

[input quantiser] -> (matrix -> pool / batch norm -> firing -> pool / flatten) x L -> matrix
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from whit.errors import NoEffect, NotApplicable, SpecError
from whit.parts.levels import Levels
from whit.parts.normalise import Normalise
from whit.parts.stochastic_firing import StochasticFire, TernaryInput
from whit.parts.surgery import weight_parametrizations, weighted_layers
from whit.parts.ternary_thresholds import TernaryThresholds

Matrix = nn.Linear | nn.Conv1d | nn.Conv2d
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
# What may stand between a firing and the next matrix: it moves or chooses numbers.
_MOVING = (*POOLS, nn.Flatten, nn.Unflatten, nn.Identity, *_DROPOUTS)
_INSIDE = (*POOLS, *NORMS, nn.Identity, *_DROPOUTS)
# Activations that become firings; tanh is the one of the paper.
SQUASHED = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardtanh,
    nn.Tanh, nn.Sigmoid,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Link:
    """One module of a chain.

    Attributes:
        parent: the `nn.Sequential` that holds it.
        name: of the module in it.
        path: in the model.
        module: itself.
    """

    parent: nn.Sequential
    name: str
    path: str
    module: nn.Module


@dataclass(frozen=True, eq=False)
class Block:
    """A matrix with what follows up to its firing.

    Attributes:
        matrix: linear or convolution.
        inside: pools and batch norms between matrix and firing, in order.
        fire: `StochasticFire` of a teacher, `TernaryThresholds` of a student; None in the last.
    """

    matrix: Link
    inside: list[Link] = field(default_factory=list)
    fire: Link | None = None

    @property
    def layer(self) -> Matrix:
        """Return the matrix itself."""
        layer = self.matrix.module
        assert isinstance(layer, MATRICES)
        return layer

    @property
    def pools(self) -> list[nn.MaxPool1d | nn.MaxPool2d]:
        """Return the pools before the firing."""
        return [link.module for link in self.inside if isinstance(link.module, POOLS)]

    @property
    def firing(self) -> StochasticFire | None:
        """Return the firing of a teacher's block; None for a ternary or the last one."""
        fire = None if self.fire is None else self.fire.module
        return fire if isinstance(fire, StochasticFire) else None

    @property
    def is_ternary(self) -> bool:
        """Say whether the block has been converted: its firing has thresholds."""
        return self.fire is not None and isinstance(self.fire.module, TernaryThresholds)


def chain(model: nn.Module) -> list[Link]:
    """Return the modules of nested `nn.Sequential`, in the order of their calls.

    Raises:
        NotApplicable: the model itself is no `nn.Sequential`, or holds one at two places.
    """
    if not isinstance(model, nn.Sequential):
        raise NotApplicable(
            f"The model is a {type(model).__name__}, and a ternary network is converted layer by "
            "layer: only an nn.Sequential says in which order its layers follow. Build it so."
        )
    links = list(_links(model, ""))
    places: dict[tuple[int, str], str] = {}
    for link in links:
        other = places.setdefault((id(link.parent), link.name), link.path)
        if other != link.path:
            raise NotApplicable(
                f"'{other}' and '{link.path}' are one layer in an nn.Sequential that the model "
                "uses at two places; a ternary network has other thresholds at each. Build it "
                "twice."
            )
    return links


def _links(parent: nn.Sequential, path: str) -> Iterator[Link]:
    # Not named_children: it leaves out a module's second place.
    for name, module in parent._modules.items():
        assert module is not None
        below = f"{path}.{name}".lstrip(".")
        if isinstance(module, nn.Sequential):
            yield from _links(module, below)
        else:
            yield Link(parent, name, below, module)


def blocks(model: nn.Module) -> list[Block]:
    """Return the blocks of a teacher or student; the last one has no firing.

    Raises:
        NotApplicable: a module cannot be part of a ternary network; it is named, with the reason.
    """
    found: list[Block] = []
    for link in chain(model):
        module = link.module
        open_block = bool(found) and found[-1].fire is None
        if isinstance(module, MATRICES):
            if open_block:
                raise _refused(
                    link, f"no activation stands between '{found[-1].matrix.path}' and it"
                )
            found.append(Block(link))
        elif isinstance(module, StochasticFire | TernaryThresholds):
            if not open_block:
                raise _refused(link, "no linear or convolution layer stands before it")
            found[-1] = Block(found[-1].matrix, found[-1].inside, link)
        elif open_block and not isinstance(module, nn.Flatten):
            if not isinstance(module, _INSIDE):
                raise _refused(link, "it cannot be folded into the thresholds of a neuron")
            found[-1].inside.append(link)
        elif found and not isinstance(module, _MOVING):
            raise _refused(link, "it gives other numbers than -1, 0 and +1")
    if not found:
        raise NoEffect("The model has no linear or convolution layer (torch.nn.Linear, Conv1d/2d).")
    _check_blocks(found)
    return found


def _refused(link: Link, reason: str) -> NotApplicable:
    return NotApplicable(
        f"Layer '{link.path}' ({type(link.module).__name__}) cannot be part of a ternary network: "
        f"{reason}. The layers are Linear, Conv1d or Conv2d, then MaxPool and BatchNorm, then an "
        "activation."
    )


def _check_blocks(found: list[Block]) -> None:
    last = found[-1]
    if last.fire is not None:
        raise _refused(last.fire, "the last layer gives class scores and has no activation")
    if last.inside:
        raise _refused(last.inside[0], "nothing may follow the last layer")
    for block in found:
        layer = block.layer
        if not isinstance(layer, nn.Linear) and layer.padding_mode != "zeros":
            raise _refused(block.matrix, f"it pads with {layer.padding_mode!r}, not with zeros")
        if len(block.pools) > 1:
            raise _refused(block.inside[-1], "two pools stand before one activation")
        for pool in block.pools:
            odd = [pool.padding, pool.dilation, pool.ceil_mode]
            if odd != [0, 1, False]:
                raise _refused(block.inside[-1], "its pool has a padding, dilation or ceil_mode")


def make_teacher(model: nn.Module, squash: str, quantiser: TernaryInput | None) -> nn.Module:
    """Let activations fire and quantise the input, in place; return the model.

    Args:
        model: an `nn.Sequential` of matrices, batch norms, pools and activations.
        squash: of `StochasticFire`.
        quantiser: of the input, put behind a `Normalise` at the beginning; None for inputs that are
            small whole numbers already.

    Raises:
        NoEffect: there is nothing to change.
        NotApplicable: see `blocks`.
        SpecError: weights are quantised or pruned already.
    """
    layers = weighted_layers(model)
    links = chain(model)
    for path, layer in layers:
        steps = weight_parametrizations(layer)
        if any(isinstance(s, Levels) and s.rounding == "stochastic" for s in steps):
            raise SpecError(
                f"The weight of layer '{path}' is drawn by chance, and a ternary network has fixed "
                "weights: nothing is left to draw. Use the two in separate runs."
            )
        if steps:
            raise SpecError(
                f"The weight of layer '{path}' has a {type(steps[0]).__name__} already; "
                "ternary_network comes first in a sum, as in 'ternary_network() + "
                "one_cycle_pruning()'."
            )
    swapped = [link for link in links if isinstance(link.module, SQUASHED)]
    if not swapped:
        raise NoEffect(
            "The model has no activation module (torch.nn.ReLU and the like) that could fire; "
            "a ternary network needs at least one."
        )
    for link in swapped:
        setattr(link.parent, link.name, StochasticFire(squash))  # type: ignore[arg-type]
    blocks(model)
    if quantiser is not None:
        _insert(links, quantiser)
    return model


def _insert(links: list[Link], quantiser: TernaryInput) -> None:
    before = next(k for k, link in enumerate(links) if isinstance(link.module, MATRICES))
    starts = [k + 1 for k in range(before) if isinstance(links[k].module, Normalise)]
    place = links[max(starts, default=0)]
    children = [(name, m) for name, m in place.parent._modules.items() if m is not None]
    for name, _ in children:
        delattr(place.parent, name)
    for name, module in children:
        if name == place.name:
            place.parent.add_module(_free_name(children), quantiser)
        place.parent.add_module(name, module)


def _free_name(children: list[tuple[str, nn.Module]]) -> str:
    taken = {name for name, _ in children}
    return next(n for n in ("quantise", *(f"quantise{k}" for k in range(2, 99))) if n not in taken)


def remove(link: Link) -> None:
    """Take a module out of its `nn.Sequential`."""
    delattr(link.parent, link.name)


def replace_module(link: Link, module: nn.Module) -> None:
    """Put another module in its place."""
    setattr(link.parent, link.name, module)


def without_gradient(module: nn.Module) -> nn.Module:
    """Return the module in evaluation mode with frozen parameters."""
    return module.eval().requires_grad_(False)


def ternary_matrix(layer: Matrix, weight: torch.Tensor, bias: torch.Tensor | None) -> Matrix:
    """Return a frozen layer of the same geometry with this weight and bias.

    Args:
        layer: linear or convolution.
        weight: -1, 0, +1 of the layer's shape.
        bias: whole numbers [outputs], or None.
    """
    made: Matrix
    if isinstance(layer, nn.Linear):
        made = nn.Linear(layer.in_features, layer.out_features, bias is not None)
    else:
        kind = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d  # without parametrisations
        made = kind(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=bias is not None,
        )
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None and made.bias is not None:
            made.bias.copy_(bias)
    made.to(layer.weight.device)
    without_gradient(made)
    return made
