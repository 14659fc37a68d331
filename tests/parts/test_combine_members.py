import pytest
import torch

from whit.errors import SpecError
from whit.parts.combine_members import Combine, lead

SCORES = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 4.0, 1.0]], [[3.0, 1.0, 0.0]]])


def test_three_ways_by_hand():
    assert torch.equal(Combine("logits")(SCORES), SCORES.mean(0))
    assert torch.equal(Combine("softmax")(SCORES), SCORES.softmax(-1).mean(0))
    assert torch.allclose(Combine("vote")(SCORES), torch.tensor([[2 / 3, 1 / 3, 0.0]]))


def test_the_lead():
    assert torch.equal(lead(torch.tensor([[1.0, 4.0, 2.5]])), torch.tensor([1.5]))
    assert lead(torch.tensor([[3.0]])).tolist() == [float("inf")]


def test_another_way():
    with pytest.raises(SpecError, match="logits, softmax, vote"):
        Combine("mean")
