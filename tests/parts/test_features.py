import pytest
import torch
from torch import nn

from whit.errors import WhitError
from whit.parts.features import WithFeatures, features_of, head_path

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def test_features_are_what_the_last_layer_reads():
    model = network()
    scores, features = WithFeatures(model)(X)
    assert head_path(model) == "2"
    assert torch.equal(scores, model(X))
    assert torch.equal(features, model[:2](X))
    assert not features_of(model, X).requires_grad


def test_another_layer_can_be_named_and_images_become_vectors():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 2), nn.Flatten())
    images = torch.randn(2, 1, 4, 4)
    assert features_of(model, images).shape == (2, 8)
    assert torch.equal(features_of(model, images, path="0"), images.flatten(1))


def test_no_hook_stays_when_the_network_fails():
    model = network()
    with pytest.raises(RuntimeError):
        WithFeatures(model)(X[:, :2])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_errors_name_what_is_missing():
    with pytest.raises(WhitError, match="no linear or convolution layer"):
        WithFeatures(nn.ReLU())
    with pytest.raises(WhitError, match="'9', which Sequential does not have"):
        WithFeatures(network(), "9")
    layer = nn.Linear(4, 4)
    with pytest.raises(WhitError, match="called 2 times"):
        WithFeatures(nn.Sequential(layer, nn.ReLU(), layer))(X)
