"""The nesting of a program: which records run at its top, and which in the body of a member."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from whit.errors import ArtifactError
from whit.runtime.layout import Record
from whit.runtime.operators import OPERATOR_CODES, OPERATORS, Member, Route

MAX_DEPTH = 4
_MEMBER, _ROUTE = OPERATOR_CODES[Member.kind], OPERATOR_CODES[Route.kind]


@dataclass(frozen=True)
class Scope:
    """Records that run one after another: the top of a program, or the body of a member.

    Args:
        own: number of the value that the scope begins with.
        steps: numbers of its records, members included, records of their bodies not.
        result: number of the value that it ends with.
        bodies: for the number of each route, the bodies of its members.
    """

    own: int
    steps: tuple[int, ...]
    result: int
    bodies: Mapping[int, tuple["Scope", ...]] = field(default_factory=dict)


def chain(count: int) -> Scope:
    """Return the scope of a program of ``count`` steps without members."""
    return Scope(0, tuple(range(count)), count)


def find_scopes(records: Sequence[Record]) -> Scope:
    """Check the nesting of records, each of which reads values before it.

    Raises:
        ArtifactError: a body is empty, too long or too deep, reads a value outside or is read
            from outside, or members do not stand directly before their route.
    """
    return _Nesting(records).scope(0, 0, len(records), 0)


class _Nesting:
    """Walks over the records once."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def scope(self, own: int, begin: int, end: int, depth: int) -> Scope:
        """Check the records begin..end, whose scope begins with the value ``own``."""
        if depth > MAX_DEPTH:
            raise ArtifactError(f"record {begin} lies in more than {MAX_DEPTH} members")
        steps: list[int] = []
        bodies: dict[int, tuple[Scope, ...]] = {}
        visible = {own}
        position = begin
        while position < end:
            members, position = self._members(position, end, depth)
            for member in members:
                self._check_reads(member.own - 1, visible)
                steps.append(member.own - 1)
            if position == end:
                raise ArtifactError(f"the member before record {end} has no route behind it")
            self._check_route(position, members)
            self._check_reads(position, visible)
            bodies[position] = tuple(members)
            steps.append(position)
            visible.add(position + 1)
            position += 1
        return Scope(own, tuple(steps), end, {at: found for at, found in bodies.items() if found})

    def _members(self, position: int, end: int, depth: int) -> tuple[list[Scope], int]:
        """Return the bodies of the members that begin at a position, and where they end."""
        members = []
        while position < end and self._records[position].kind == _MEMBER:
            stop = position + 1 + self._records[position].rows
            if not position + 1 < stop <= end:
                raise ArtifactError(
                    f"the member at record {position} has {stop - position - 1} records, "
                    f"expected 1 to {end - position - 1}"
                )
            members.append(self.scope(position + 1, position + 1, stop, depth + 1))
            position = stop
        return members, position

    def _check_route(self, position: int, members: Sequence[Scope]) -> None:
        record = self._records[position]
        if record.kind != _ROUTE:
            if members:
                raise ArtifactError(f"record {position} stands between members and their route")
            return
        if record.rows != len(members):
            raise ArtifactError(
                f"the route at record {position} has {record.rows} members, "
                f"before it stand {len(members)}"
            )
        if any(self._records[member.own - 1].source != record.other for member in members):
            raise ArtifactError(f"the members of record {position} read something else than it")

    def _check_reads(self, position: int, visible: set[int]) -> None:
        record = self._records[position]
        operator = OPERATORS.get(record.kind)
        two = operator is not None and operator.inputs == 2
        for number in (record.source, record.other) if two else (record.source,):
            if number not in visible:
                raise ArtifactError(
                    f"record {position} reads the value {number}, which belongs to another part "
                    "of the program"
                )
