import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.errors import NoEffect, SpecError
from whit.methods.low_bit.binarized_network import binarize
from whit.methods.low_bit.finite_set_weights import finite_set_weights, take_from_set
from whit.packing.packer import pack
from whit.parts.level_counts import level_summary
from whit.parts.levels import VALUE_SETS, latent_limit
from whit.parts.masks import add_masks, latent_weight
from whit.parts.surgery import bake
from whit.procedures.latent_weights import ClipLatentWeights


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 6))


SETS = {**{name: name for name in VALUE_SETS}, "five": 5, "sixteen": 16, "own": [-0.3, 0.1, 4.0]}


@pytest.mark.parametrize("scale", ["none", "layer", None])
@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_every_value_is_of_the_set_and_the_file_takes_its_bits(values, scale):
    model = network().eval()
    take_from_set(model, values, scale=scale)
    numbers = model[0].parametrizations.weight[0].values
    for layer in (model[0], model[3]):
        for row in layer.weight.detach():
            factors = row[:, None] / numbers[numbers != 0]  # a scale that explains the value
            assert row.isfinite().all() and len(row.unique()) <= len(numbers)
            assert factors.isfinite().all()
        assert len(layer.weight.unique()) > 1
    bake(model)
    bits = int(np.ceil(np.log2(len(numbers))))
    assert all(row.bits <= bits for row in level_summary(model))
    packed = pack(model, torch.randn(3, 40))
    for layer in packed.layers:
        # The values, a scale for each row, and a book where the values are on no grid.
        assert layer.after_bytes <= layer.weights * max(bits, 2) / 8 + 4 * 24 + 4 * 64 + 16
    x = torch.randn(50, 40)
    got = packed.program(x.numpy())
    assert np.allclose(got, model(x).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_without_a_scale_the_latent_weights_are_spread_over_the_values():
    model = take_from_set(network(), "ternary", scale="none")
    counts = [(model[0].weight == v).float().mean() for v in (-1, 0, 1)]
    assert all(0.1 < share < 0.8 for share in counts)
    assert latent_limit(model) == 1.0
    assert latent_limit(take_from_set(network(), "powers_of_two", scale="none")) == 4.0
    assert latent_limit(take_from_set(network(), "powers_of_two")) == 1.0


def test_binary_is_the_binarized_networks_weight_bit_for_bit():
    ours, theirs = take_from_set(network(), "binary"), binarize(network(), activations=False)
    for a, b in ((ours[0], theirs[0]), (ours[3], theirs[3])):
        assert torch.equal(a.weight, b.weight)


def test_latent_weights_stay_inside_their_limit():
    model = take_from_set(network(), 5, scale="none")
    clip = ClipLatentWeights(model, limit=latent_limit(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    for _ in range(3):
        model(torch.randn(16, 40)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        clip.after_step()
    for layer in (model[0], model[3]):
        assert latent_weight(layer).abs().max() == 2


def test_ends_may_stay_real():
    task = whit.task("toy_classification")
    total = whit.spec("finite_set_weights(values='binary', first='real', last='real')")
    result = whit.execute(task, total, task.settings.changed(epochs=1))
    bits = [row.bits for row in level_summary(result.model)]
    assert bits[0] > 1 and bits[-1] > 1 and set(bits[1:-1]) == {1}
    with pytest.raises(NoEffect, match="would leave none"):
        whit.execute(
            whit.task("iris(model='mlp2')"), total, task.settings.changed(epochs=1, batch_size=15)
        )


def test_pruned_or_quantised_weights_are_refused_with_the_order():
    model = network()
    add_masks(model)
    with pytest.raises(SpecError, match=r"finite_set_weights\(\) \+ one_cycle_pruning"):
        take_from_set(model)
    with pytest.raises(SpecError, match="quantised already"):
        take_from_set(take_from_set(network()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"values": [1, 0]}, "ascending order"),
        ({"values": [1]}, "one value"),
        ({"scale": "row"}, "scale"),
        ({"rounding": "floor"}, "rounding"),
        ({"values": [0, 0.5], "scale": "channel"}, "no whole numbers"),
        ({"first": "rael"}, "'real'"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(SpecError, match=said):
        finite_set_weights(**options)


def test_it_learns_and_sums_with_pruning():
    task = whit.task("digits")
    quick = task.settings.changed(epochs=12)
    result = whit.execute(task, whit.spec("finite_set_weights()"), quick)
    assert result.scorecard.valid_score > 0.95
    assert result.scorecard.stored_bytes < 12_000
    both = whit.spec("finite_set_weights() + one_cycle_pruning(sparsity=0.8)")
    pruned = whit.execute(task, both, quick)
    assert pruned.scorecard.stored_bytes < result.scorecard.stored_bytes
    for layer in pruned.model.modules():
        if isinstance(layer, nn.Linear):
            assert max(len(row.unique()) for row in layer.weight) <= 3
