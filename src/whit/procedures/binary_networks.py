"""What techniques for weights of few bits ask of their options and of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from whit.core.options import nearest, require
from whit.errors import NoEffect
from whit.parts.surgery import weighted_layers

Ends = Literal["binary", "real"]
ENDS = ("binary", "real")


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a value of an option that is not among the known ones, and name the nearest.

    Raises:
        SpecError: the value is unknown.
    """
    require(value in known, f"{name} was given {value!r}. {nearest(str(value), known)}")


def check_ends(first: object, last: object) -> None:
    """Check what the weights of the first and of the last layer are to be.

    Raises:
        SpecError: one is neither "binary" nor "real".
    """
    check_choice("first", first, ENDS)
    check_choice("last", last, ENDS)


def real_ends(model: nn.Module, first: str, last: str) -> tuple[str, ...]:
    """Return the paths of the first and the last layer where their weights stay real.

    Args:
        model: any module with linear or convolution layers.
        first: "real", or anything else where the first layer is treated as all others.
        last: the same for the last layer.

    Raises:
        NoEffect: no layer of the model would be treated.
    """
    paths = [path for path, _ in weighted_layers(model)]
    skip = paths[:1] * (first == "real") + paths[-1:] * (last == "real")
    if len(skip) >= len(paths):
        given = ["first='real'"] * (first == "real") + ["last='real'"] * (last == "real")
        raise NoEffect(
            f"The model has {len(paths)} layer{'s' * (len(paths) > 1)}, and "
            f"{' and '.join(given)} would leave none for this technique to change."
        )
    return tuple(skip)
