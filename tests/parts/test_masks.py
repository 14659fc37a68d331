import pytest
import torch
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.masks import (
    Mask,
    add_masks,
    find_mask,
    find_masks,
    latent_weight,
    lowest_units,
    realised_sparsity,
    unit_scores,
)


def masks_of(**shapes):
    return {name: Mask(torch.zeros(shape)) for name, shape in shapes.items()}


def test_the_lowest_scores_of_the_pool_go_first():
    masks = masks_of(a=(2, 2), b=(1, 4))
    scores = {
        "a": torch.tensor([[1.0, 8.0], [2.0, 7.0]]),
        "b": torch.tensor([[3.0, 4.0, 5.0, 6.0]]),
    }
    moved = lowest_units(scores, masks, 0.5, "global", 1)
    assert moved["a"].tolist() == [[0, 1], [0, 1]]
    assert moved["b"].tolist() == [[0, 0, 1, 1]]


def test_scope_layer_prunes_each_layer_alike():
    masks = masks_of(a=(1, 4), b=(1, 4))
    scores = {"a": torch.arange(4.0).reshape(1, 4) * 100, "b": torch.arange(4.0).reshape(1, 4)}
    moved = lowest_units(scores, masks, 0.5, "layer", 1)
    assert moved["a"].tolist() == moved["b"].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.013, 0.3, 0.5, 0.777, 0.9])
def test_the_number_of_pruned_elements_is_exact_even_with_ties(scope, sparsity):
    masks = masks_of(a=(17, 13))
    moved = lowest_units({"a": torch.ones(17, 13)}, masks, sparsity, scope, 1)
    assert int((moved["a"] == 0).sum()) == round(sparsity * 17 * 13)


def test_pruned_units_stay_pruned_whatever_their_score():
    masks = masks_of(a=(1, 4))
    masks["a"].mask.copy_(torch.tensor([[0.0, 1.0, 1.0, 1.0]]))
    moved = lowest_units({"a": torch.tensor([[99.0, 1.0, 2.0, 3.0]])}, masks, 0.5, "global", 1)
    assert moved["a"].tolist() == [[0, 0, 1, 1]]


def test_filters_are_pruned_whole_while_they_fit():
    masks = masks_of(a=(3, 2, 1, 1), b=(2, 5))
    scores = {"a": torch.tensor([1.0, 9.0, 3.0]), "b": torch.tensor([2.0, 8.0])}
    # 16 weights: 7 are the filters 0 of a (2) and of b (5); one more of a's does not fit in 8.
    moved = lowest_units(scores, masks, 0.5, "global", 1)
    assert moved["a"].flatten(1).tolist() == [[0, 0], [1, 1], [1, 1]]
    assert moved["b"].tolist() == [[0] * 5, [1] * 5]


@pytest.mark.parametrize("min_keep", [1, 2])
@pytest.mark.parametrize("granularity", ["element", "filter"])
def test_min_keep_spares_the_best_of_each_layer(min_keep, granularity):
    masks = masks_of(a=(4, 3), b=(4, 3))
    a = torch.arange(12.0).reshape(4, 3)
    scores = {"a": unit_scores(a, granularity), "b": unit_scores(a + 100, granularity)}
    moved = lowest_units(scores, masks, 0.99, "global", min_keep)
    weights = 1 if granularity == "element" else 3
    for mask in moved.values():
        kept = mask.flatten().nonzero().flatten()
        assert kept.tolist() == list(range(12 - min_keep * weights, 12))


def test_unit_scores_average_over_a_filter():
    scores = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert unit_scores(scores, "filter").tolist() == [2.0, 6.0]
    assert unit_scores(scores, "element") is scores


def test_a_mask_multiplies_the_effective_weight_and_keeps_the_parameter():
    layer = nn.Linear(3, 2)
    before = layer.weight
    masks = add_masks(nn.Sequential(layer))
    assert list(masks) == ["0"] and masks["0"][1] is find_mask(layer)
    assert latent_weight(layer) is before, "the optimiser must find the same parameter"
    find_mask(layer).mask[0, 1] = 0
    assert layer.weight[0, 1] == 0 and before[0, 1] != 0
    assert realised_sparsity(layer) == pytest.approx(1 / 6)


def test_gradients_of_pruned_weights_are_zero():
    layer = nn.Linear(2, 1, bias=False)
    add_masks(nn.Sequential(layer))
    find_mask(layer).mask[0, 0] = 0
    layer(torch.ones(1, 2)).sum().backward()
    assert latent_weight(layer).grad.tolist() == [[0.0, 1.0]]


def test_masks_are_found_and_not_put_twice():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Conv1d(1, 1, 1))
    add_masks(model, skip=["2"])
    assert list(find_masks(model)) == ["0"]
    with pytest.raises(SpecError, match="pruned by an earlier"):
        add_masks(model)
    assert find_mask(model[1]) is None


def test_nothing_to_mask():
    with pytest.raises(NoEffect):
        add_masks(nn.Sequential(nn.ReLU()))


def test_unmasked_models_have_no_sparsity():
    assert realised_sparsity(nn.Linear(2, 2)) == 0
