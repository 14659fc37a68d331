import math

import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.core.hook import Plan
from whit.core.technique import Technique
from whit.errors import NoEffect, SpecError
from whit.methods.low_bit.binarized_network import (
    BinaryWeight,
    ClipLatentWeights,
    binarize,
    binarized_network,
    binary_layers,
)
from whit.methods.sparse.one_cycle_pruning import OneCyclePruning, one_cycle_pruning
from whit.parts.masks import add_masks, latent_weight
from whit.parts.straight_through import Sign
from whit.tasks.toys import toy_classification, toy_frames


def mlp():
    return nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def convolutions(kind=nn.Conv2d):
    return nn.Sequential(kind(1, 4, 3, padding=1), nn.ReLU(), kind(4, 2, 3, padding=1))


WEIGHT = torch.tensor([[0.5, -1.5, 0.0], [-0.25, -0.0, 0.5]])


@pytest.mark.parametrize(
    ("scale", "factors"),
    [("none", [1.0, 1.0]), ("layer", [2.75 / 6, 2.75 / 6]), ("channel", [2.0 / 3, 0.25])],
)
def test_scales_by_hand(scale, factors):
    signs = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])
    # Scales have 8 significant bits, so that packed sums are exact.
    expected = signs * torch.tensor(factors).bfloat16().float().unsqueeze(1)
    assert torch.equal(BinaryWeight(scale)(WEIGHT), expected)


def test_the_gradient_of_a_scaled_weight_is_that_of_the_unrounded_formula():
    weight = torch.tensor([[0.5, -1.5, 0.75]], requires_grad=True)
    incoming = torch.tensor([[1.0, 2.0, 4.0]])
    BinaryWeight("channel")(weight).backward(incoming)
    # d(m * b_j)/dw_i = m_rounded * 1[i = j] + b_j * b_i / n, with m = mean |w|
    m, b = torch.tensor(2.75 / 3).bfloat16().float(), torch.tensor([[1.0, -1.0, 1.0]])
    assert torch.allclose(weight.grad, m * incoming + (incoming * b).sum() * b / 3)


def test_the_channel_scale_of_a_convolution_is_per_output_channel():
    weight = torch.randn(4, 3, 2, 2)
    made = BinaryWeight("channel")(weight)
    for channel in range(4):
        mean = weight[channel].abs().mean().bfloat16().float()
        assert torch.equal(made[channel].abs(), mean.expand(3, 2, 2))


def test_the_gradient_of_an_unscaled_weight_passes_straight():
    weight = torch.tensor([-3.0, -0.5, 0.0, 2.0], requires_grad=True)
    BinaryWeight("none")(weight).backward(torch.arange(1.0, 5.0))
    assert weight.grad.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("scale", ["none", "layer", "channel"])
def test_binarised_weights_have_two_levels_and_no_zero(scale):
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = 0.0
    binarize(model, scale=scale)
    for layer in binary_layers(model):
        rows = (
            layer.weight.detach() if scale == "channel" else layer.weight.detach().flatten()[None]
        )
        assert not (rows == 0).any()
        assert all(len(row.abs().unique()) == 1 for row in rows)
    assert len(binary_layers(model)) == 3
    assert sum(isinstance(m, Sign) for m in model) == 2
    assert not any(isinstance(m, nn.ReLU) for m in model)


def test_options_of_binarize():
    assert len(binary_layers(binarize(mlp(), skip=["0"]))) == 2
    assert binary_layers(binarize(mlp(), weights=False)) == []
    assert any(isinstance(m, nn.ReLU) for m in binarize(mlp(), activations=False))
    assert [m.window for m in binarize(mlp(), window=0.5) if isinstance(m, Sign)] == [0.5, 0.5]


@pytest.mark.parametrize(("padding", "value"), [("minus_one", -1.0), ("plus_one", 1.0)])
def test_padding_changes_the_border_only(padding, value):
    torch.manual_seed(0)
    zero = binarize(convolutions(), padding="zero").eval()
    padded = binarize(convolutions(), padding=padding).eval()
    padded[0].load_state_dict(zero[0].state_dict())
    padded[2].conv.load_state_dict(zero[2].state_dict())
    x = torch.randn(2, 1, 7, 7)
    assert padded(x).shape == zero(x).shape == (2, 2, 7, 7)
    assert torch.equal(padded(x)[..., 1:-1, 1:-1], zero(x)[..., 1:-1, 1:-1])
    assert not torch.equal(padded(x), zero(x))
    assert padded[0].padding == (1, 1), "the first input is real and keeps its zeros"
    seen = []
    padded[2].conv.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    padded(x)
    assert seen[0].shape[-2:] == (9, 9) and set(seen[0].unique().tolist()) == {-1.0, 1.0}
    assert (seen[0][..., 0, :] == value).all() and (seen[0][..., :, -1] == value).all()


def test_unequal_padding_goes_to_the_right_sides():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, (1, 3), padding=(0, 1)))
    x = torch.randn(1, 1, 4, 5)
    assert binarize(model)(x).shape == (1, 2, 4, 5)
    assert model[2].pad.padding == (1, 1, 0, 0)


def test_one_dimensional_convolutions_get_binary_padding_too():
    model = binarize(convolutions(nn.Conv1d))
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            module.register_forward_pre_hook(lambda m, x: seen.append((m.padding, x[0])))
    model(torch.randn(1, 1, 5))
    padding, taken = seen[-1]
    assert padding == (0,), "zeros between -1 and +1 are not binary"
    assert set(taken.unique().tolist()) == {-1.0, 1.0}


def own_loop(model, optimizer, after=lambda: None, steps=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator)
    y = torch.randint(0, 3, (32,), generator=generator)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        after()


def test_an_optimiser_made_before_trains_the_latent_weights():
    model = mlp()
    parameters = [model[0].weight, model[3].weight, model[6].weight]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    binarize(model)
    pruning = OneCyclePruning(model, 5, sparsity=0.5)
    before = [p.detach().clone() for p in parameters]
    own_loop(model, optimizer, pruning.after_step)
    for layer, parameter, old in zip(
        (model[0], model[3], model[6]), parameters, before, strict=True
    ):
        assert latent_weight(layer) is parameter
        assert not torch.equal(parameter, old)
    levels = [sorted({round(v, 6) for v in row.tolist()}) for row in model[0].weight.detach()]
    assert all(len({abs(v) for v in row} - {0.0}) <= 1 for row in levels)


def test_latent_weights_stay_within_one():
    model = binarize(mlp())
    clip = ClipLatentWeights(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    largest = []
    own_loop(model, optimizer, lambda: (largest.append(_largest(model)), clip.after_step()))
    assert max(largest) > 1, "the example would leave the interval"
    assert _largest(model) <= 1


def _largest(model):
    return max(float(latent_weight(layer).detach().abs().max()) for layer in binary_layers(model))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_latent_weights_are_not_decayed(kind):
    model = binarize(mlp(), skip=["6"])
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.3)
    ClipLatentWeights(model, Plan(10, 10, optimizer, torch.device("cpu"), torch.Generator()))
    decay = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    latent = {latent_weight(layer) for layer in binary_layers(model)}
    assert len(decay) == len(list(model.parameters())), "each parameter is in one group"
    assert {decay[p] for p in latent} == {0.0}
    assert {decay[p] for p in model.parameters() if p not in latent} == {0.3}


def test_the_sum_with_pruning_gives_ternary_weights():
    task = toy_classification()
    technique = binarized_network(scale="layer") + one_cycle_pruning(sparsity=0.5)
    model = train(task, technique, task.settings.changed(epochs=2), Conditions()).model
    linears = [m for m in model if isinstance(m, nn.Linear)]
    for layer in linears:
        levels = layer.weight.unique()
        assert len(levels) == 3 and levels[1] == 0 and levels[0] == -levels[2]
    zeros = sum(int((layer.weight == 0).sum()) for layer in linears)
    assert zeros == round(0.5 * sum(layer.weight.numel() for layer in linears))
    assert not any("parametrizations" in key for key in model.state_dict())


def test_binarising_after_masks_is_refused():
    model = mlp()
    add_masks(model)
    with pytest.raises(SpecError, match="after a pruning technique"):
        binarize(model)
    task = toy_classification()
    with pytest.raises(SpecError, match="first"):
        train(task, one_cycle_pruning() + binarized_network(), task.settings, Conditions())
    with pytest.raises(SpecError, match="already"):
        binarize(binarize(mlp()), activations=False)


def test_models_with_nothing_to_change():
    with pytest.raises(NoEffect, match="no linear or convolution"):
        binarize(nn.Sequential(nn.ReLU()))
    with pytest.raises(NoEffect, match="no activation module.*example=x"):
        binarize(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(NoEffect, match="calls none of relu"):
        binarize(nn.Sequential(nn.Linear(2, 2)), example=torch.ones(1, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "chanel"}, "'channel'"),
        ({"padding": "minus"}, "'minus_one'"),
        ({"window": 0}, "window"),
        ({"window": "wide"}, "window"),
        ({"first": "binry"}, "'binary'"),
        ({"last": None}, "last"),
        ({"weights": False, "activations": False}, "nothing"),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        binarized_network(**options)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, []), ({"first": "real"}, [0]), ({"last": "real"}, [-1]),
     ({"first": "real", "last": "real"}, [0, -1])],
    ids=str,
)  # fmt: skip
def test_first_and_last_layer_rules(options, kept):
    task = toy_classification()
    data = task.load()
    model = binarized_network(**options).prepare_model(task.build(data), data)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    real = [layer for layer in layers if layer not in binary_layers(model)]
    assert real == [layers[k] for k in kept]


def test_real_first_and_last_of_two_layers_leave_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(NoEffect, match="2 layers"):
        binarized_network(first="real", last="real").prepare_model(model, None)


def test_it_learns_and_the_result_is_binary():
    task = toy_classification()
    result = execute(task, binarized_network(), seed=1)
    for layer in result.model.modules():
        if isinstance(layer, nn.Linear):
            assert all(len(row.abs().unique()) == 1 and row[0] != 0 for row in layer.weight)
    chance = 1 / len(task.load().class_names)
    assert result.scorecard.as_dict()["valid_accuracy"] > chance + 0.3


def test_it_beats_binarising_a_trained_network():
    task = toy_classification()
    trained = train(task, binarized_network(), task.settings, Conditions())
    after = Technique(finish_model=lambda model, data: binarize(model))
    posthoc = train(task, after, task.settings, Conditions())
    assert trained.run.evaluate(trained.model) > posthoc.run.evaluate(posthoc.model) + 0.1


def test_convolutions_train_too():
    task = toy_frames()
    trained = train(task, binarized_network(), task.settings.changed(epochs=2), Conditions())
    assert math.isfinite(trained.run.evaluate(trained.model))
    assert trained.model(torch.zeros(3, 4, 8, 8)).shape == (3, 1, 8, 8)
