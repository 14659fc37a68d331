import pytest
import torch
from torch import nn

from whit.errors import NoEffect, NotApplicable, SpecError
from whit.parts.filter_chains import filter_chain, graft_filters
from whit.tasks.models import ResidualBlock


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    for norm in (model[2], model[5]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model


def test_two_networks_entry_by_entry():
    """Every element by an explicit loop over rows and columns."""
    networks = [network(0), network(1)]
    own, other = (n.state_dict() for n in networks)
    new, second = graft_filters([own, other], filter_chain(networks[0]))
    first = (own["2.weight"].abs() / (own["2.weight"].abs() + other["2.weight"].abs())).tolist()
    last = (own["5.weight"].abs() / (own["5.weight"].abs() + other["5.weight"].abs())).tolist()

    def mix(key, place, share):
        mine, theirs = float(own[key][place]), float(other[key][place])
        assert float(new[key][place]) == pytest.approx(
            share * mine + (1 - share) * theirs, abs=1e-6
        )

    for j in range(3):
        mix("0.weight", (j, 0, 1, 2), first[j])
        for name in ("weight", "bias", "running_mean", "running_var"):
            mix(f"2.{name}", (j,), first[j])
        for row in range(2):
            mix("4.weight", (row, j, 0, 0), (first[j] + last[row]) / 2)
    for row in range(2):
        mix("4.bias", (row,), last[row])
        mix("8.bias", (row,), 0.5)
        for column in range(8):
            mix("8.weight", (row, column), last[column // 4])
    assert all(
        torch.allclose(new[k], second[k], atol=1e-6) for k in new if new[k].is_floating_point()
    )
    assert new["2.num_batches_tracked"].dtype == torch.int64


def test_scales_of_zero_average():
    networks = [network(0), network(1)]
    for n in networks:
        nn.init.zeros_(n[2].weight)
    own, other = (n.state_dict() for n in networks)
    new, _ = graft_filters([own, other], filter_chain(networks[0]))
    assert torch.allclose(new["0.weight"], (own["0.weight"] + other["0.weight"]) / 2)


def test_identical_networks_stay_as_they_are():
    state = network(0).state_dict()
    for new in graft_filters([state] * 3, filter_chain(network(0))):
        assert all(torch.equal(new[k], state[k]) for k in state)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), ResidualBlock(2, 2, 1)), "split"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
         "'0' has no batch norm"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.BatchNorm2d(2)), "2 groups"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, affine=False)), "does not fit"),
        (nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(3, 2)),
         "3 values of 2 channels"),
    ],
    ids=["split", "no norm", "groups", "no scales", "columns"],
)  # fmt: skip
def test_other_networks_are_refused(model, reason):
    with pytest.raises(NotApplicable, match=reason):
        filter_chain(model)


def test_refusals():
    with pytest.raises(NoEffect, match="no batch norm"):
        filter_chain(nn.Linear(2, 2))
    with pytest.raises(SpecError, match="2 or more"):
        graft_filters([network(0).state_dict()], filter_chain(network(0)))
