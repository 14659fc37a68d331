"""From the bytes of a file to the checked steps of a program."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whit.errors import ArtifactError
from whit.runtime.artifact import Artifact
from whit.runtime.costs import OperatorCost, count_cost
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import (
    BYTE,
    FLOAT,
    INTEGER,
    Activation,
    ProgramHeader,
    Record,
    parse_records,
)
from whit.runtime.operators import OPERATORS, Affine, Operator
from whit.runtime.scopes import Scope, chain, find_scopes

_LAST_OPERATOR_1, _LAST_FORMAT_1, _LINEAR, _ROUTE = 11, 6, 1, 30
# Version 1 knows no integers but exact sums of signs: these operators read others as float32.
_READS_FLOAT_1 = {BYTE: {1, 2, 3, 4, 5, 6, 7, 11}, INTEGER: {1, 2, 11}}


@dataclass(frozen=True)
class Step:
    """One operator at its place in the graph; step k gives value k + 1, value 0 is the input.

    Args:
        operator: what is done.
        source: number of the value read.
        other: number of the second value read, 0 for operators that read one.
        result: shape and domain of the value given.
        cost: what it costs for one sample.
    """

    operator: Operator
    source: int
    other: int
    result: Activation
    cost: OperatorCost


def decode_steps(artifact: Artifact, header: ProgramHeader) -> tuple[tuple[Step, ...], Scope]:
    """Decode and check every record of a file.

    Raises:
        ArtifactError: a record, its constants, its place or its shapes break the format.
    """
    records = parse_records(artifact.program, header.version)
    decoder = _Decoder(artifact.data, Activation(header.shape, header.dtype))
    try:
        if header.version == 1:
            for index, record in enumerate(records):
                decoder.add_version_1(index, record)
            scope = chain(len(decoder.steps))
        else:
            scope = find_scopes(records)
            for index, record in enumerate(records):
                if (
                    header.version == 2
                    and record.kind == _ROUTE
                    and record.operand | record.columns
                ):
                    raise ArtifactError(f"record {index} is beyond what version 2 knows")
                decoder.add(index, record, record.source)
    except MemoryError as error:
        raise ArtifactError("the program asks for more memory than there is") from error
    decoder.finish(artifact.data)
    steps = _mark_conditional(decoder.steps, scope)
    _check_answers(steps, scope)
    return steps, scope


class _Decoder:
    """Reads records one after another and writes them again to compare."""

    def __init__(self, data: bytes, source: Activation) -> None:
        self._reader, self._writer = DataReader(data), DataWriter()
        self._values = [source]
        self.steps: list[Step] = []

    def add(self, index: int, record: Record, source_number: int) -> None:
        """Decode a record that reads the value ``source_number``."""
        kind = OPERATORS.get(record.kind)
        if kind is None:
            raise ArtifactError(f"record {index} has the unknown operator {record.kind}")
        source = self._values[source_number]
        number = record.other if kind.inputs == 2 else 0
        begin = self._reader.position
        operator = kind.read(record, self._reader, source)
        result = operator.result(source, self._values[number] if kind.inputs == 2 else None)
        written = operator.write(self._writer)
        if replace(written, kind=record.kind, source=record.source, other=number) != record:
            raise ArtifactError(f"record {index} ({operator.kind}) holds values it does not use")
        self._append(operator, (source_number, number), result, self._reader.position - begin)

    def add_version_1(self, index: int, record: Record) -> None:
        """Decode a record by the rules of version 1: a chain, whole numbers from signs only."""
        if record.kind > _LAST_OPERATOR_1 or record.weight_format > _LAST_FORMAT_1:
            raise ArtifactError(f"record {index} is beyond what version 1 knows")
        source = self._values[-1]
        if record.kind == _LINEAR and len(source.shape) != 1:
            raise ArtifactError(f"record {index}: linear reads one axis in version 1")
        if record.kind in _READS_FLOAT_1.get(source.domain, set()):
            result = Activation(source.shape, FLOAT)
            self._append(Affine(None, None), (len(self.steps), 0), result, 0)
        self.add(index, record, len(self.steps))

    def finish(self, data: bytes) -> None:
        """Check that the data hold nothing but what was read, in the one way to write it."""
        self._reader.finish()
        if self._writer.to_bytes() != data:
            raise ArtifactError("the data tensor is not in its canonical form")

    def _append(
        self, operator: Operator, numbers: tuple[int, int], result: Activation, data_bytes: int
    ) -> None:
        name = f"{operator.kind}_{len(self.steps)}"
        cost = count_cost(name, operator, self._values[numbers[0]], result, data_bytes)
        self.steps.append(Step(operator, *numbers, result, cost))
        self._values.append(result)


def _mark_conditional(steps: Sequence[Step], top: Scope) -> tuple[Step, ...]:
    unconditional = set(top.steps)
    return tuple(
        step if index in unconditional else replace(step, cost=replace(step.cost, conditional=True))
        for index, step in enumerate(steps)
    )


def _check_answers(steps: Sequence[Step], scope: Scope) -> None:
    """Check that each member answers with as many scores as the first network."""
    for route, bodies in scope.bodies.items():
        for body in bodies:
            answer, expected = steps[body.result - 1].result.shape, steps[route].result.shape
            if answer != expected:
                raise ArtifactError(
                    f"a member of record {route} answers with the shape {answer}, "
                    f"expected {expected}"
                )
            _check_answers(steps, body)
