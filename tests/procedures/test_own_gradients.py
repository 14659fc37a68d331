import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.errors import SpecError
from whit.parts.group import Group
from whit.procedures.own_gradients import OwnGradients


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def steps(model, rate, batches, loss, hook=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for x, y in batches:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        if hook is not None:
            hook.before_step()
        optimizer.step()


def mean_over_members(output, target):
    return torch.stack(
        [functional.cross_entropy(z, t) for z, t in zip(output, target, strict=True)]
    ).mean()


@pytest.mark.parametrize("members", [2, 3, 4])
def test_members_under_sgd_are_networks_alone(members):
    """Bit for bit where 1 / K is exact, else to float tolerance."""
    alone = [network(k) for k in range(members)]
    group = Group([copy.deepcopy(n) for n in alone], own_inputs=True)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(members, 16, 6, generator=generator),
         torch.randint(0, 3, (members, 16), generator=generator))
        for _ in range(8)
    ]  # fmt: skip
    steps(group, 0.2, batches, mean_over_members, OwnGradients(group))
    for k, network_alone in enumerate(alone):
        own = [(x[k], y[k]) for x, y in batches]
        steps(network_alone, 0.2, own, functional.cross_entropy)
        for p, q in zip(network_alone.parameters(), group.members[k].parameters(), strict=True):
            if members in (2, 4):
                assert torch.equal(p, q)
            assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)


def test_without_it_members_move_less():
    group = Group([network(0), network(1)], own_inputs=True)
    alone = copy.deepcopy(group.members[0])
    x, y = torch.randn(2, 16, 6), torch.randint(0, 3, (2, 16))
    start = alone[0].weight.detach().clone()
    steps(group, 0.2, [(x, y)], mean_over_members)
    steps(alone, 0.2, [(x[0], y[0])], functional.cross_entropy)
    moved = group.members[0][0].weight - start
    assert torch.allclose(2 * moved, alone[0].weight - start, atol=1e-6)


def test_refusals():
    with pytest.raises(SpecError, match="Sequential"):
        OwnGradients(network(0))
    with pytest.raises(SpecError, match="a Group of 1"):
        OwnGradients(Group([network(0)]))
