"""Running the steps of a program in order, with every value freed after its last reader."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from whit.runtime.decoding import Step
from whit.runtime.layout import Activation
from whit.runtime.operators import Member, Operator, Route
from whit.runtime.operators.contract import Array, to_float
from whit.runtime.scopes import Scope


@dataclass(frozen=True)
class Schedule:
    """A scope, and which values nobody reads any more after each of its steps.

    Args:
        scope: the scope.
        released: numbers of values by the number of the step after which they are freed.
        bodies: schedules of the members' bodies by the number of their route.
    """

    scope: Scope
    released: Mapping[int, tuple[int, ...]]
    bodies: Mapping[int, tuple["Schedule", ...]]


@dataclass(frozen=True)
class RunCounts:
    """How many inputs ran each step, and how many came into each situation of each route.

    Args:
        steps: inputs by number of the step; a member's body counts the inputs that ran it.
        situations: inputs by number of the step of the route and number of the situation.
    """

    steps: Counter[int] = field(default_factory=Counter)
    situations: Counter[tuple[int, int]] = field(default_factory=Counter)


@dataclass(frozen=True)
class Machine:
    """What runs a schedule: the operators of all steps."""

    steps: Sequence[Step]
    operators: Sequence[Operator]
    counts: RunCounts | None = None

    def run(self, schedule: Schedule, x: Array, trace: list[Array] | None = None) -> Array:
        """Run the steps of a scope on the value that it begins with.

        Args:
            schedule: the scope.
            x: [batch, ...].
            trace: where to put the result of each step of this scope, members included.

        Returns:
            The value that the scope ends with.
        """
        values = {schedule.scope.own: x}
        for index in schedule.scope.steps:
            step, operator = self.steps[index], self.operators[index]
            x = values[step.source]
            if self.counts is not None:
                self.counts.steps[index] += len(x)
            if isinstance(operator, Member):
                result = x
            else:
                other = values[step.other] if operator.inputs == 2 else None
                if isinstance(operator, Route) and other is not None:
                    bodies = schedule.bodies.get(index, ())
                    situations = operator.situations(to_float(x))
                    if self.counts is not None:
                        self.counts.situations.update((index, int(one)) for one in situations)
                    result = self._route(operator, bodies, situations, x, other)
                else:
                    result = operator.run(x, other)
                values[index + 1] = result
            if trace is not None:
                trace.append(result)
            for number in schedule.released.get(index, ()):
                del values[number]
        return values[schedule.scope.result]

    def _route(
        self,
        operator: Route,
        bodies: Sequence[Schedule],
        situations: Array,
        source: Array,
        x: Array,
    ) -> Array:
        """Answer each row by the networks of its situation; a network sees no other rows."""
        scores = operator.split(to_float(source))[0]
        answers = [scores]
        for number, body in enumerate(bodies, start=1):
            asked = [number in strategy for strategy in operator.strategies]
            rows = np.flatnonzero(np.array(asked)[situations])
            answer = np.empty_like(scores)
            if rows.size:
                answer[rows] = to_float(self.run(body, x[rows]))
            answers.append(answer)
        output = scores.copy()
        for situation, strategy in enumerate(operator.strategies):
            rows = np.flatnonzero(situations == situation)
            if rows.size and set(strategy) != {0}:
                output[rows] = operator.mix([answers[number][rows] for number in strategy])
        return output


def make_schedule(steps: Sequence[Step], scope: Scope) -> Schedule:
    """Find the last reader of every value of a scope, and of the scopes inside it."""
    last: dict[int, int] = {}
    for index in scope.steps:
        step = steps[index]
        if isinstance(step.operator, Member):
            continue
        last[index + 1] = index  # a value that nobody reads goes at once
        last[step.source] = index
        if step.operator.inputs == 2:
            last[step.other] = index
    released: dict[int, tuple[int, ...]] = {}
    for number, index in last.items():
        if number != scope.result:
            released[index] = (*released.get(index, ()), number)
    bodies = {
        route: tuple(make_schedule(steps, body) for body in members)
        for route, members in scope.bodies.items()
    }
    return Schedule(scope, released, bodies)


def live_sums(
    steps: Sequence[Step],
    schedule: Schedule,
    first: int,
    size: Callable[[Activation], int],
    kept: int = 0,
) -> dict[int, int]:
    """Add up, for each step, the values that exist while it runs, its result included.

    Args:
        steps: all steps of the program.
        schedule: a scope of them.
        first: size of the value that the scope begins with.
        size: size of one value.
        kept: size of all that is kept outside of the scope.

    Returns:
        A sum for the number of each step, steps in bodies included.
    """
    sums: dict[int, int] = {}
    sizes = {schedule.scope.own: first}
    total = kept + first
    for index in schedule.scope.steps:
        if not isinstance(steps[index].operator, Member):
            sizes[index + 1] = size(steps[index].result)
            total += sizes[index + 1]
        sums[index] = total
        for body in schedule.bodies.get(index, ()):
            # The body reads the value that the route keeps: it counts once.
            sums |= live_sums(steps, body, 0, size, total)
        total -= sum(sizes[number] for number in schedule.released.get(index, ()))
    return sums
