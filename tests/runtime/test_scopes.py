"""Where records may read, and how members nest."""

import pytest

from whit.errors import ArtifactError
from whit.runtime.layout import Record
from whit.runtime.scopes import find_scopes

RELU, ADD, MEMBER, ROUTE = 5, 12, 29, 30


def relu(source):
    return Record(RELU, source=source)


def member(rows, source=0):
    return Record(MEMBER, rows=rows, source=source)


def route(rows, source=1, other=0):
    return Record(ROUTE, rows=rows, source=source, other=other)


def nested(depth, own=0, begin=0):
    """Return a scope of scores, a member (with the same inside, depth times) and a route."""
    if depth == 0:
        return [relu(own)]
    inside = nested(depth - 1, begin + 2, begin + 2)
    return [relu(own), member(len(inside), own), *inside, route(1, begin + 1, own)]


def test_a_program_without_members_is_one_scope():
    scope = find_scopes([relu(0), relu(0), Record(ADD, source=2, other=1)])
    assert (scope.own, scope.steps, scope.result, scope.bodies) == (0, (0, 1, 2), 3, {})


def test_members_and_their_bodies():
    scope = find_scopes([relu(0), member(2), relu(2), relu(3), member(1), relu(5), route(2)])
    assert scope.steps == (0, 1, 4, 6)
    first, second = scope.bodies[6]
    assert (first.own, first.steps, first.result) == (2, (2, 3), 4)
    assert (second.own, second.steps, second.result) == (5, (5,), 6)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_four_levels_are_read(depth):
    scope = find_scopes(nested(depth))
    for _ in range(depth):
        (bodies,) = scope.bodies.values()
        scope = bodies[0]
    assert scope.bodies == {}


def test_five_levels_are_refused():
    with pytest.raises(ArtifactError, match="more than 4 members"):
        find_scopes(nested(5))


def test_a_thousand_levels_end_early():
    with pytest.raises(ArtifactError, match="more than 4 members"):
        find_scopes([member(1000 - k, max(0, k)) for k in range(1000)] + [relu(0)])


BAD = {
    "belongs to another part": [
        [relu(0), member(1), relu(0), route(1)],  # the body reads the input itself
        [relu(0), member(1), relu(1), route(1)],  # the body reads a value of the top
        [relu(0), member(1), Record(ADD, source=2, other=0), route(1)],
        [relu(0), member(1), relu(2), route(1), relu(3)],  # the top reads a value of the body
        [relu(0), member(1), relu(2), route(1), relu(2)],  # the top reads the member's value
        [relu(0), member(1), relu(2), member(1), relu(2), route(2)],  # a sister's value
        [relu(0), member(1), relu(2), route(1, source=3)],
        [relu(0), member(1), relu(2), route(1), Record(ADD, source=4, other=3)],
    ],
    "has 0 records": [[relu(0), member(0), route(1)]],
    "has 9 records": [[relu(0), member(9), relu(2), route(1)]],
    "has 4294967295 records": [[relu(0), member(2**32 - 1), relu(2), route(1)]],
    "has no route": [
        [relu(0), member(1), relu(2)],
        [relu(0), member(3), relu(2), member(1, 2), relu(4), route(1)],
    ],
    "stands between members": [[relu(0), member(1), relu(2), relu(0), route(1)]],
    "before it stand 1": [[relu(0), member(1), relu(2), route(2)]],
    "before it stand 0": [[relu(0), route(1)]],
    "read something else": [
        [relu(0), member(1), relu(2), route(1, other=1)],
        [relu(0), member(1, source=1), relu(2), member(1), relu(4), route(2)],
    ],
}


@pytest.mark.parametrize(("message", "case"), [(m, k) for m in BAD for k in range(len(BAD[m]))])
def test_broken_nesting_is_refused(message, case):
    with pytest.raises(ArtifactError, match=message):
        find_scopes(BAD[message][case])
