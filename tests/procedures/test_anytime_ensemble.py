import pytest
import torch
from torch import nn

from whit.errors import SpecError, WhitError
from whit.parts.combine_members import Combine
from whit.parts.group import Group
from whit.parts.level_draws import RandomCoin, draw_network
from whit.parts.levels import Levels, add_levels
from whit.procedures.anytime_ensemble import AnytimeEnsemble, changed_sums


def latent(first):
    torch.manual_seed(0)
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    shape = (2, 6) if isinstance(first, nn.Linear) else (2, 4, *[7] * len(first.kernel_size))
    model(torch.zeros(shape))
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.uniform_(-0.9, 0.9)
            add_levels(layer, Levels("binary"))
    return model.eval(), torch.randint(-3, 4, (20, *shape[1:])).float()


def member_of(model):
    def make(number):
        return draw_network(model, RandomCoin(torch.Generator().manual_seed(number)))

    return make


FIRST = {
    "linear": lambda: nn.Linear(6, 8),
    "convolution": lambda: nn.Conv2d(4, 5, 3, padding=1),
    "one dimension": lambda: nn.Conv1d(4, 5, 3, bias=False),
}


@pytest.mark.parametrize("output", ["logits", "softmax", "vote"])
def test_the_running_average_is_that_of_the_group(output):
    model, x = latent(nn.Linear(6, 8))
    make = member_of(model)
    ensemble = AnytimeEnsemble(make, output)
    ensemble.start(x)
    for count in (1, 2, 3):
        average = ensemble.add_member()
        group = Group([make(number) for number in range(count)])
        assert torch.allclose(average, Combine(output)(group(x)), atol=1e-6)
    assert torch.equal(ensemble.stop(), average)


@pytest.mark.parametrize("first", FIRST)
def test_reuse_is_exact_with_whole_numbers(first):
    model, x = latent(FIRST[first]())
    with torch.no_grad():
        if model[0].bias is not None:
            model[0].bias.copy_(torch.randint(-3, 4, model[0].bias.shape))
    full, reusing = AnytimeEnsemble(member_of(model)), AnytimeEnsemble(member_of(model), reuse="0")
    full.start(x)
    reusing.start(x)
    for _ in range(5):
        assert torch.equal(full.add_member(), reusing.add_member())
    weight = model[0].parametrizations.weight.original.detach()
    expected = float((1 - weight.square()).mean() / 2)  # both draws differ
    assert len(reusing.flipped) == 4
    assert sum(reusing.flipped) / 4 == pytest.approx(expected, abs=0.1)
    for member in reusing._made:
        assert "forward" not in vars(member[0]), "layers are as they were"


def test_changed_sums_of_a_linear_layer_use_changed_weights_only():
    layer = nn.Linear(5, 4)
    change = torch.zeros(4, 5)
    change[1, 2], change[3, 0] = 2.0, -2.0
    x = torch.randint(-3, 4, (6, 2, 5)).float()
    expected = torch.zeros(6, 2, 4)
    expected[..., 1], expected[..., 3] = 2 * x[..., 2], -2 * x[..., 0]
    assert torch.equal(changed_sums(layer, x, change), expected)


@pytest.mark.parametrize("reuse", [None, "0"])
def test_sure_samples_stop_early(reuse):
    model, x = latent(nn.Linear(6, 8))
    ensemble = AnytimeEnsemble(member_of(model), "softmax", reuse)
    everything = ensemble.predict(x, members=12)
    assert everything.used.tolist() == [12] * 20
    answer = ensemble.predict(x, members=12, margin=0.6)
    assert 1 <= int(answer.used.min()) < int(answer.used.max()) == 12
    make = member_of(model)
    for row in range(20):  # each sample alone, by the definition
        scores, used = 0.0, 0
        while used < 12:
            scores = scores + make(used)(x[row : row + 1]).softmax(-1)
            used += 1
            top = (scores / used).topk(2).values[0]
            if top[0] - top[1] >= 0.6:
                break
        assert int(answer.used[row]) == used
        assert torch.allclose(answer.output[row], (scores / used)[0], atol=1e-5)


def test_a_tiny_margin_stops_all_after_one():
    model, x = latent(nn.Linear(6, 8))
    answer = AnytimeEnsemble(member_of(model)).predict(x, members=9, margin=1e-9)
    assert answer.used.tolist() == [1] * 20


def test_calls_in_the_wrong_order():
    model, x = latent(nn.Linear(6, 8))
    ensemble = AnytimeEnsemble(member_of(model))
    with pytest.raises(WhitError, match="start"):
        ensemble.add_member()
    with pytest.raises(WhitError, match="No member"):
        ensemble.stop()
    ensemble.start(x)
    ensemble.add_member()
    ensemble.stop()
    with pytest.raises(WhitError, match="start"):
        ensemble.add_member()
    with pytest.raises(SpecError, match="members"):
        ensemble.predict(x, members=0)
    with pytest.raises(SpecError, match="margin"):
        ensemble.predict(x, margin=-1.0)
    with pytest.raises(WhitError, match="ReLU"):
        AnytimeEnsemble(member_of(model), reuse="1").predict(x)
    with pytest.raises(WhitError, match="no such layer.*: '0', '3'"):
        AnytimeEnsemble(member_of(model), reuse="first").predict(x)


def test_a_layer_behind_drawn_weights_cannot_be_reused():
    model, x = latent(nn.Linear(6, 8))
    ensemble = AnytimeEnsemble(member_of(model), reuse="3")
    with pytest.raises(WhitError, match="drawn weights lie before it"):
        ensemble.predict(x, members=4)
    assert all("forward" not in vars(member[3]) for member in ensemble._made)


def test_samples_that_are_no_number_are_never_decided():
    model, x = latent(nn.Linear(6, 8))
    x[3] = torch.nan
    answer = AnytimeEnsemble(member_of(model)).predict(x, members=4, margin=1e-6)
    assert answer.used[3] == 4 and answer.output[3].isnan().all()
    assert answer.used.min() == 1
