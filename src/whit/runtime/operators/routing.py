"""Subprograms that run only for the inputs that need them."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import ABSENT, FLOAT, NONE, SCALAR, Activation, Record
from whit.runtime.operators.activations import softmax
from whit.runtime.operators.contract import (
    Array,
    Floats,
    Plain,
    expect,
    read_floats,
    second,
    to_float,
    write_operand,
)

NO_GROUP = 255


@dataclass(frozen=True)
class Member(Plain):
    """Begins a subprogram; its own result is its source, unchanged.

    Args:
        count: how many of the next records are its body, 1 or more.
    """

    count: int
    kind: ClassVar[str] = "member"

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: ``rows`` records."""
        return cls(record.rows)

    def write(self, writer: DataWriter) -> Record:
        """Append nothing."""
        return Record(0, rows=self.count)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return the source."""
        return source

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Return the source."""
        return x


@dataclass(frozen=True)
class Route(Plain):
    """Class scores of a first network, or the mean of the networks that a situation asks for.

    Situation 0 is a margin (difference of the two largest probabilities) of at least ``margin``;
    else it is 1, or 1 + the group of classes with the largest sum of probabilities, or 1 + the
    place of the largest deciding score. These stand behind the class scores in the source.

    Args:
        margin: a float32; above 1 no margin is large enough.
        group_of: group of each class, 255 for none; at most as many as there are classes.
        groups: number of groups, 0 to 255.
        strategies: numbers of the answering networks for each situation; 0 is the first network,
            k the k-th member.
        members: number of members right before this operator.
        temperature: > 0, a float32; scores are divided by it before the softmax of the situations.
        deciding: number of deciding scores, 0 for none; then there are no groups.
    """

    margin: float
    group_of: tuple[int, ...]
    groups: int
    strategies: tuple[tuple[int, ...], ...]
    members: int
    temperature: float = 1.0
    deciding: int = 0
    kind: ClassVar[str] = "route"
    inputs: ClassVar[int] = 2

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record.

        The margin, and the temperature where ``operand`` says so, are at ``first``; groups and
        strategies at ``second``; ``columns`` is the number of deciding scores.
        """
        expect(record.operand in (NONE, SCALAR), "route has an unknown number of temperatures")
        floats = read_floats(record.first, 1 + record.operand, reader)
        margin, temperature = float(floats[0]), float(floats[-1]) if record.operand else 1.0
        expect(record.second != ABSENT, "route has no strategies")
        reader.seek(record.second)
        groups, known = _read_bytes(reader, 2)
        group_of = _read_bytes(reader, known)
        strategies = []
        for _ in range(_situations(groups, record.columns)):
            (count,) = _read_bytes(reader, 1)
            strategies.append(_read_bytes(reader, count))
        return cls(
            margin,
            group_of,
            groups,
            tuple(strategies),
            record.rows,
            temperature,
            record.columns,
        )

    def write(self, writer: DataWriter) -> Record:
        """Append margin and temperature, then groups and strategies."""
        cold = self.temperature == 1
        floats = [self.margin] if cold else [self.margin, self.temperature]
        first = write_operand(np.array(floats, dtype=np.float32), writer)
        numbers = [self.groups, len(self.group_of), *self.group_of]
        for strategy in self.strategies:
            numbers += [len(strategy), *strategy]
        return Record(
            0,
            operand=NONE if cold else SCALAR,
            rows=self.members,
            columns=self.deciding,
            first=first,
            second=writer.append(bytes(numbers)),
        )

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 [classes]."""
        second(self.kind, other)
        expect(0 <= self.deciding <= NO_GROUP, f"route has {self.deciding} deciding scores")
        classes = source.elements - self.deciding
        expect(len(source.shape) == 1 and classes > 1, "route needs the scores of 2 classes")
        temperature = np.float32(self.temperature)
        expect(bool(0 < temperature < np.inf), f"route has the temperature {temperature}")
        alone = not self.deciding or not (self.groups or self.group_of)
        expect(alone, "route has groups and deciding scores; one of them chooses")
        expect(len(self.group_of) <= classes, "route groups more classes than there are")
        few = self.groups <= NO_GROUP and self.members < 1 << 8
        expect(few, f"route has {self.groups} groups and {self.members} members, 255 are stored")
        known = all(group < self.groups or group == NO_GROUP for group in self.group_of)
        expect(known, "route names a group that does not exist")
        situations = _situations(self.groups, self.deciding)
        expect(len(self.strategies) == situations, f"route needs {situations} strategies")
        for strategy in self.strategies:
            answers = len(strategy) > 0 and max(strategy) <= self.members
            expect(answers, f"route asks the networks {strategy} of {self.members} members")
        return Activation((classes,), FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Return the scores: the program runs the members and calls ``situations`` and ``mix``."""
        return self.split(to_float(x))[0]

    def split(self, source: Floats) -> tuple[Floats, Floats]:
        """Return class scores [batch, classes] and deciding scores [batch, deciding]."""
        classes = source.shape[1] - self.deciding
        return source[:, :classes], source[:, classes:]

    def situations(self, source: Floats) -> Array:
        """Return the situation of each row [batch, classes + deciding], integers [batch]."""
        scores, deciding = self.split(source)
        chances = softmax(scores / np.float32(self.temperature), 1)
        highest = np.partition(chances, -2, axis=1)[:, -2:]
        familiar = highest[:, 1] - highest[:, 0] >= np.float32(self.margin)
        if self.deciding:
            return np.where(familiar, 0, 1 + deciding.argmax(axis=1))
        if not self.groups:
            return np.where(familiar, 0, 1)
        sums = np.zeros((len(scores), self.groups), dtype=np.float32)
        for label, group in enumerate(self.group_of):
            if group != NO_GROUP:
                sums[:, group] += chances[:, label]
        return np.where(familiar, 0, 1 + sums.argmax(axis=1))

    def mix(self, answers: list[Floats]) -> Floats:
        """Return the logarithm of the mean of the softmaxes of scores [batch, classes] each."""
        total = softmax(answers[0], 1)
        for scores in answers[1:]:
            total = total + softmax(scores, 1)
        mean = total / np.float32(len(answers))
        result: Floats = np.log(np.maximum(mean, np.float32(1e-12)))
        return result


def _situations(groups: int, deciding: int) -> int:
    return 1 + (groups or deciding or 1)


def _read_bytes(reader: DataReader, count: int) -> tuple[int, ...]:
    return tuple(reader.array(count, "u1").tolist())
