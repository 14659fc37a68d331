import torch
from torch import nn

from whit.core.divergence import is_finite, plain_name, watchable_modules, where_not_finite
from whit.parts.group import Group
from whit.parts.masks import add_masks


class Logarithm(nn.Module):
    def forward(self, x):
        return x.log()


def model():
    return nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"log": Logarithm()})["log"], nn.ReLU())


INPUTS = torch.ones(2, 3)


def test_the_first_module_is_named():
    made = nn.Sequential(nn.Flatten(), model())
    with torch.no_grad():
        made[1][0].weight.zero_()
        made[1][0].bias.fill_(-1.0)
    assert where_not_finite(made, (INPUTS,)) == "the output of module '1.1' (Logarithm)"
    assert not any(m._forward_hooks for m in made.modules())


def test_a_gradient_comes_before_the_weights_that_it_spoilt():
    made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    for p in made.parameters():
        p.grad = torch.zeros_like(p)
        p.data.fill_(torch.nan)
    made[0].weight.grad.fill_(torch.nan)
    made[1].weight.grad.fill_(torch.inf)
    found = where_not_finite(made, (INPUTS,))
    assert found == "the gradient of '1.weight' in the step before"


def test_a_weight_that_overflowed_is_named_as_its_owner_knows_it():
    made = nn.Sequential(nn.Linear(3, 3))
    add_masks(made)
    made[0].parametrizations.weight.original.data[0, 0] = torch.inf
    assert where_not_finite(made, (INPUTS,)) == "the values of '0.weight' after the step before"
    assert plain_name("a.parametrizations.weight.original") == "a.weight"


def test_inputs_and_the_loss_are_named():
    assert "augmentation" in where_not_finite(nn.Linear(3, 3), (INPUTS * torch.nan,))
    assert "the loss itself" in where_not_finite(nn.Linear(3, 3), (INPUTS,))
    assert "the loss itself" in where_not_finite(nn.Embedding(4, 2), (torch.tensor([1, 2]),))
    assert is_finite(torch.tensor([1, 2]))


def test_members_of_a_batched_group_are_not_looked_into():
    group = nn.Sequential(Group([nn.Linear(3, 3), nn.Linear(3, 3)], way="batched"), Logarithm())
    assert [path for path, _ in watchable_modules(group)] == ["", "0", "1"]
    with torch.no_grad():
        for member in group[0].members:
            member.weight.fill_(-1.0)
    assert where_not_finite(group, (10 * INPUTS,)) == "the output of module '1' (Logarithm)"
