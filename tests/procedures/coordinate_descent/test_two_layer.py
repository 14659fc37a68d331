import pytest
import torch
from torch import nn
from two_layer_cases import block_of, fresh_loss, inputs_of, network_of, target_of

from whit.errors import NotApplicable, SpecError
from whit.parts.normalise import Normalise
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.stages import split_stages
from whit.procedures.coordinate_descent.two_layer import TwoLayer


def model_of(*middle, bias=True):
    front = (Normalise(1.0, 2.0), nn.Flatten())
    return nn.Sequential(*front, nn.Linear(8, 6, bias), *middle, nn.Linear(6, 3, bias))


def discrete(model, **options):
    return DiscreteNetwork.from_model(model, **options)


@pytest.mark.parametrize("options", [{}, {"values": 5}, {"biases": "keep"}])
@pytest.mark.parametrize("start", ["random", "from_model"])
def test_a_network_goes_in_and_comes_back(options, start):
    torch.manual_seed(0)
    network = discrete(model_of(nn.ReLU()), start=start, **options)
    network.write_back()
    two_layer = TwoLayer.from_network(network, dtype=torch.float64)
    front, activation = split_stages(network)
    inputs, target = torch.randn(30, 2, 4), torch.randint(0, 3, (30,))
    columns = nn.Sequential(*front)(inputs).double()
    two_layer.load([(block_of(columns, two_layer.first.bias), target)], group=4)
    logits = network.model.double()(inputs.double())
    expected = nn.functional.cross_entropy(logits, target).item()
    assert two_layer.loss() == pytest.approx(expected, rel=1e-6)
    two_layer.first.index[0, 0] = 2
    two_layer.second.index[1, -1] = 0
    two_layer.second.scale *= 1.5
    two_layer.write_to(network)
    logits = network.model(inputs.double())
    expected = nn.functional.cross_entropy(logits, target).item()
    two_layer.load([(block_of(columns, two_layer.first.bias), target)])
    assert two_layer.loss() == pytest.approx(expected, rel=1e-6)
    first = network.layers[0].weight()
    assert float(first[0, 0]) == float(network.layers[0].row_scales()[0]) * float(
        network.layers[0].values[2]
    )


def test_activations_in_place_do_not_destroy_the_pre_activations():
    for activation in (nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)):
        network = discrete(model_of(activation))
        two_layer = TwoLayer.from_network(network)
        inputs = torch.randn(30, 8)
        two_layer.load([(block_of(inputs, True), torch.randint(0, 3, (30,)))])
        assert float(two_layer.rows[0].pre[0].min()) < 0
        x = torch.randn(4, 6)
        before = x.clone()
        assert torch.equal(two_layer.activation(x), type(activation)()(before))
        assert torch.equal(x, before)


def test_a_channel_scale_survives():
    torch.manual_seed(0)
    network = discrete(model_of(nn.ReLU()), start="from_model", scales="channel")
    before = [layer.weight() for layer in network.layers]
    two_layer = TwoLayer.from_network(network)
    two_layer.second.scale *= 2
    two_layer.write_to(network)
    torch.testing.assert_close(network.layers[0].weight(), before[0])
    torch.testing.assert_close(network.layers[1].weight(), 2 * before[1])


@pytest.mark.parametrize("middle", [(nn.Tanh(), nn.Identity()), (nn.Hardtanh(), nn.Dropout(0.5))])
def test_elementwise_stages_are_taken(middle):
    network = discrete(model_of(*middle).eval())
    _, activation = split_stages(network)
    x = torch.randn(4, 6)
    assert torch.equal(activation(x), nn.Sequential(*middle).eval()(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of(nn.Softmax(1)), "Softmax"),
        (lambda: model_of(nn.LayerNorm(6)), "LayerNorm"),
        (lambda: model_of(nn.ReLU()).append(nn.ReLU()), "ReLU comes after"),
        (lambda: nn.Sequential(nn.Linear(8, 3)), "1 discrete layers"),
        (lambda: model_of(nn.ReLU(), nn.Linear(6, 6)), "3 discrete layers"),
    ],
)
def test_other_networks_are_named_and_refused(model, message):
    try:
        network = discrete(model().eval())
    except NotApplicable:
        pytest.skip("the network itself is refused before")
    with pytest.raises(NotApplicable, match=message):
        split_stages(network)


def test_bad_parts_are_refused():
    network = network_of()
    with pytest.raises(SpecError, match="criterion"):
        TwoLayer(network.first, network.second, criterion="hinge")
    with pytest.raises(SpecError, match="must be the same"):
        TwoLayer(network.second, network.first)


def test_rescaling_the_first_layer_is_that_of_its_scale():
    for bias in (True, "fixed"):
        network = network_of(torch.tanh, bias)
        inputs, target = inputs_of("few"), target_of("cross_entropy")
        network.load([(block_of(inputs, bias), target)], group=2)
        loss, states = network.rescaled_first(2.0)
        network.first.scale *= 2
        assert loss == pytest.approx(fresh_loss(network, inputs, target), rel=1e-12)
        network.load([(block_of(inputs, bias), target)], group=2)
        torch.testing.assert_close(states[0][2], network.rows[0].logits)
