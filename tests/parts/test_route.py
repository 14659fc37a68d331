import pytest
import torch
from torch import nn

from whit.errors import WhitError
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule, Route


class Counting(nn.Module):
    """A fixed linear map that remembers how many samples it has seen."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = 3 * torch.randn(4, 3, generator=generator)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x @ self.weight


X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def route(rule, strategies, members=3):
    return Route([Counting(k) for k in range(members)], rule, strategies)


def test_the_strategy_zero_gives_member_zero_bit_for_bit():
    model = route(MarginRule(1.0), [(0,), (0,)])
    assert torch.equal(model(X), Counting(0)(X))
    assert [m.seen for m in model.members] == [40, 0, 0]


def test_margin_zero_sends_nothing_on():
    model = route(MarginRule(0.0), [(0,), (1, 2)])
    assert torch.equal(model(X), Counting(0)(X))
    assert not model.route(X).any()
    assert [m.seen for m in model.members] == [80, 0, 0]


def test_members_see_only_what_the_route_implies():
    model = route(MarginRule(0.5), [(0,), (0, 2)])
    situations = model.route(X)
    unsure = int(situations.sum())
    assert 0 < unsure < 40
    model.members[0].seen = 0
    output = model(X)
    assert [m.seen for m in model.members] == [40, 0, unsure]
    sure = situations == 0
    assert torch.equal(output[sure], Counting(0)(X)[sure])
    doubted = X[~sure]
    mean = (Counting(0)(doubted).softmax(1) + Counting(2)(doubted).softmax(1)) / 2
    assert torch.allclose(output[~sure], mean.log(), atol=1e-6)


def test_margin_rule_by_hand():
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.45, 0.05], [0.4, 0.2, 0.4]]).log()
    assert MarginRule(0.2)(scores).tolist() == [0, 1, 1]
    assert MarginRule(0.04)(scores).tolist() == [0, 0, 1]


def test_group_sum_rule_by_hand():
    # The groups (0, 3) and (1, 2); the class 4 is in none.
    rule = GroupSumRule([(0, 3), (1, 2)], margin=0.3)
    probabilities = [
        [0.70, 0.10, 0.10, 0.05, 0.05],  # margin 0.60: familiar
        [0.30, 0.25, 0.25, 0.10, 0.10],  # 0.40 against 0.50: the second group
        [0.30, 0.25, 0.05, 0.30, 0.10],  # 0.60 against 0.30: the first group
        [0.05, 0.30, 0.20, 0.05, 0.40],  # class 4 leads and counts for none: 0.10 against 0.50
    ]
    assert rule.situations == 3
    assert rule(torch.tensor(probabilities).log()).tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize(
    "strategies", [[(0,)], [(0,), ()], [(0,), (3,)], [(0,), (1,), (2,)]], ids=str
)
def test_bad_strategies_are_refused(strategies):
    with pytest.raises(WhitError, match="situations"):
        route(MarginRule(0.5), strategies)


@pytest.mark.parametrize("groups", [[], [(0, 1), (1, 2)]], ids=str)
def test_bad_groups_are_refused(groups):
    with pytest.raises(WhitError, match="disjoint"):
        GroupSumRule(groups, 0.5)


def test_empty_groups_are_refused():
    with pytest.raises(WhitError, match="non-empty"):
        GroupSumRule([(0, 1), ()], 0.5)


def test_a_temperature_softens_the_margin_and_leaves_the_answer():
    scores = torch.tensor([[2.0, 1.0, -1.0], [0.2, 0.1, 0.0]])
    assert MarginRule(0.3)(scores).tolist() == [0, 1]
    assert MarginRule(0.3, temperature=4.0)(scores).tolist() == [1, 1]
    assert MarginRule(0.3, temperature=0.05)(scores).tolist() == [0, 0]
    assert GroupSumRule([[0], [1, 2]], 2.0, temperature=9.0)(scores).tolist() == [2, 2]
    assert GroupSumRule([[0], [1, 2]], 2.0)(scores).tolist() == [1, 2]
    with pytest.raises(WhitError, match="temperature"):
        MarginRule(0.3, temperature=0.0)


class WithHead(nn.Module):
    """Features that are the inputs, and a head that doubles them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)
        self.head.weight.data *= 2

    def forward(self, x):
        return self.head(x)


def test_the_nearest_centroid_of_the_features_decides():
    centroids = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    head = nn.Linear(3, 2)
    head.weight.data, head.bias.data = centroids, -centroids.square().sum(1) / 2
    model = Route(
        [WithHead(), WithHead(), WithHead()], FeatureRule(head, 3, margin=2.0), [(0,), (1,), (2,)]
    )
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    nearest = torch.cdist(features, centroids).argmin(1)
    assert torch.equal(model.route(features), 1 + nearest)
    assert 0 < int(nearest.sum()) < 50
    assert torch.allclose(model(features).exp(), (2 * features).softmax(1), atol=1e-6)
    model.rule.familiar.margin = 0.0
    assert torch.equal(model(features), 2 * features)
    with pytest.raises(WhitError, match="situations"):
        FeatureRule(head, 1, margin=0.5)
