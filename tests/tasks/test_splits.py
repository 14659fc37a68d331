import pytest
import torch

from whit.errors import DataError
from whit.tasks.splits import fixed_parts, stratified_split


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


def test_fixed_parts_keep_the_shares_of_classes() -> None:
    target = torch.tensor([0] * 70 + [1] * 30)
    parts = fixed_parts(target, 2, seed=1)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert [int(target[part].sum()) for part in parts] == [18, 6, 6]
    assert [len(part) for part in fixed_parts(target, 1, seed=1)] == [80, 20]
    assert torch.equal(fixed_parts(target, 0, seed=1)[0], torch.arange(100))


def test_fixed_parts_spread_numbers_by_rank() -> None:
    target = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).exp()
    parts = fixed_parts(target, 2, seed=1)
    means = [float(target[part].log().mean()) for part in parts]
    assert max(means) - min(means) < 0.1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1]), "2 samples for 3 splits"),
        (torch.tensor([0, 0, 0, 1, 1, 2]), "3 splits: 2 of class 1, 1 of class 2"),
        (torch.rand(2), "2 samples"),
    ],
)
def test_too_few_samples_for_fixed_parts(target: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fixed_parts(target, 2, seed=0)


def test_the_smallest_class_is_in_training() -> None:
    for seed in range(50):
        target = torch.tensor([0] * 40 + [1] * 3)
        train = fixed_parts(target, 2, seed)[0]
        assert set(target[train].tolist()) == {0, 1}
