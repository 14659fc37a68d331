"""How a coordinate descent goes about it, and what each of its sweeps gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from whit.core.options import is_number, nearest, require
from whit.procedures.coordinate_descent.acceptance import RULES
from whit.procedures.coordinate_descent.criteria import CRITERIA, PerSample
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.state import DEFAULT_MEMORY_BYTES

ORDERS = ("random", "cyclic")
KEEPS = ("last", "best_valid")


class Sweep(NamedTuple):
    """One row of the history.

    Attributes:
        kind: "sweep" visited every weight once, "guided" only those with good predictions, "pairs"
            tried two moves at a time.
        restart: number of the start, from 0.
        sweep: number of the row within the restart, from 1.
        loss: criterion and costs on all training samples, after the sweep.
        train_error: share of wrong classes, or mean squared error.
        valid_error: the same on the validation samples; None without any.
        accepted: moves made.
        candidates: moves (and blocks of moves) whose true loss was computed.
        seconds: wall time.
    """

    kind: str
    restart: int
    sweep: int
    loss: float
    train_error: float
    valid_error: float | None
    accepted: int
    candidates: int
    seconds: float


@dataclass(frozen=True)
class SweepOptions:
    """How `CoordinateDescent` goes about it.

    Attributes:
        criterion: "cross_entropy", "mse", "zero_one", "zero_one_ties", or a function `(outputs,
            targets) -> [samples]`.
        rule: "best" takes the best value of a weight, "first" the first that improves, "gradient"
            tries only the neighbouring value against the gradient.
        order: "random", anew for each sweep, or "cyclic": layer by layer, row by row.
        block: weights that are scored against the same state: "unit" for those of one output
            channel, or a number, >= 1. Of those that improve, the best number is taken by an exact
            line search. 1 is the plain method.
        guided: moves of each unit that guided sweeps score, those with the best predictions by
            gradients. Where a guided sweep makes few moves, an exhaustive one follows, which
            certifies the end or goes on. 0 for exhaustive sweeps only.
        batch: samples of a batch, drawn anew for each sweep; moves must improve on a second,
            disjoint batch too. The loss on all samples may then rise. None for all samples.
        scale_search: double or halve the scales of layers after each sweep where that improves.
        pairs: first moves that are tried with every second move where no single move improves, >=
            0.
        sweeps: most rows of a history for each restart, >= 1.
        seconds: most wall time, > 0; None for no limit.
        candidates: most candidates, >= 1; None for no limit.
        restarts: random starts, >= 1, of which the best is kept.
        keep: "last", or "best_valid", the state with the lowest loss on the validation samples.
        batch_statistics: batch norm by the statistics of the training samples, which are stored at
            the end, instead of those that are stored already.
        nonzero_cost: added if all weights were non-zero, else in proportion, >= 0.
        energy_cost: the same for the modelled energy of non-zero multiply-accumulates, >= 0.
        cost: a cost of the user's own, `network -> float`, added to the criterion.
        memory_bytes: for candidates that are scored at once, >= 1.
    """

    criterion: str | PerSample = "cross_entropy"
    rule: Literal["best", "first", "gradient"] = "best"
    order: Literal["random", "cyclic"] = "random"
    block: int | Literal["unit"] = "unit"
    guided: int = 0
    batch: int | None = None
    scale_search: bool = False
    pairs: int = 0
    sweeps: int = 20
    seconds: float | None = None
    candidates: int | None = None
    restarts: int = 1
    keep: Literal["last", "best_valid"] = "last"
    batch_statistics: bool = False
    nonzero_cost: float = 0.0
    energy_cost: float = 0.0
    cost: Callable[[DiscreteNetwork], float] | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            SpecError: one is out of range.
        """
        named: list[tuple[str, object, tuple[str, ...]]] = [
            ("rule", self.rule, RULES),
            ("order", self.order, ORDERS),
            ("keep", self.keep, KEEPS),
        ]
        if not callable(self.criterion):
            named.append(("criterion", self.criterion, CRITERIA))
        for name, given, known in named:
            require(given in known, f"{name} was given {given!r}. {nearest(str(given), known)}")
        if self.block != "unit":
            _whole("block", self.block, 1)
        for name, low in (("guided", 0), ("pairs", 0), ("sweeps", 1), ("restarts", 1)):
            _whole(name, getattr(self, name), low)
        _whole("memory_bytes", self.memory_bytes, 1)
        for name in ("batch", "candidates"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        for name in ("nonzero_cost", "energy_cost"):
            value = getattr(self, name)
            require(
                is_number(value) and value >= 0,
                f"{name} was given {value!r}; expected a number, 0 or more.",
            )
        require(
            self.seconds is None or (is_number(self.seconds) and self.seconds > 0),
            f"seconds was given {self.seconds!r}; expected a number above 0, or None.",
        )
        require(
            self.cost is None or callable(self.cost),
            f"cost was given {self.cost!r}; expected a function of the network, or None.",
        )
        self._check_together()

    def _check_together(self) -> None:
        for name, set_ in (("pairs", self.pairs > 0), ("guided", self.guided > 0)):
            require(
                not set_ or self.rule != "gradient",
                f"{name}={getattr(self, name)} needs the rule 'best' or 'first': the rule "
                "'gradient' does not try all moves.",
            )
        follows = f"guided={self.guided}" if self.guided else "rule='gradient'"
        require(
            self.criterion != "zero_one" or not (self.guided or self.rule == "gradient"),
            f"{follows} follows the gradient of the loss, and the criterion 'zero_one' has none. "
            "Use guided=0 with the rule 'best' or 'first'.",
        )
        for name, set_ in (
            ("pairs", self.pairs > 0),
            ("guided", self.guided > 0),
            ("scale_search", self.scale_search),
        ):
            require(
                not set_ or self.batch is None,
                f"{name}={getattr(self, name)} needs all samples: leave batch out.",
            )


def _whole(name: str, value: object, low: int) -> None:
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= low,
        f"{name} was given {value!r}; expected a whole number, {low} or more.",
    )
