import pytest
import torch

from whit.parts.criteria import CRITERIA

WEIGHT = torch.tensor([-3.0, 0.5, 0.0])
START = torch.tensor([-1.0, 2.0, -1.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [3.0, 0.5, 0.0]),
        ("movement", [2.0, 1.5, 1.0]),
        ("magnitude_increase", [2.0, -1.5, -1.0]),
        ("movement_magnitude", [6.0, 0.75, 0.0]),
    ],
)
def test_formula(name, expected):
    assert CRITERIA[name](WEIGHT, START, torch.Generator()).tolist() == expected


def test_random_depends_on_the_generator_alone():
    def drawn(seed, weight):
        return CRITERIA["random"](weight, START, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1, WEIGHT), drawn(1, WEIGHT * 5))
    assert not torch.equal(drawn(1, WEIGHT), drawn(2, WEIGHT))
    assert drawn(1, torch.ones(4, 3)).shape == (4, 3)


def test_criteria_change_nothing():
    weight, start = WEIGHT.clone(), START.clone()
    for criterion in CRITERIA.values():
        criterion(weight, start, torch.Generator())
    assert torch.equal(weight, WEIGHT) and torch.equal(start, START)
