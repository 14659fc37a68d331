import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit.errors import ArtifactError
from whit.runtime.layout import Activation, Record
from whit.runtime.operators import Levels, Threshold


def test_threshold_flips_and_constants(run):
    least = np.iinfo(np.int8).min
    operator = Threshold(
        np.array([2, 2, least, least], dtype=np.int8), np.array([False, True, False, True])
    )
    x = np.array([[1, 1, -127, -9], [2, 2, 0, 0], [3, 3, 9, 9]], dtype=np.int32)
    negative = [[True, False, False, True], [False, False, False, True], [False, True, False, True]]
    assert run(operator, x, "int32").tolist() == negative
    with pytest.raises(ArtifactError, match="integer thresholds"):
        operator.result(Activation((4,), "float32"))
    single = Threshold(np.array([0.5], dtype=np.float32))
    assert run(single, np.array([[0.5, 0.4, np.nan]], dtype=np.float32)).tolist() == [
        [False, True, True]
    ]


@pytest.mark.parametrize("domain", ["uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32])
def test_threshold_compares_every_domain_of_whole_numbers(run, domain, kind):
    x = np.array([[0, 1, 2, 100, 127]]).astype(domain)
    assert run(Threshold(np.array([2], dtype=kind)), x, domain).tolist() == [
        [True, True, False, False, False]
    ]
    signs = np.array([[True, False]])
    assert run(Threshold(np.array([0], dtype=kind)), signs, "sign").tolist() == [[True, False]]


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=9),
    st.lists(st.integers(-128, 127), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 9),
)
def test_levels_count_their_thresholds(thresholds, values, flip, step):
    operator = Levels(
        np.array([thresholds], dtype=np.int8), np.array([True]) if flip else None, -20, step
    )
    result = operator.result(Activation((len(values),), "int8"))
    found = operator.run(np.array([values], dtype=np.int8))
    expected = [
        -20 + step * sum(value <= t if flip else value >= t for t in thresholds) for value in values
    ]
    assert found.tolist() == [expected]
    assert found.dtype == result.domain


def test_levels_of_channels_flipped_and_constant(run):
    thresholds = np.array([[-1, 0, 1], [1, 0, -1], [-np.inf, -np.inf, np.inf]], dtype=np.float32)
    operator = Levels(thresholds, np.array([False, True, False]), 0, 2)
    x = np.array([[-2, -1, 0, 0.5, 3, np.nan]], dtype=np.float32)
    x = np.repeat(x[:, None], 3, axis=1)
    assert run(operator, x).tolist() == [
        [[0, 2, 4, 4, 6, 0], [6, 6, 4, 2, 0, 0], [4, 4, 4, 4, 4, 0]]
    ]
    assert run(operator, x).dtype == np.uint8


@pytest.mark.parametrize(
    "low, step, levels, domain",
    [
        (-1, 1, 2, "int8"),
        (0, 255, 1, "uint8"),
        (-128, 1, 255, "int8"),
        (-128, 128, 255, "int16"),
        (0, 1, 255, "uint8"),
    ],
)
def test_levels_take_the_smallest_domain(run, low, step, levels, domain):
    thresholds = np.arange(levels, dtype=np.int16)[None]
    x = np.array([[-1, 0, 254, 300]], dtype=np.int16)
    found = run(Levels(thresholds, None, low, step), x, "int16")
    assert found.dtype == domain
    reached = [0, 1, min(255, levels), levels]
    assert found.tolist() == [[low + step * count for count in reached]]


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        (Levels(np.zeros((1, 2), dtype=np.int8), None, 0, 1), "float32"),
        (Levels(np.zeros((2, 2), dtype=np.int8), None, 0, 1), "int8"),
        (Levels(np.zeros((1, 2), dtype=np.int8), np.array([True, True]), 0, 1), "int8"),
        (Levels(np.zeros((1, 2), dtype=np.int8), None, 0, 0), "int8"),
        (Levels(np.zeros((1, 255), dtype=np.int8), None, 0, 255), "int8"),
        (Levels(np.zeros((1, 256), dtype=np.int8), None, 0, 1), "int8"),
        (Threshold(np.zeros(2, dtype=np.int8)), "int8"),
        (Threshold(np.zeros(3, dtype=np.int8), np.array([True])), "int8"),
    ],
)
def test_impossible_thresholds_are_refused(operator, domain):
    with pytest.raises(ArtifactError):
        operator.result(Activation((3,), domain))


@pytest.mark.parametrize("kind", [Threshold, Levels])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight_format": 4, "operand": 1}, "unknown threshold type"),
        ({"operand": 3}, "one per channel"),
        ({"operand": 0}, "one per channel"),
        ({"operand": 1}, "no place"),
    ],
)
def test_impossible_records_are_refused(kind, fields, message):
    with pytest.raises(ArtifactError, match=message):
        kind.read(Record(0, size_h=1, **fields), None, Activation((3,), "int8"))


def test_levels_without_thresholds_are_refused():
    with pytest.raises(ArtifactError, match="no thresholds"):
        Levels.read(Record(27, operand=1, first=0), None, Activation((3,), "int8"))


def test_flip_bits_of_nothing_are_refused(round_trip):
    source = Activation((3,), "float32")
    with pytest.raises(ArtifactError, match="no channel is flipped"):
        round_trip(Threshold(np.zeros(1, dtype=np.float32), np.array([False])), source)
    with pytest.raises(ArtifactError, match="cannot be stored"):
        round_trip(Threshold(np.zeros(1)), source)
