"""Subprograms that run only for the inputs that need them."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import ABSENT, FLOAT, Activation, Record
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
    else it is 1, or 1 + the group of classes with the largest sum of probabilities.

    Args:
        margin: 0..1, a float32.
        group_of: group of each class, 255 for none; at most as many as there are classes.
        groups: number of groups, 0 to 255.
        strategies: numbers of the answering networks for each situation; 0 is the first network,
            k the k-th member.
        members: number of members right before this operator.
    """

    margin: float
    group_of: tuple[int, ...]
    groups: int
    strategies: tuple[tuple[int, ...], ...]
    members: int
    kind: ClassVar[str] = "route"
    inputs: ClassVar[int] = 2

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: the margin at ``first``, groups and strategies at ``second``."""
        margin = float(read_floats(record.first, 1, reader)[0])
        expect(record.second != ABSENT, "route has no strategies")
        reader.seek(record.second)
        groups, known = _read_bytes(reader, 2)
        group_of = _read_bytes(reader, known)
        strategies = []
        for _ in range(groups + 1 if groups else 2):
            (count,) = _read_bytes(reader, 1)
            strategies.append(_read_bytes(reader, count))
        return cls(margin, group_of, groups, tuple(strategies), record.rows)

    def write(self, writer: DataWriter) -> Record:
        """Append the margin, then groups and strategies."""
        first = write_operand(np.array([self.margin], dtype=np.float32), writer)
        numbers = [self.groups, len(self.group_of), *self.group_of]
        for strategy in self.strategies:
            numbers += [len(strategy), *strategy]
        return Record(0, rows=self.members, first=first, second=writer.append(bytes(numbers)))

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 [classes]."""
        second(self.kind, other)
        classes = source.elements
        expect(len(source.shape) == 1 and classes > 1, "route needs the scores of 2 classes")
        expect(len(self.group_of) <= classes, "route groups more classes than there are")
        few = self.groups <= NO_GROUP and self.members < 1 << 8
        expect(few, f"route has {self.groups} groups and {self.members} members, 255 are stored")
        known = all(group < self.groups or group == NO_GROUP for group in self.group_of)
        expect(known, "route names a group that does not exist")
        situations = self.groups + 1 if self.groups else 2
        expect(len(self.strategies) == situations, f"route needs {situations} strategies")
        for strategy in self.strategies:
            answers = len(strategy) > 0 and max(strategy) <= self.members
            expect(answers, f"route asks the networks {strategy} of {self.members} members")
        return Activation(source.shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Return the scores: the program runs the members and calls ``situations`` and ``mix``."""
        return to_float(x)

    def situations(self, scores: Floats) -> Array:
        """Return the situation of each row of scores [batch, classes], integers [batch]."""
        chances = softmax(scores, 1)
        highest = np.partition(chances, -2, axis=1)[:, -2:]
        familiar = highest[:, 1] - highest[:, 0] >= np.float32(self.margin)
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


def _read_bytes(reader: DataReader, count: int) -> tuple[int, ...]:
    return tuple(reader.array(count, "u1").tolist())
