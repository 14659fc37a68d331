import pytest
import torch
from torch import nn

from whit.core.health import Health
from whit.methods.low_bit.binarized_network import binarize
from whit.parts.group import Group
from whit.parts.masks import add_masks, latent_weight


def seen(model, inputs, losses=(1.0,)):
    health = Health(model.eval())
    with torch.no_grad(), health.watching():
        for part in inputs.split(20):
            model(part)
    assert not any(m._forward_hooks for m in model.modules())
    return health.after_epoch(list(losses))


def half_dead(dead, units=8, kind=nn.ReLU):
    """The first `dead` units get a bias that no input overcomes."""
    model = nn.Sequential(nn.Linear(3, units), kind(), nn.Linear(units, 2))
    with torch.no_grad():
        model[0].bias[:dead] = -1000.0
        model[0].bias[dead:] = 0.0
    return model


INPUTS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid])
def test_dead_units_are_counted_exactly_above_the_threshold(kind):
    assert seen(half_dead(4, kind=kind), INPUTS) == []
    (sentence,) = seen(half_dead(5, kind=kind), INPUTS)
    assert sentence.startswith("5 of 8 units of '1' give every validation sample the same value")


def test_a_unit_that_lives_for_one_sample_of_another_batch_is_alive():
    model = half_dead(5)
    with torch.no_grad():
        model[0].weight[1:5] = 0.0
    assert seen(model, INPUTS)[0].startswith("5 of 8")
    inputs = INPUTS.clone()
    inputs[41] = 1e6 * torch.sign(model[0].weight[0].detach())
    assert seen(model, inputs) == [], "four of eight are dead now"


def test_channels_of_images_are_units():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].bias[:3] = -1000.0
    (sentence,) = seen(model, torch.randn(20, 1, 4, 4))
    assert sentence.startswith("3 of 4 units of '1'")


def test_features_of_sequences_are_units_and_channels_of_one_axis_convolutions():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:3] = -1000.0
    assert seen(model, torch.randn(20, 7, 3))[0].startswith("3 of 4 units")
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:3] = -1000.0
    assert seen(model, torch.randn(20, 3, 7))[0].startswith("3 of 4 units")


def test_few_samples_say_nothing_about_units():
    assert seen(half_dead(8), INPUTS[:15]) == []
    assert seen(half_dead(8), INPUTS[:16]) != []


def test_a_pass_that_broke_off_says_nothing():
    model = half_dead(8)
    health = Health(model)
    with pytest.raises(RuntimeError), health.watching():
        model(INPUTS)
        model(INPUTS[:, :2])
    assert health.after_epoch([1.0]) == []
    assert not any(m._forward_hooks for m in model.modules())


def test_the_worst_three_layers_are_named():
    (sentence,) = seen(Group([half_dead(k) for k in (5, 8, 6, 7, 0)]), INPUTS)
    assert sentence.startswith(
        "8 of 8 units of 'members.1.1', 7 of 8 units of 'members.3.1', 6 of 8 units of "
        "'members.2.1' and of 1 more layer give every"
    )


def test_a_batched_group_is_left_alone():
    assert seen(Group([half_dead(8), half_dead(8)], way="batched"), INPUTS) == []
    assert seen(Group([half_dead(8), half_dead(8)]), INPUTS) != []


def test_saturated_latent_weights_are_counted():
    model = binarize(nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10)))
    weight = latent_weight(model[2]).data.reshape(-1)
    weight.clamp_(-0.5, 0.5)
    weight[:90] = 1.0
    assert not [s for s in seen(model, torch.randn(50, 10)) if "latent" in s]
    weight[90] = -1.0
    (sentence,) = [s for s in seen(model, torch.randn(50, 10)) if "latent" in s]
    assert sentence.startswith("91 of 100 latent weights of '2' stand at their bound of 1")
    weight[91] = 1.5  # no clipping, no bound
    assert not [s for s in seen(model, torch.randn(50, 10)) if "latent" in s]


def test_plain_and_masked_weights_have_no_bound():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    add_masks(model, skip=["0"])
    for layer in model:
        latent_weight(layer).data.fill_(2.0)
    assert seen(model, INPUTS) == []


def test_an_exploding_gradient_names_the_weight():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    health = Health(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.1)
    assert health.after_epoch([1.0]) == []
    model[1].weight.grad.fill_(1e3)
    assert health.after_epoch([1.0, 0.9]) == [], "the loss still falls"
    (sentence,) = health.after_epoch([1.0, 0.9, 0.95])
    assert "grew from 0.346 after the first epoch to 2e+03, 100% of its square in '1.weight'" in (
        sentence
    )


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, 0.3, 0.59], False),
        ([1.0, 0.3, 0.61], True),
        ([1.0, 0.01, 0.4], False),
        ([1.0], False),
        ([-1.0, -3.0, 2.0], False),
    ],
)
def test_a_rising_loss_is_said(losses, said):
    found = Health(nn.Linear(1, 1)).after_epoch(losses)
    assert bool(found) == said
    if said:
        assert found == [
            "The training loss rose to 0.61 from 0.3 in epoch 2: try a smaller learning rate."
        ]


def test_each_kind_is_said_once_even_after_a_resume():
    health = Health(nn.Linear(1, 1))
    assert len(health.after_epoch([1.0, 0.1, 2.0])) == 1
    assert health.after_epoch([1.0, 0.1, 2.0, 3.0]) == []
    resumed = Health(nn.Linear(1, 1))
    resumed.load_state_dict(health.state_dict())
    assert resumed.after_epoch([1.0, 0.1, 2.0, 3.0, 4.0]) == []
