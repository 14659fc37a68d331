import pytest
import torch
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.filter_statistics import LayerFilters, filter_entropy, invalid_filters
from whit.parts.grafting import layer_entropy
from whit.parts.masks import add_masks, find_masks


def network():
    model = nn.Sequential(nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[0.04, -0.05]], [[0.06, -0.05]], [[0.0, 0.0]]]))
    return model


def test_filters_are_counted_by_their_l1_norm():
    assert invalid_filters(network()) == [LayerFilters("0", 3, 2)]
    assert invalid_filters(network(), 0.05) == [LayerFilters("0", 3, 1)]
    both = invalid_filters(network(), 0.2, "convolution_and_linear")
    assert [(row.layer, row.filters) for row in both] == [("0", 3), ("2", 2)]


def test_the_effective_weight_counts():
    model = network()
    add_masks(model)
    for _, mask in find_masks(model).values():
        mask.mask.zero_()
    assert invalid_filters(model) == [LayerFilters("0", 3, 3)]
    assert filter_entropy(model) == {"0": 0.0}


def test_entropy_of_each_layer():
    model = network()
    assert filter_entropy(model) == {"0": layer_entropy(model[0].weight)}
    linear = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    assert list(filter_entropy(linear)) == ["0", "1"]


def test_refusals():
    with pytest.raises(NoEffect):
        invalid_filters(nn.ReLU())
    for threshold in (0, -1.0, "low", True):
        with pytest.raises(SpecError, match="threshold"):
            invalid_filters(network(), threshold)
