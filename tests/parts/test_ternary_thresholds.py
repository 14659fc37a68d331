import pytest
import torch
from torch import nn

from whit.errors import WhitError
from whit.parts.stochastic_firing import FIRES_FROM, StochasticFire
from whit.parts.ternary_thresholds import Affine, TernaryThresholds, folded_thresholds


def rule(sums, low, high, falls):
    fired = (sums > high).double() - (sums < low).double()
    return torch.where(falls, -fired, fired)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


def test_every_pair_of_thresholds_by_brute_force():
    pairs = [(low, high) for low in range(-6, 8) for high in range(low - 1, 8)]
    low, high = (torch.tensor(column) for column in zip(*pairs, strict=True))
    falls = torch.arange(len(pairs)) % 2 == 1
    module = TernaryThresholds(low, high, falls)
    sums = torch.arange(-12.0, 13.0)[:, None].expand(-1, len(pairs))
    assert torch.equal(module(sums).double(), rule(sums, low, high, falls))
    found = module.thresholds()
    assert torch.equal(found[0], low) and torch.equal(found[1], high)
    assert torch.equal(found[2], falls)


def test_wide_zones_are_exact():
    low, high = torch.tensor([-100_000, -99_999]), torch.tensor([100_000, 100_000])
    module = TernaryThresholds(low, high)
    for sums in ([-100_000, -99_999], [100_000, 100_000]):
        assert module(torch.tensor([sums]).float()).tolist() == [[0, 0]]
    assert module(torch.tensor([[-100_001.0, -100_000.0]])).tolist() == [[-1, -1]]
    assert module(torch.tensor([[100_001.0, 100_001.0]])).tolist() == [[1, 1]]


def test_images_have_one_rule_a_channel():
    module = TernaryThresholds(torch.tensor([0, 5]), torch.tensor([0, 4]))
    sums = torch.tensor([[[[-1.0, 0.0, 1.0]], [[4.0, 5.0, 6.0]]]])
    assert module(sums).tolist() == [[[[-1, 0, 1]], [[-1, 1, 1]]]]


def test_thresholds_in_the_wrong_order():
    with pytest.raises(WhitError, match="high >= low - 1"):
        TernaryThresholds(torch.tensor([3]), torch.tensor([1]))


@pytest.mark.parametrize("squash", ["tanh", "hardtanh"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_folding_equals_the_teacher_on_every_sum(squash, with_bias):
    channels, bound = 200, 40
    norm = nn.BatchNorm1d(channels).double().eval()
    with torch.no_grad():
        norm.weight.normal_()
        norm.weight[:5] = 0  # dead neurons: always the same
        norm.bias.normal_()
        norm.bias[:3] = torch.tensor([2.0, -2.0, 0.1])
        norm.running_mean.normal_(0, 10)
        norm.running_var.uniform_(0.1, 200)
    bias = torch.randn(channels, dtype=torch.float64) if with_bias else None
    affine = Affine.of_bias(bias, channels).then_norm(norm)
    low, high, falls = folded_thresholds(affine, FIRES_FROM[squash], bound)
    sums = torch.arange(-bound, bound + 1).double()[:, None].expand(-1, channels)
    shifted = sums if bias is None else sums + bias
    teacher = StochasticFire(squash).eval()(norm(shifted))
    assert torch.equal(rule(sums, low, high, falls), teacher)
    folded = TernaryThresholds(low, high, falls)
    assert torch.equal(folded(sums.float()).double(), teacher)
    assert bool(falls.any()) and not bool(falls.all())


def test_norms_without_affine_parameters_or_statistics():
    norm = nn.BatchNorm1d(3, affine=False).eval()
    found = Affine.of_bias(None, 3).then_norm(norm)
    assert torch.allclose(found.scale, torch.full((3,), 1 / (1 + norm.eps) ** 0.5).double())
    with pytest.raises(WhitError, match="running statistics"):
        Affine.of_bias(None, 3).then_norm(nn.BatchNorm1d(3, track_running_stats=False))
