import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.errors import NoEffect, SpecError
from whit.methods.low_bit.precision_batching import bit_layers
from whit.methods.low_bit.weight_sharing import cluster, share_weights, weight_sharing
from whit.packing.packer import pack
from whit.parts.levels import nearest_level
from whit.parts.surgery import bake


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cost(points, centroids):
    return float((points[:, None] - centroids).square().min(1).values.sum())


def best_clusters(points, k):
    """Exact one-dimensional k-means by dynamic programming over the sorted points."""
    x = np.sort(points.numpy().astype(np.float64))
    n = len(x)
    sums, squares = np.concatenate([[0], x.cumsum()]), np.concatenate([[0], (x**2).cumsum()])

    def inside(i, j):
        return squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / (j - i)

    best = [inside(0, j) if j else 0.0 for j in range(n + 1)]
    for _ in range(k - 1):
        best = [0.0] + [min(best[i] + inside(i, j) for i in range(j)) for j in range(1, n + 1)]
    return best[n]


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_clusters_are_a_fixed_point_near_the_exact_optimum(start):
    points = torch.randn(150, generator=generator(3))
    optimum = best_clusters(points, 5)
    found = cluster(points, 5, start, generator(1))
    place = nearest_level(points, found)
    means = torch.stack([points[place == j].mean() for j in range(len(found))])
    assert torch.allclose(means, found, atol=1e-6) and torch.equal(found, found.sort().values)
    assert optimum - 1e-6 <= cost(points, found) <= 1.3 * optimum


def test_few_values_are_shared_exactly():
    points = torch.tensor([0.5, -1.0, 0.5, 2.0, -1.0])
    assert cluster(points, 3).tolist() == [-1.0, 0.5, 2.0]
    assert cluster(points, 8).tolist() == [-1.0, 0.5, 2.0]


@pytest.mark.parametrize("start", ["linear", "density", "random"])
@pytest.mark.parametrize("largest", [0.5, 5.0, 500.0])
def test_every_centroid_is_used_whatever_the_outliers(start, largest):
    points = torch.cat([torch.randn(3000, generator=generator()) * 0.05, torch.tensor([largest])])
    found = cluster(points, 16, start, generator())
    assert len(found) == 16
    quiet = cost(points[:-1], cluster(points[:-1], 15, "density"))
    assert cost(points, found) <= 1.5 * quiet


def test_ties_do_not_cost_centroids():
    points = torch.cat([torch.ones(900), torch.arange(100.0)])
    for start in ("linear", "density", "random"):
        assert len(cluster(points, 8, start, generator())) == 8


@pytest.mark.parametrize(
    ("weights", "k", "start", "said"),
    [
        (torch.ones(3), 1, "linear", "k was given 1"),
        (torch.ones(3), 2, "foo", "start"),
        (torch.tensor([1.0, float("nan")]), 2, "linear", "NaN"),
    ],
)
def test_what_cannot_be_clustered_is_refused(weights, k, start, said):
    with pytest.raises(SpecError, match=said):
        cluster(weights, k, start)


def test_low_bit_layers_with_short_rows_are_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 30))
    ternary = torch.randint(-1, 2, (10, 4)) * torch.linspace(0.1, 1, 10)[:, None]
    model[0].weight.data = ternary.clone()
    share_weights(model, 4)
    assert torch.equal(model[0].weight, ternary) and len(model[1].weight.unique()) == 16
    model[1].parametrizations.weight[0].book.data[0] = float("nan")
    with pytest.raises(SpecError, match="layer '1'"):
        share_weights(model, 2)


def test_two_techniques_that_choose_values_are_refused():
    for pair in (
        "weight_sharing() + precision_batching()",
        "precision_batching() + weight_sharing()",
        "weight_sharing() + ternary_network()",
    ):
        with pytest.raises(SpecError, match="both choose the values"):
            whit.spec(pair)


@pytest.mark.parametrize(
    ("pair", "count"),
    [
        ("binarized_network() + weight_sharing()", 2),
        ("weight_sharing(bits=1) + binarized_network()", 2),
        ("insta_bnn() + weight_sharing()", 2),
        ("finite_set_weights(values=17) + weight_sharing(bits=4)", 16),
        ("binarized_network() + precision_batching()", 2),
        ("precision_batching() + finite_set_weights()", 2),
    ],
)
def test_what_would_change_nothing_is_refused_before_the_training(pair, count):
    with pytest.raises(SpecError, match=f"would change nothing.* at most {count} values"):
        whit.spec(pair)


@pytest.mark.parametrize(
    "pair",
    [
        "binarized_network(last='real') + weight_sharing()",
        "binarized_network(weights=False) + precision_batching()",
        "binarized_network(scale='real_to_binary') + precision_batching()",
        "finite_set_weights(values=17) + weight_sharing(bits=3)",
        "finite_set_weights(values=5) + precision_batching()",
        "insta_bnn(plus=True) + weight_sharing()",
    ],
)
def test_what_may_change_something_is_no_sum_to_refuse(pair):
    assert whit.spec(pair).brief == pair


def test_shared_values_get_the_summed_gradient_and_zeros_stay():
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))
    model[0].weight.data[::2] = 0.0
    before = model[0].weight.detach().clone()
    share_weights(model, 2)
    weight = model[0].weight
    assert torch.equal(weight.detach() == 0, before == 0)
    assert len(weight.detach().unique()) == 5  # four shared values and zero
    model(torch.randn(8, 30, generator=generator())).square().sum().backward()
    shared = model[0].parametrizations.weight[0]
    place = shared.place
    # The same gradient by autograd through c[q], written out.
    book = shared.book.detach().clone().requires_grad_()
    again = torch.where(place < 0, 0.0, book[place.clamp_min(0)])
    x = torch.randn(8, 30, generator=generator())
    hidden = torch.relu(nn.functional.linear(x, again, model[0].bias.detach()))
    last = nn.functional.linear(hidden, model[2].weight.detach(), model[2].bias.detach())
    last.square().sum().backward()
    assert torch.allclose(shared.book.grad, book.grad, rtol=1e-5)


def test_convolutions_may_take_more_bits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    bake(share_weights(model, 2, conv_bits=5))
    assert len(model[0].weight.unique()) == 32 and len(model[2].weight.unique()) == 4


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_file_holds_the_book_and_the_places(bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
    with torch.no_grad():
        model[1].running_var.uniform_(0.5, 2)
    bake(share_weights(model.eval(), bits))
    x = torch.randn(6, 64)
    packed = pack(model, x)
    assert [layer.format for layer in packed.layers] == [f"codebook{bits}"] * 2
    for layer in packed.layers:
        book = 4 * 2**bits
        assert layer.after_bytes <= layer.weights * bits / 8 + book + 8
        assert layer.huffman_bytes <= layer.weights * bits / 8 + 2 * book + 64
    assert np.allclose(packed.program(x.numpy()), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_is_folded_where_that_loses_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU()).eval()
    model[1].running_var.uniform_(0.5, 2)
    kinds = [step.operator.kind for step in pack(model, torch.randn(2, 64)).program.steps]
    assert kinds == ["linear", "relu"]
    bake(share_weights(model, 4))
    kinds = [step.operator.kind for step in pack(model, torch.randn(2, 64)).program.steps]
    assert kinds == ["linear", "affine", "relu"]


def test_what_has_few_values_is_no_effect():
    model = nn.Sequential(nn.Linear(64, 10))
    scales = torch.linspace(0.1, 1, 10)[:, None]
    model[0].weight.data = model[0].weight.data.sign() * scales
    with pytest.raises(NoEffect, match="binary or ternary already, and no number of bits"):
        share_weights(model, 2)
    levels = torch.randint(3, (10, 64)) - 1.0
    model[0].weight.data = (levels + 2) * scales
    with pytest.raises(NoEffect, match="no layer takes more than 4 .* Use fewer bits"):
        share_weights(model, 2)
    with pytest.raises(SpecError, match="bit layers of precision_batching"):
        share_weights(bit_layers(nn.Sequential(nn.Linear(9, 9)), 4), 2)


def test_what_pruning_left_is_clustered_and_what_is_shared_is_frozen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 30), nn.Linear(30, 40), nn.Linear(40, 10))
    model[0].weight.data *= torch.rand(30, 64) < 0.04  # two or three weights a row
    model[1].weight.data = model[1].weight.data.sign() * torch.linspace(0.1, 1, 40)[:, None]
    zeros = model[0].weight == 0
    share_weights(model, 2)
    assert not model[1].weight.requires_grad
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(5, 64)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight == 0, zeros)
    assert len(model[0].weight.unique()) == 5 and len(model[1].weight[0].unique()) == 2


def test_short_rows_are_shared_over_the_layer():
    torch.manual_seed(0)
    model = share_weights(nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 3)), 3)
    assert len(model[0].weight.unique()) == 8 and len(model[1].weight.unique()) == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 9}, "1 to 8"),
        ({"bits": 0}, "1 to 8"),
        ({"conv_bits": 2.5}, "conv_bits"),
        ({"start": "linaer"}, "'linear'"),
        ({"epochs": -1}, "epochs"),
        ({"learning_rate": 0}, "learning_rate"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(SpecError, match=said):
        weight_sharing(**options)


def test_pruned_then_shared_then_coded():
    task = whit.task("digits")
    quick = task.settings.changed(epochs=8)
    total = whit.spec("one_cycle_pruning(sparsity=0.8) + weight_sharing(bits=3)")
    result = whit.execute(task, total, quick)
    plain = whit.execute(task, whit.spec("plain()"), quick)
    assert all("codebook" in layer.format for layer in result.packed.layers)
    assert result.scorecard.stored_bytes < plain.scorecard.stored_bytes / 10
    assert result.scorecard.valid_score > 0.9
    assert result.scorecard.nonzero_params < 0.35 * plain.scorecard.nonzero_params
    assert len(result.history) == 2 and result.history[1]["epochs"] == 2


def test_without_epochs_the_centroids_stay_those_of_k_means():
    task = whit.task("toy_classification")
    quick = task.settings.changed(epochs=1)
    result = whit.execute(task, whit.spec("weight_sharing(bits=2, epochs=0)"), quick)
    assert len(result.history) == 1
    for layer in result.model.modules():
        if isinstance(layer, nn.Linear):
            assert len(layer.weight.unique()) <= 4
