"""Filter grafting: networks of one kind mend one another's weak layers.

Meng, Cheng, Li, Xu, Ji, Sun and Lu, "Filter Grafting for Deep Neural Networks", 2020,
arXiv 2001.05868.

    alpha = A / pi arctan(c (H(W_k) - H(W_j))) + 1/2
    W_k' = alpha W_k + (1 - alpha) W_j        j = k - 1 in a ring

H is the entropy of a histogram of all weights of a layer. `graft` is the whole of it, for any loop:

    groups = graft_groups(networks[0])
    new = graft([n.state_dict() for n in networks], groups)
    for network, state in zip(networks, new): network.load_state_dict(state)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from whit.errors import SpecError
from whit.parts.layer_groups import LayerGroup

State = Mapping[str, Tensor]
DEFAULT_A = 0.4
DEFAULT_C = 500.0
INVALID_NORM = 0.1


def layer_entropy(weight: Tensor, bins: int = 10, closed: bool = True) -> float:
    """Return the entropy in nats of a histogram of all entries: 0 to ln(bins).

    It measures the shape of the histogram: `s * weight + t`, s > 0, has the same.

    Args:
        weight: any shape, finite.
        bins: equal ones between the smallest and the largest entry, >= 1.
        closed: the largest entry falls into the last bin. False is the authors' code, in which it
            falls into none, though it counts for the shares.

    Raises:
        SpecError: no bins, no entries, or one is infinite or not a number.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise SpecError(f"bins was given {bins!r}; expected a whole number, 1 or more.")
    values = weight.detach().flatten().double()
    if not len(values) or not bool(values.isfinite().all()):
        raise SpecError(
            f"The entropy of a tensor of shape {list(weight.shape)} was asked for; expected at "
            "least one entry, and all of them finite. Look for a training that diverged."
        )
    low, high = values.min(), values.max()
    if bool(low == high):
        return 0.0
    place = ((values - low) / (high - low) * bins).floor().long()
    counts = torch.bincount(place.clamp_max(bins - 1 if closed else bins), minlength=bins)[:bins]
    shares = counts[counts > 0].double() / len(values)
    return float(-(shares * shares.log()).sum())


def graft_coefficient(
    own: float,
    other: float,
    a: float = DEFAULT_A,
    c: float = DEFAULT_C,
    decimals: int | None = None,
) -> float:
    """Return the share of a network's own weights, between (1 - a) / 2 and (1 + a) / 2.

    Args:
        own: entropy of its own layer, nats.
        other: entropy of its neighbour's.
        a: width of the range, 0..1; 0 gives 1/2.
        c: how steep, > 0.
        decimals: round to so many; 2 in the authors' code, None not at all.

    Raises:
        SpecError: a or c is out of range.
    """
    check_coefficients(a, c)
    value = a / math.pi * math.atan(c * (own - other)) + 0.5
    return value if decimals is None else round(value, decimals)


def check_coefficients(a: object, c: object) -> None:
    """Refuse a or c out of range.

    Raises:
        SpecError: a is no number in 0..1, or c is no number above 0.
    """
    if not _is_real(a) or not 0 <= a <= 1:
        raise SpecError(f"a was given {a!r}; expected a number from 0 to 1.")
    if not _is_real(c) or not 0 < c < math.inf:
        raise SpecError(f"c was given {c!r}; expected a number above 0.")


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def graft(
    states: Sequence[State],
    groups: Iterable[LayerGroup],
    a: float = DEFAULT_A,
    c: float = DEFAULT_C,
    decimals: int | None = None,
) -> list[dict[str, Tensor]]:
    """Return the grafted states: network k takes from network k - 1, the first from the last.

    All read the states before anyone grafted; the given tensors stay as they are. One coefficient a
    group; entries that no layer feeds get 1/2. Integer entries, and what is in no group, are kept.
    Of a parametrised layer the latent weight is mixed, and its entropy taken.

    Args:
        states: state dicts of two or more networks of one kind.
        groups: of `graft_groups`, of any of them.
        a: see `graft_coefficient`; 0 is the plain average of two neighbours.
        c: see `graft_coefficient`.
        decimals: see `graft_coefficient`.

    Raises:
        SpecError: fewer than two states, or they are not alike, or a or c is out of range.
    """
    check_coefficients(a, c)
    require_alike(states)
    groups = tuple(groups)
    entropies = [
        {g.weight: layer_entropy(state[g.weight]) for g in groups if g.weight is not None}
        for state in states
    ]
    grafted = []
    for k, state in enumerate(states):
        new = {key: kept(value) for key, value in state.items()}
        for group in groups:
            share = 0.5
            if group.weight is not None:
                own, other = entropies[k][group.weight], entropies[k - 1][group.weight]
                share = graft_coefficient(own, other, a, c, decimals)
            for key in group.keys:
                new[key] = mixed(state[key], states[k - 1][key], share)
        grafted.append(new)
    return grafted


def require_alike(states: Sequence[State]) -> None:
    """Refuse states that cannot be mixed entry by entry.

    Raises:
        SpecError: fewer than two states, or other keys or shapes; the message names the first.
    """
    if len(states) < 2:
        raise SpecError(
            f"{len(states)} network was given to graft; expected 2 or more, since each takes from "
            "another one."
        )
    for k, state in enumerate(states[1:], start=1):
        apart = sorted(states[0].keys() ^ state.keys())
        if apart:
            raise SpecError(
                f"Networks 0 and {k} are not alike: only one of them has '{apart[0]}'. Grafting "
                "needs networks of the same layers; build them with the same choices."
            )
        for key, value in state.items():
            mine, other = getattr(states[0][key], "shape", None), getattr(value, "shape", None)
            if mine != other:
                raise SpecError(
                    f"Networks 0 and {k} are not alike: '{key}' has the shapes {list(mine or ())} "
                    f"and {list(other or ())}. Grafting needs networks of the same layers and "
                    "widths; build them with the same choices."
                )


def kept(value: Tensor) -> Tensor:
    """Return a copy without gradient; what is no tensor (an extra state) is returned itself."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def mixed(own: Tensor, other: Tensor, share: float | Tensor) -> Tensor:
    """Return share * own + (1 - share) * other, in the type of `own`; integers are kept.

    Equal entries stay equal to the bit: it is computed as other + share * (own - other), in float64
    where that is needed.

    Args:
        own: any shape.
        other: of the same shape.
        share: 0..1, a number or a tensor that broadcasts.
    """
    if not own.is_floating_point():
        return kept(own)
    start = other.detach().to(own.device, torch.float64)
    return (start + share * (own.detach().double() - start)).to(own.dtype)


def noise_source(
    state: State,
    groups: Iterable[LayerGroup],
    deviation: float,
    generator: torch.Generator,
    threshold: float = INVALID_NORM,
) -> dict[str, Tensor]:
    """Return the state with Gaussian noise added to every invalid filter: a baseline.

    Args:
        state: of one network.
        groups: of `graft_groups`.
        deviation: of the noise, >= 0.
        generator: of the random numbers, on the CPU.
        threshold: a filter whose L1 norm is smaller is invalid, >= 0.
    """
    new = {key: kept(value) for key, value in state.items()}
    for key in _weights(groups):
        weight = new[key]
        noise = deviation * torch.randn(weight.shape, generator=generator)
        invalid = filter_norms(weight) < threshold
        weight[invalid] += noise.to(weight.device, weight.dtype)[invalid]
    return new


def internal_source(
    state: State, groups: Iterable[LayerGroup], threshold: float = INVALID_NORM
) -> dict[str, Tensor]:
    """Return the state with valid filters copied onto invalid ones of the same layer: a baseline.

    The weakest invalid filter becomes the strongest valid one, the second weakest the second
    strongest, and so on; where there are more invalid ones than valid, the rest stays.

    Args:
        state: of one network.
        groups: of `graft_groups`.
        threshold: a filter whose L1 norm is smaller is invalid, >= 0.
    """
    new = {key: kept(value) for key, value in state.items()}
    for key in _weights(groups):
        norms = filter_norms(new[key])
        order = norms.argsort(stable=True)
        invalid = int((norms < threshold).sum())
        pairs = min(invalid, len(norms) - invalid)
        new[key][order[:pairs]] = state[key].detach()[order.flip(0)[:pairs]]
    return new


def filter_norms(weight: Tensor) -> Tensor:
    """Return the L1 norm of every filter: [filters, ...] -> [filters]."""
    return weight.detach().abs().flatten(1).sum(1)


def _weights(groups: Iterable[LayerGroup]) -> list[str]:
    return [group.weight for group in groups if group.weight is not None]
