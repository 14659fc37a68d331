import pytest
import torch

from whit.errors import DataError
from whit.tasks.splits import stratified_split


def test_parts_are_disjoint_complete_stratified_and_repeatable() -> None:
    target = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    parts = stratified_split(target, (60, 20, 20), seed=5)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(100))
    for part in parts:
        counts = target[part].bincount(minlength=3).double()
        expected = torch.tensor([0.6, 0.3, 0.1]) * len(part)
        assert (counts - expected).abs().max() <= 2
    again = stratified_split(target, (60, 20, 20), seed=5)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[1], stratified_split(target, (60, 20, 20), seed=6)[1])


def test_sizes_must_add_up() -> None:
    with pytest.raises(DataError, match="samples"):
        stratified_split(torch.zeros(10, dtype=torch.int64), (5, 4), seed=0)
