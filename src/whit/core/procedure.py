"""What stands in the slot `train`, and which two techniques cannot go together in a sum.

A sum that cannot work whatever the task is refused when it is written, not after its training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whit.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from whit.core.run import Run
    from whit.core.technique import Technique

Procedure = Callable[["Run"], "nn.Module"]


def train_once(run: Run) -> nn.Module:
    """Build one model and fit it once: the default procedure."""
    return run.fit(run.build())


@dataclass(frozen=True)
class AfterTraining:
    """A procedure that goes on from the model which another one trained.

    In a sum, `first` is the procedure of the terms before it, whatever that is.

    Attributes:
        refine: `(run, model) -> model`. The `finish_model` slots have not run yet, so weights may
            still be parametrised: bake them first.
        first: `run -> model`; ordinary training by default.
        chooses_values: it gives every weight a new value from a few; two such in a sum are refused,
            since the second would undo the first.
        keeps_values: it chooses among the values that one before it chose, which undoes nothing.
        unchanged: it changes nothing in a network whose output channels take at most so many values
            beside 0, >= 0.
    """

    refine: Callable[[Run, nn.Module], nn.Module]
    first: Procedure = train_once
    chooses_values: bool = False
    keeps_values: bool = False
    unchanged: int = 0

    def __call__(self, run: Run) -> nn.Module:
        """Train, then refine."""
        return self.refine(run, self.first(run))


@dataclass(frozen=True)
class WithoutSteps:
    """A procedure that chooses all values of the weights itself and takes no gradient steps.

    What acts at each step would never act, so such techniques are refused beside it.

    Attributes:
        train: `run -> model`.
        instead: the term that goes on from what others trained, such as "mine(start='from_model')".
    """

    train: Procedure
    instead: str

    def __call__(self, run: Run) -> nn.Module:
        """Train."""
        return self.train(run)


@dataclass(frozen=True)
class WeightUse:
    """What a technique makes of weights and asks of them, beside its slots.

    Attributes:
        levels: values beside 0 that each output channel takes at most when the model is trained, in
            every layer; None where that is not known.
        draws: networks are drawn from the weights after training, so nothing may fix them before.
    """

    levels: int | None = None
    draws: bool = False


def weights_of_both(first: Technique, second: Technique) -> WeightUse:
    """Return what a sum makes of weights.

    How many values they take is forgotten where the other term changes the model as well: it may
    bring layers of its own.
    """
    from whit.core.technique import keep

    known = [
        one.weights.levels
        for one, other in ((first, second), (second, first))
        if one.weights.levels is not None and other.prepare_model is keep
    ]
    return WeightUse(min(known, default=None), first.weights.draws or second.weights.draws)


def procedure_of_both(first: Technique, second: Technique) -> Procedure:
    """Return the procedure of a sum: the one that is not ordinary, refined by those after it.

    Raises:
        SpecError: the two cannot go together.
    """
    _require_no_draws_of_fixed(first, second)
    _require_no_draws_of_fixed(second, first)
    _require_something_to_do(first, second)
    if first.train is train_once:
        _require_steps(second, first)
        return second.train
    if second.train is train_once:
        _require_steps(first, second)
        return first.train
    _require_nothing_undone(first, second)
    both = _after(first.train, second.train)
    if both is not None:
        return both
    if isinstance(first.train, AfterTraining):
        raise SpecError(
            f"'{first.brief}' refines a trained model, and '{second.brief}', behind it, trains a "
            f"new one. Write them the other way round: '{second.brief} + {first.brief}'."
        )
    raise SpecError(
        f"'{first.brief}' and '{second.brief}' both replace the training procedure, and a sum can "
        "hold only one that does. Use them in separate runs, or let one go on from the other's "
        "model where it has an option for that, such as start='from_model'."
    )


def _chain(train: Procedure) -> list[Procedure]:
    """Return a procedure and those that refine it, in the order of execution."""
    return [*_chain(train.first), train] if isinstance(train, AfterTraining) else [train]


def _chooses(step: Procedure) -> bool:
    return isinstance(step, WithoutSteps) or getattr(step, "chooses_values", False) is True


def _is_undone(before: Procedure, behind: Procedure) -> bool:
    """Say whether values that one procedure chose are chosen anew by one behind it."""
    anew = [s for s in _chain(behind) if isinstance(s, AfterTraining) and not s.keeps_values]
    return any(map(_chooses, _chain(before))) and any(map(_chooses, anew))


def _require_nothing_undone(first: Technique, second: Technique) -> None:
    if not _is_undone(first.train, second.train):
        return
    turned = _after(second.train, first.train)
    if turned is not None and not _is_undone(second.train, first.train):
        advice = f"Write them the other way round: '{second.brief} + {first.brief}'."
    elif isinstance(first.train, WithoutSteps):
        advice = f"Go on from the other's values: '{second.brief} + {first.train.instead}'."
    else:
        advice = "Use one of them."
    raise SpecError(
        f"'{first.brief}' and '{second.brief}' both choose the values of a trained network's "
        f"weights, so the second would undo what the first did. {advice}"
    )


def _require_steps(alone: Technique, other: Technique) -> None:
    """Refuse what acts at each gradient step beside a procedure that takes none."""
    if isinstance(alone.train, WithoutSteps) and other.hooks:
        raise SpecError(
            f"'{alone.brief}' takes no gradient steps, so what '{other.brief}' does to weights at "
            "each step would never happen. Let it go on from the trained model: "
            f"'{other.brief} + {alone.train.instead}'."
        )


def _require_no_draws_of_fixed(drawing: Technique, other: Technique) -> None:
    if drawing.weights.draws and any(map(_chooses, _chain(other.train))):
        raise SpecError(
            f"'{other.brief}' fixes the weights, so nothing is left from which '{drawing.brief}' "
            "could draw its networks. Use the two in separate runs."
        )


def _require_something_to_do(first: Technique, second: Technique) -> None:
    """Refuse to refine the values of weights that take too few of them."""
    levels = weights_of_both(first, second).levels
    if levels is None:
        return
    for few, idle in ((first, second), (second, first)):
        steps = [s for s in _chain(idle.train) if isinstance(s, AfterTraining)]
        if few.weights.levels is not None and any(levels <= s.unchanged for s in steps):
            raise SpecError(
                f"'{idle.brief}' would change nothing: with '{few.brief}' the weights of an output "
                f"channel take at most {levels} values beside 0. Use one of the two, or keep some "
                "layers real where there is an option for that, such as last='real'."
            )


def _after(first: Procedure, second: Procedure) -> Procedure | None:
    """Return the second procedure going on from the first; None where it trains anew."""
    if second is train_once:
        return first
    if not isinstance(second, AfterTraining):
        return None
    inner = _after(first, second.first)
    return None if inner is None else replace(second, first=inner)
