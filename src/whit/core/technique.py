"""A technique is a value with five slots, and techniques add up.

Each slot defaults to "leave it alone". What goes into a slot is an ordinary PyTorch thing: a
function on modules, a hook that counts its own steps, a procedure over the four verbs of `Run`.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from whit.core.procedure import AfterTraining as AfterTraining
from whit.core.procedure import WeightUse, procedure_of_both, weights_of_both
from whit.core.procedure import train_once as train_once
from whit.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from whit.core.data import Data
    from whit.core.hook import Hook, Plan
    from whit.core.run import Run

Value = TypeVar("Value")
HookFactory = Callable[["nn.Module", "Plan"], "Hook"]
PLAIN = "plain()"


def keep(value: Value, *_: object) -> Value:
    """Return the first argument unchanged: the default of the data and model slots."""
    return value


@dataclass(frozen=True)
class Technique:
    """What a method does to the data, the model, the training and the trained model.

    Attributes:
        prepare_data: `Data -> Data`, before anything else; fitted on train and valid, applied to
            all.
        prepare_model: `(model, data) -> model`, before the optimiser exists; may replace the model.
        hooks: factories `(model, plan) -> Hook`, called by every `Run.fit`.
        train: the procedure, `Run -> model`; at most one per sum may differ from `train_once`, but
            any number of `AfterTraining` may follow it.
        finish_model: `(model, data) -> model`, after training: convert, select, calibrate, bake.
        spec: the call that made the value, with defaults filled in; it parses back.
        brief: the same without options at their defaults, for people and for small files.
        weights: what it makes of weights and asks of them, so that sums which cannot work are
            refused when they are written.
    """

    prepare_data: Callable[[Data], Data] = keep
    prepare_model: Callable[[nn.Module, Data], nn.Module] = keep
    hooks: tuple[HookFactory, ...] = ()
    train: Callable[[Run], nn.Module] = train_once
    finish_model: Callable[[nn.Module, Data], nn.Module] = keep
    spec: str = PLAIN
    brief: str = PLAIN
    weights: WeightUse = field(default=WeightUse(), repr=False)

    def __post_init__(self) -> None:
        """Check that hooks are a tuple, where one factory is easily given alone."""
        if not isinstance(self.hooks, tuple):
            raise SpecError(
                f"hooks was given {self.hooks!r}; expected a tuple of factories "
                "(model, plan) -> Hook, such as (MyHook,)."
            )

    def __add__(self, other: Technique) -> Technique:
        """Add another technique; its slots run after this one's, always in the order written.

        Raises:
            SpecError: both replace the training procedure, the other one trains anew what this one
                refines after training, or one undoes or never does what it is there for.
        """
        if not isinstance(other, Technique):
            return NotImplemented
        return Technique(
            prepare_data=_chain_data(self.prepare_data, other.prepare_data),
            prepare_model=_chain_model(self.prepare_model, other.prepare_model),
            hooks=self.hooks + other.hooks,
            train=procedure_of_both(self, other),
            finish_model=_chain_model(self.finish_model, other.finish_model),
            spec=_sum_text(self.spec, other.spec),
            brief=_sum_text(self.brief, other.brief),
            weights=weights_of_both(self, other),
        )


def _sum_text(*terms: str) -> str:
    return " + ".join(term for term in terms if term != PLAIN) or PLAIN


def _chain_data(
    first: Callable[[Data], Data], second: Callable[[Data], Data]
) -> Callable[[Data], Data]:
    if first is keep:
        return second
    if second is keep:
        return first
    return lambda data: second(first(data))


def _chain_model(
    first: Callable[[nn.Module, Data], nn.Module], second: Callable[[nn.Module, Data], nn.Module]
) -> Callable[[nn.Module, Data], nn.Module]:
    if first is keep:
        return second
    if second is keep:
        return first
    return lambda model, data: second(first(model, data), data)


def technique(make: Callable[..., Technique]) -> Callable[..., Technique]:
    """Mark a function as a technique: fill `spec` with its call, and let discovery find it.

    Args:
        make: a function with keyword-only options whose defaults run, returning a `Technique`.

    Raises:
        SpecError: (at the call) an option is unknown, or its value is not a Python literal and so
            could not be written in a spec string.
    """
    signature = inspect.signature(make)

    @wraps(make)
    def call(*args: Any, **options: Any) -> Technique:
        from whit.core.options import bind_options

        bound = bind_options(make.__name__, signature, args, options)
        made = make(*bound.args, **bound.kwargs)
        if not isinstance(made, Technique):
            raise SpecError(
                f"'{make.__name__}' returned {type(made).__name__}; a technique returns a "
                "whit.Technique."
            )
        written = {k: f"{k}={_literal(make, k, v)}" for k, v in bound.arguments.items()}
        known = signature.parameters
        changed = [text for k, text in written.items() if bound.arguments[k] != known[k].default]
        name = reference_of(make)
        return replace(
            made,
            spec=f"{name}({', '.join(written.values())})",
            brief=f"{name}({', '.join(changed)})",
        )

    call.__whit_technique__ = True  # type: ignore[attr-defined]
    return call


def is_technique(value: object) -> bool:
    """Say whether a value was made by the decorator `technique`."""
    return getattr(value, "__whit_technique__", False) is True


def reference_of(make: Callable[..., object]) -> str:
    """Return how a spec string names a factory: bare for ours, `file.py:name` for a user's own."""
    module = sys.modules.get(make.__module__)
    reference = getattr(module, "__whit_reference__", None)
    if reference is None and not make.__module__.startswith(("whit.methods.", "whit.tasks.")):
        reference = make.__module__
    return make.__name__ if not reference else f"{reference}:{make.__name__}"


def _literal(make: Callable[..., object], name: str, value: object) -> str:
    """Return the source text of a literal; refuse what a spec string could not carry."""
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise SpecError(
            f"Option '{name}' of '{make.__name__}' was given {text[:80]}, and a spec can hold only "
            "Python literals (numbers, strings, booleans, None, lists, tuples, dictionaries). For "
            "objects of your own, call the plain piece in your own loop or write a technique of "
            "your own."
        )
    return text
