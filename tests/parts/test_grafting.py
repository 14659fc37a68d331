import copy
import math

import pytest
import torch
from torch import nn

from whit.errors import SpecError
from whit.parts.grafting import (
    graft,
    graft_coefficient,
    internal_source,
    layer_entropy,
    noise_source,
)
from whit.parts.layer_groups import graft_groups
from whit.parts.masks import add_masks, find_masks


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2),
        nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    for _ in range(seed + 2):
        model(torch.randn(4, 1, 6, 6) * (seed + 1))
    return model


def states_of(count):
    networks = [network(k) for k in range(count)]
    return [n.state_dict() for n in networks], graft_groups(networks[0])


@pytest.mark.parametrize(
    ("values", "closed", "expected"),
    [
        (torch.arange(10.0), True, 2.302585), (torch.arange(10.0), False, 2.072327),
        (torch.tensor([0.0, 1.0]), True, 0.693147), (torch.tensor([0.0, 1.0]), False, 0.346574),
        (torch.full((5,), 0.3), True, 0.0),
    ],
)  # fmt: skip
def test_entropy_values(values, closed, expected):
    assert layer_entropy(values, closed=closed) == pytest.approx(expected, abs=1e-6)


def test_entropy_measures_the_shape_of_the_histogram():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(64, 64, 3, 3, generator=generator)
    assert layer_entropy(normal) == pytest.approx(1.62, abs=0.08)
    assert layer_entropy(torch.rand(64, 64, 3, 3, generator=generator)) == pytest.approx(
        2.3024, abs=5e-4
    )
    assert layer_entropy(100 * normal + 3) == pytest.approx(layer_entropy(normal), abs=1e-3)
    assert layer_entropy(normal[0], bins=1) == 0.0


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0, 0.50), (0.0005, 0.53), (0.001, 0.56), (0.002, 0.60), (0.005, 0.65), (0.01, 0.67),
     (0.05, 0.69), (0.1, 0.70), (-0.1, 0.30)],
)  # fmt: skip
def test_coefficients(difference, expected):
    assert graft_coefficient(difference, 0.0, decimals=2) == expected
    both = graft_coefficient(1 + difference, 1.0) + graft_coefficient(1.0, 1 + difference)
    assert both == pytest.approx(1.0, abs=1e-12)
    assert 0.3 < graft_coefficient(difference, 0.0) < 0.7


def test_a_hand_computed_graft():
    """Entropies ln 2 and the two-bin 1/4, 3/4; so alpha is far on one side of 1/2."""
    one = {"weight": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "bias": torch.tensor([2.0])}
    two = {"weight": torch.tensor([[0.0, 1.0, 1.0, 1.0]]), "bias": torch.tensor([6.0])}
    linear = nn.Linear(4, 1)
    new = graft([one, two], graft_groups(linear), a=0.4, c=5.0)
    difference = math.log(2) - (0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    alpha = 0.4 / math.pi * math.atan(5.0 * difference) + 0.5
    assert alpha == pytest.approx(0.5737, abs=1e-4)
    assert torch.allclose(new[0]["weight"], torch.tensor([[0.0, 1 - alpha, 1.0, 1.0]]))
    assert float(new[0]["bias"]) == pytest.approx(2 * alpha + 6 * (1 - alpha))
    assert float(new[1]["bias"]) == pytest.approx(float(new[0]["bias"]))


def by_hand(states, owners, a, c):
    """Walk the ring entry by entry, from the last network to the first."""
    new = [None] * len(states)
    for k in reversed(range(len(states))):
        other = states[(k + len(states) - 1) % len(states)]
        new[k] = {}
        for key, value in states[k].items():
            if not value.is_floating_point():
                new[k][key] = value
                continue
            weight = owners[key] + ".weight"
            gap = layer_entropy(states[k][weight]) - layer_entropy(other[weight])
            alpha = a / math.pi * math.atan(c * gap) + 0.5
            new[k][key] = alpha * value + (1 - alpha) * other[key]
    return new


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_ring_equals_the_loop_by_hand(count):
    states, groups = states_of(count)
    before = copy.deepcopy(states)
    new = graft(states, groups)
    owners = {key: group.owner for group in groups for key in group.keys}
    assert set(owners.values()) == {"0", "3"}
    for mine, expected in zip(new, by_hand(states, owners, 0.4, 500.0), strict=True):
        assert list(mine) == list(expected)
        for key in mine:
            assert mine[key].dtype == expected[key].dtype and mine[key].shape == expected[key].shape
            assert torch.allclose(mine[key], expected[key], atol=1e-6), key
        assert float(mine["1.running_var"].min()) > 0
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(state[key], old[key]) for key in state), "the inputs are kept"
    counts = [int(state["1.num_batches_tracked"]) for state in new]
    assert counts == [k + 2 for k in range(count)]


def test_turning_the_ring_turns_the_result():
    """Whatever network is treated first, the result is the same: nothing is changed in place."""
    states, groups = states_of(3)
    new = graft(states, groups)
    turned = graft([states[2], states[0], states[1]], groups)
    for a, b in zip([new[2], new[0], new[1]], turned, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_two_networks_are_equal_after_a_graft():
    states, groups = states_of(2)
    first, second = graft(states, groups)
    for key, value in first.items():
        if value.is_floating_point():
            assert torch.allclose(value, second[key], rtol=1e-6, atol=1e-7), key
    assert not torch.equal(first["0.weight"], states[0]["0.weight"])


def test_identical_networks_stay_as_they_are():
    states, groups = states_of(1)
    for new in graft([states[0], copy.deepcopy(states[0]), states[0]], groups):
        assert all(torch.equal(new[key], states[0][key]) for key in new)


def test_a_of_zero_is_the_mean_of_two_neighbours():
    states, groups = states_of(3)
    for k, new in enumerate(graft(states, groups, a=0)):
        for key, value in new.items():
            if value.is_floating_point():
                assert torch.allclose(value, (states[k][key] + states[k - 1][key]) / 2, atol=1e-6)


def test_of_a_masked_layer_the_latent_weight_is_mixed_and_the_mask_kept():
    networks = []
    for k in range(2):
        model = network(k)
        add_masks(model)
        for _, mask in find_masks(model).values():
            mask.mask.copy_((torch.rand(mask.mask.shape) > 0.5).float())
        networks.append(model)
    states = [n.state_dict() for n in networks]
    key, mask = "0.parametrizations.weight.original", "0.parametrizations.weight.0.mask"
    new = graft(states, graft_groups(networks[0]))
    own, other = states[0][key], states[1][key]
    alpha = graft_coefficient(layer_entropy(own), layer_entropy(other))
    assert torch.allclose(new[0][key], alpha * own + (1 - alpha) * other, atol=1e-6)
    assert torch.equal(new[0][mask], states[0][mask])
    assert torch.equal(new[1][mask], states[1][mask])
    networks[0].load_state_dict(new[0])
    assert bool((networks[0][0].weight[states[0][mask] == 0] == 0).all())


def weak_filters():
    model = network(0)
    with torch.no_grad():
        model[0].weight[0] = 1e-4
        model[0].weight[1] = 2.0
        model[0].weight[2] = 1.0
    return model.state_dict(), graft_groups(model)


def test_noise_reaches_invalid_filters_only():
    state, groups = weak_filters()
    new = noise_source(state, groups, 0.5, torch.Generator().manual_seed(1))
    moved = (new["0.weight"] - state["0.weight"]).flatten(1)
    assert float(moved[0].std()) == pytest.approx(0.5, rel=0.6)
    assert float(moved[1:].abs().max()) == 0
    assert all(torch.equal(new[key], state[key]) for key in state if key != "0.weight")
    still = noise_source(state, groups, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(still["0.weight"], state["0.weight"])


def test_valid_filters_are_copied_onto_invalid_ones():
    state, groups = weak_filters()
    new = internal_source(state, groups)["0.weight"]
    assert torch.equal(new[0], state["0.weight"][1]) and torch.equal(new[1:], state["0.weight"][1:])
    assert torch.equal(internal_source(state, groups, 1e9)["0.weight"], state["0.weight"]), (
        "no valid filter to copy"
    )


def test_refusals():
    states, groups = states_of(2)
    with pytest.raises(SpecError, match="2 or more"):
        graft(states[:1], groups)
    wide = {**states[1], "0.weight": torch.zeros(4, 1, 3, 3)}
    with pytest.raises(SpecError, match=r"'0\.weight' has the shapes \[3, 1, 3, 3\] and \[4,"):
        graft([states[0], wide], groups)
    with pytest.raises(SpecError, match=r"only one of them has 'more'"):
        graft([states[0], {**states[1], "more": torch.zeros(1)}], groups)
    with pytest.raises(SpecError, match="finite"):
        layer_entropy(torch.tensor([1.0, math.nan]))
    with pytest.raises(SpecError, match="at least one"):
        layer_entropy(torch.zeros(0))
    for options in ({"a": -0.1}, {"a": 1.5}, {"a": "much"}, {"c": 0}, {"c": math.inf}):
        with pytest.raises(SpecError, match=f"{next(iter(options))} was given"):
            graft(states, groups, **options)
    for bins in (0, 2.5, True):
        with pytest.raises(SpecError, match="bins"):
            layer_entropy(torch.zeros(3), bins=bins)
