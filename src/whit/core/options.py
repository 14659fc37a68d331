"""Check the options of a technique, a task or the settings, and name the nearest ones on a typo."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whit.errors import SpecError


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x' or 'y'?" for a mistyped name, or the list of what is known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "Known: " + ", ".join(names) + "." if names else "There are none."


def bind_options(
    name: str, signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Bind a call's options to a signature with defaults filled in.

    Args:
        name: what is being called, for the message.
        signature: of the function.
        args: positional values.
        options: keyword values.

    Raises:
        SpecError: an option is unknown, missing or given twice.
    """
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option in options:
        if option not in signature.parameters and not takes_any:
            raise SpecError(
                f"'{name}' has no option '{option}'. {nearest(option, signature.parameters)}"
            )
    try:
        bound = signature.bind(*args, **options)
    except TypeError as error:
        raise SpecError(
            f"'{name}' cannot be called like this: {error}. Its options are written by name: "
            f"{name}{signature_text(signature)}."
        ) from None
    bound.apply_defaults()
    return bound


def signature_text(signature: inspect.Signature) -> str:
    """Return options and defaults without annotations, as `(sparsity=0.9, every=1)`."""
    return (
        "("
        + ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default!r}"
            for p in signature.parameters.values()
        )
        + ")"
    )


def is_number(value: object) -> bool:
    """Say whether a value is a finite int or float (True and False are not)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # False for NaN, and for integers beyond any float


def check_flag(name: str, value: object) -> None:
    """Refuse anything but True and False for an option: the text 'no' would count as True.

    Raises:
        SpecError: the value is something else.
    """
    if not isinstance(value, bool):
        raise SpecError(f"{name} was given {value!r}; expected True or False.")


def require(condition: bool, message: str) -> None:
    """Raise a `SpecError` with the message unless the condition holds: range checks of options."""
    if not condition:
        raise SpecError(message)
