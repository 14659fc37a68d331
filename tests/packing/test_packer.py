"""`pack` against torch: signs exactly, floats to 1e-4 of the largest output."""

import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from whit.errors import CannotPack, WhitError
from whit.packing import pack
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign
from whit.runtime import decode_program


class Binary(nn.Module):
    """Signs times the mean magnitude, as a parametrisation."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, weight):
        scale = weight.abs().flatten(1).mean(1) if self.scale == "channel" else weight.abs().mean()
        scale = torch.ones(()) if self.scale == "none" else scale
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1)) if scale.dim() else scale
        return torch.where(weight >= 0, scale, -scale)


class Pruned(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, weight):
        return weight * (weight.abs() >= weight.abs().flatten().quantile(self.share))


class Ternary(nn.Module):
    def forward(self, weight):
        limit = 0.7 * weight.abs().mean()
        return torch.where(weight.abs() > limit, weight.sign() * 0.25, 0.0)


def randomised(model):
    """Give batch norms, biases and statistics values that matter; gamma < 0 and = 0 included."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.normal_()
                module.weight[0] = 0
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model


def parametrised(model, make):
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(module, "weight", make())
    return model


def mlp(activation=nn.ReLU, bias=True):
    layers = [Normalise(8.0, 8.0), nn.Flatten()]
    for rows, columns in ((64, 33), (33, 20)):
        layers += [
            nn.Linear(rows, columns, bias=bias),
            nn.BatchNorm1d(columns),
            activation(),
            nn.Dropout(),
        ]
    return nn.Sequential(*layers, nn.Linear(20, 10))


def convolutional(activation=nn.ReLU, bias=True):
    return nn.Sequential(
        Normalise(8.0, 8.0),
        nn.Conv2d(1, 6, 3, padding=1, bias=bias),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(6),
        activation(),
        nn.Conv2d(6, 12, 3, padding=1, stride=2, bias=bias),
        nn.BatchNorm2d(12),
        activation(),
        nn.Flatten(),
        nn.Linear(12 * 4, 10),
    )


def inputs(model, count=40):
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    shape = (count, 1, 8, 8) if images else (count, 8, 8)
    return torch.randint(0, 17, shape, generator=torch.Generator().manual_seed(5)).float()


def torch_output(model, x):
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        output = model.eval()(x).numpy()
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return output


def check(model, x, exact=False):
    expected = torch_output(model, x)
    packed = pack(model, x[:1])
    found = packed.program(x.numpy())
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    return packed


@pytest.mark.parametrize("network", [mlp, convolutional])
def test_float_networks(network):
    model = randomised(network())
    packed = check(model, inputs(model))
    kinds = [cost.kind for cost in packed.program.operators]
    assert kinds[0] == "normalize"
    assert {cost.weight_bits for cost in packed.program.operators} == {0, 32}


@pytest.mark.parametrize("network", [mlp, convolutional])
@pytest.mark.parametrize("bias", [False, True])
def test_binary_networks_of_scale_one_are_bit_identical(network, bias):
    model = randomised(network(Sign, bias))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.data = (module.bias.data * 64).round() / 16  # dyadic, so sums are exact
    model = parametrised(model, lambda: Binary("none"))
    packed = check(model, inputs(model), exact=True)
    widths = [(c.weight_bits, c.activation_bits) for c in packed.program.operators if c.macs]
    assert widths == [(1, 32), (1, 1), (1, 1)][: len(widths)]


@pytest.mark.parametrize("network", [mlp, convolutional])
@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_scaled_binary_networks_keep_their_classes(network, scale):
    model = parametrised(randomised(network(Sign)), lambda: Binary(scale))
    x = inputs(model, 100)
    packed = pack(model, x[:2])
    same = packed.program(x.numpy()).argmax(1) == torch_output(model, x).argmax(1)
    assert same.mean() >= 0.99  # a scale rounds each product in torch; a tie may fall either way
    assert {c.weight_format for c in packed.program.operators if c.macs} == {"bits"}


@pytest.mark.parametrize("network", [mlp, convolutional])
@pytest.mark.parametrize(
    ("share", "formats"), [(0.5, {"mask_float32"}), (0.97, {"csr_float32", "mask_float32"})]
)
def test_pruned_networks(network, share, formats):
    model = parametrised(randomised(network()), lambda: Pruned(share))
    packed = check(model, inputs(model))
    assert {c.weight_format for c in packed.program.operators if c.macs} <= formats
    for cost in packed.program.operators:
        if cost.macs:
            assert cost.effective_macs * cost.weight_count == cost.macs * cost.nonzero_weights


@pytest.mark.parametrize("network", [mlp, convolutional])
@pytest.mark.parametrize("activation", [nn.ReLU, Sign])
def test_ternary_networks(network, activation):
    model = parametrised(randomised(network(activation, bias=False)), Ternary)
    packed = check(model, inputs(model), exact=activation is Sign)
    assert {c.weight_bits for c in packed.program.operators if c.macs} == {2}


def test_pruned_by_torch_utils():
    model = randomised(mlp())
    prune.l1_unstructured(model[2], "weight", 0.8)
    prune.remove(model[2], "weight")
    assert check(model, inputs(model)).program.operators[2].weight_format == "mask_float32"


def test_sign_networks_with_padding_by_minus_one():
    model = nn.Sequential(
        Sign(), nn.ConstantPad2d(1, -1.0), nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4),
        Sign(), nn.ConstantPad2d((1, 2, 0, 1), 1.0), nn.Conv2d(4, 5, 2, bias=False),
        nn.Flatten(),
    )  # fmt: skip
    model = parametrised(randomised(model), lambda: Binary("none"))
    packed = check(model, torch.randn(9, 3, 5, 6), exact=True)
    kinds = [cost.kind for cost in packed.program.operators]
    assert kinds == ["sign", "conv2d", "threshold", "pad2d", "conv2d", "flatten"]


def spelled(forward):
    class Spelled(nn.Module):
        def forward(self, x):
            return forward(x)

    return Spelled()


SIGNS = {
    "where": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "where_tensors": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "lt": lambda x: torch.where(x < 0, -1.0, 1.0),
    "float": lambda x: (x >= 0).float() * 2 - 1,
    "to": lambda x: 2 * (x >= 0).to(x.dtype) - 1,
    "gt": lambda x: torch.where(x > 0, 1.0, -1.0),
    "le": lambda x: torch.where(x <= 0, 1.0, -1.0),
    "sign_mended": lambda x: torch.where(x == 0, 1.0, torch.sign(x)),
    "sign_shifted": lambda x: torch.sign(torch.sign(x) + 0.5),
    "filled": lambda x: torch.sign(x).masked_fill(x == 0, 1.0),
    "clipped": lambda x: torch.where(torch.clamp(x, -1, 1) >= 0, 1.0, -1.0),
    "half": lambda x: (x >= 0.5).float(),
    "inplace": lambda x: torch.where(x.clone().relu_() >= 1, 1.0, -1.0),
}


@pytest.mark.parametrize("name", SIGNS)
def test_spellings_of_sign(name):
    x = torch.tensor([[-2.0, -0.0, 0.0, 0.5, 1e-45, -1e-45, 3.0]])
    model = spelled(SIGNS[name])
    check(model, x, exact=True)
    check(nn.Sequential(nn.Linear(7, 3), model, nn.Linear(3, 2)), x)


PACKED = {
    "gelu": nn.GELU(),
    "softmax": nn.Softmax(dim=1),
    "hardtanh": nn.Hardtanh(),
    "add": spelled(lambda x: x + torch.relu(x)),
    "layer_norm": nn.LayerNorm(4),
    "sum": spelled(lambda x: x.sum(1, keepdim=True)),
    "cat": spelled(lambda x: torch.cat([x, x], 1)),
    "sign": spelled(torch.sign),
}


@pytest.mark.parametrize("name", PACKED)
def test_operators_beside_the_usual_chain(name):
    check(nn.Sequential(nn.Linear(4, 4), PACKED[name]), torch.randn(20, 4))


REFUSED = {
    "lstm": nn.LSTM(4, 4),
    "batch_norm": nn.BatchNorm1d(4, track_running_stats=False),
    "chunk": spelled(lambda x: x.chunk(2, 1)[0]),
    "members": spelled(lambda x: x[None].expand(3, -1, -1)),
    "two outputs": spelled(lambda x: (x + 1, x + 2)),
    "constant": spelled(lambda x: torch.zeros(2)),
    "branch": spelled(lambda x: x + 1 if x.sum() > 0 else x),
    "transposed": spelled(lambda x: x.t()),
    "double": spelled(lambda x: x.double()),
    "truncated": spelled(lambda x: x.int().float()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_packed_is_said_in_words(name):
    model = nn.Sequential(nn.Linear(4, 4), REFUSED[name])
    with pytest.raises(CannotPack) as caught:
        pack(model, torch.zeros(2, 4))
    assert len(str(caught.value)) > 40


def test_the_message_names_module_and_operator():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Mish()))
    with pytest.raises(CannotPack, match=r"module '1\.1', operator mish") as caught:
        pack(model, torch.zeros(2, 4))
    assert caught.value.module == "1.1"


@pytest.mark.parametrize(
    "example",
    [
        (),
        (torch.zeros(2, 4),) * 2,
        (torch.zeros(2, 4).double(),),
        (torch.zeros(4),),
        (torch.zeros(0, 4),),
    ],
)
def test_wrong_examples_are_explained(example):
    with pytest.raises(CannotPack):
        pack(nn.Linear(4, 2), *example)


def test_weights_that_are_not_finite_are_refused():
    model = nn.Linear(4, 2)
    model.weight.data[0, 0] = float("nan")
    with pytest.raises(CannotPack, match="NaN"):
        pack(model, torch.zeros(2, 4))


def test_uint8_inputs_and_per_feature_normalisation():
    model = nn.Sequential(Normalise(torch.arange(6.0), torch.arange(1.0, 7.0)), nn.Linear(6, 3))
    x = torch.randint(0, 256, (9, 6), dtype=torch.uint8)
    packed = check(model, x)
    assert packed.program.input.dtype == "uint8"
    assert packed.program.input.range == (0, 255)
    with pytest.raises(WhitError, match="0 to 255"):
        packed.program(np.zeros((1, 6), dtype=np.float32))


def test_the_model_and_the_random_state_stay_as_they_are():
    model = parametrised(randomised(mlp(Sign)), lambda: Binary("layer")).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[2].eval()
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    output = torch_output(model, inputs(model))
    pack(model, inputs(model))
    np.testing.assert_array_equal(torch_output(model, inputs(model)), output)
    assert flags == [module.training for module in model.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert parametrize.is_parametrized(model[2])


def test_same_model_same_bytes():
    model = parametrised(randomised(convolutional(Sign)), lambda: Binary("channel"))
    x = inputs(model)
    first = pack(model, x[:2], labels=list("abcdefghij"), info={"task": "t"}).to_bytes()
    assert first == pack(model, x[:7], labels=list("abcdefghij"), info={"task": "t"}).to_bytes()


def test_binary_digits_network_is_at_most_1000_bytes():
    model = nn.Sequential(
        Normalise(8.0, 8.0), nn.Linear(64, 32), nn.BatchNorm1d(32), Sign(), nn.Linear(32, 10)
    )
    model = parametrised(randomised(model), lambda: Binary("channel"))
    spec = "binarized_network(activations=True, first='binary', last='binary', scale='channel')"
    packed = pack(
        model,
        torch.zeros(1, 64),
        labels=[str(digit) for digit in range(10)],
        info={"task": "digits", "spec": spec, "version": "0.1.0"},
        input_range=(0, 16),
    )
    assert packed.nbytes <= 1000
    assert packed.weight_bytes <= 560
    assert len(packed.program.labels) == 10


def test_report_and_save(tmp_path):
    packed = pack(nn.Sequential(nn.Linear(64, 32)), torch.zeros(2, 64))
    assert "0 (linear): 8192 => 8192 bytes, float32" in packed.report()
    assert str(packed.nbytes) in packed.report()
    path = packed.save(tmp_path / "model.whit")
    assert path.read_bytes() == packed.to_bytes()
    assert os.listdir(tmp_path) == ["model.whit"]
    with pytest.raises(WhitError, match="cannot be written"):
        packed.save(tmp_path / "missing" / "model.whit")
    with pytest.raises(WhitError, match="cannot be written"):
        packed.save(tmp_path)
    assert os.listdir(tmp_path) == ["model.whit"]
    same = decode_program(packed.to_bytes())
    assert same.info["format_version"] == "3"


@pytest.mark.parametrize("info", [{"labels": "x"}, {"backend": "x"}, {"seed": 3}])
def test_malformed_info_is_explained(info):
    with pytest.raises(WhitError, match="info"):
        pack(nn.Linear(4, 2), torch.zeros(2, 4), info=info)
    with pytest.raises(WhitError, match="range"):
        pack(nn.Linear(4, 2), torch.zeros(2, 4), input_range=(1, 0))


class WrapsAround(nn.Module):
    """Compute with bytes, which wrap around in torch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head((x - 128).float())


def test_arithmetic_on_bytes_is_refused_with_its_line():
    with pytest.raises(CannotPack, match=r"x.float\(\).*test_packer.py, line \d+"):
        pack(WrapsAround(), torch.zeros(4, 4, dtype=torch.uint8))


def test_an_array_instead_of_a_tensor_is_refused_in_words():
    with pytest.raises(CannotPack, match="torch tensor"):
        pack(nn.Linear(4, 2), np.zeros((2, 4), np.float32))


def test_texts_that_cannot_be_printed_are_refused():
    with pytest.raises(WhitError, match="cannot be printed"):
        pack(nn.Linear(4, 2), torch.zeros(2, 4), labels=["a\x1b[2J", "b"])
