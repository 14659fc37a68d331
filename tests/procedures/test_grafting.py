import copy

import pytest
import torch
from torch import nn

from whit.core.optimizers import make_optimizer
from whit.core.settings import Settings
from whit.errors import NotApplicable, SpecError
from whit.parts.grafting import graft
from whit.parts.group import Group
from whit.parts.layer_groups import graft_groups
from whit.procedures.grafting import DifferentRates, Graft, GraftRule, different_rate


def network(seed, width=4):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(1, width, 2), nn.BatchNorm1d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(3 * width, 2),
    )  # fmt: skip


def group_of(count):
    return Group([network(k) for k in range(count)], own_inputs=True)


def test_the_hook_is_the_pure_function():
    group = group_of(3)
    states = [copy.deepcopy(m.state_dict()) for m in group.members]
    expected = graft(states, graft_groups(group.members[0]), 0.6, 20.0)
    hook = Graft(group, GraftRule(a=0.6, c=20.0))
    hook.after_epoch()
    for member, state in zip(group.members, expected, strict=True):
        assert all(torch.equal(member.state_dict()[k], state[k]) for k in state)
    assert hook.by_graph and hook.done == 1


def test_the_last_graft_is_looked_at_before():
    group, seen = group_of(2), []

    def look():
        seen.append(torch.equal(group.members[0][0].weight, group.members[1][0].weight))
        return [1.0, 2.0]

    hook = Graft(group, epochs=2, look=look)
    hook.after_epoch()
    assert seen == [] and hook.seen == []
    with torch.no_grad():
        group.members[0][0].weight.add_(1)
    hook.after_epoch()
    assert seen == [False] and hook.seen == [1.0, 2.0]
    assert torch.allclose(group.members[0][0].weight, group.members[1][0].weight)
    again = Graft(group, epochs=2, look=look)
    again.load_state_dict(hook.state_dict())
    assert again.done == 2 and again.seen == [1.0, 2.0]


@pytest.mark.parametrize("source", ["noise", "internal"])
def test_other_sources_change_weak_filters_only(source):
    group = group_of(2)
    with torch.no_grad():
        for member in group.members:
            member[0].weight[0] = 0.01
    before = [copy.deepcopy(m.state_dict()) for m in group.members]
    Graft(group, GraftRule(source=source)).after_epoch()
    for member, old in zip(group.members, before, strict=True):
        assert not torch.equal(member[0].weight[0], old["0.weight"][0])
        assert torch.equal(member[0].weight[1:], old["0.weight"][1:])
        assert torch.equal(member[4].weight, old["4.weight"])


def test_the_filter_level():
    group = group_of(2)
    Graft(group, GraftRule(level="filter")).after_epoch()
    assert torch.allclose(group.members[0][0].weight, group.members[1][0].weight)
    with pytest.raises(NotApplicable, match="level='layer'"):
        convolutions = [
            nn.Sequential(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2))
            for _ in range(2)
        ]
        Graft(Group(convolutions), GraftRule(level="filter"))


@pytest.mark.parametrize(
    ("members", "factors"),
    [(2, [0.5, 1]), (3, [0.25, 0.75, 1]), (4, [0.1464, 0.5, 0.8536, 1])],
)
def test_rates_of_the_card(members, factors):
    made = [different_rate(k, members) for k in range(1, members + 1)]
    assert made == pytest.approx(factors, abs=1e-4)


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_each_member_has_its_rate_and_keeps_its_decay(decay):
    group = group_of(3)
    optimizer = make_optimizer(
        group, Settings(epochs=1, batch_size=4, learning_rate=0.1, weight_decay=decay)
    )
    hook = DifferentRates(group, optimizer)
    assert hook.factors == pytest.approx([0.25, 0.75, 1.0])
    found = {p: g for g in optimizer.param_groups for p in g["params"]}
    assert set(found) == set(group.parameters())
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(found)
    for member, factor in zip(group.members, hook.factors, strict=True):
        for p in member.parameters():
            assert found[p]["initial_lr"] == found[p]["lr"] == pytest.approx(0.1 * factor)
            assert found[p]["weight_decay"] == (decay if p.dim() >= 2 else 0.0)


def test_refusals():
    with pytest.raises(SpecError, match="a Group of 1"):
        Graft(group_of(1))
    with pytest.raises(SpecError, match="not alike"):
        Graft(Group([network(0), network(1, width=5)]))
    one = network(0)
    shared = Group([one, one])
    with pytest.raises(SpecError, match="share a parameter"):
        DifferentRates(shared, torch.optim.SGD(shared.parameters(), lr=0.1))
    for options in (
        {"level": "row"}, {"source": "nothing"}, {"a": 2}, {"c": -1},
        {"level": "filter", "source": "noise"}, {"level": "filter", "a": 0.2},
        {"source": "internal", "c": 5.0},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            GraftRule(**options)
