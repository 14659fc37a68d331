"""Post-training quantisation in one call, and the choice of formats by the user."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packing_networks import INTEGERS, between, check, domains, kinds, on_grid, raw, settle
from sklearn.datasets import load_digits
from torch import nn

from whit.errors import CannotPack, NoEffect, WhitError
from whit.packing import pack
from whit.parts.group import Group
from whit.parts.normalise import Normalise
from whit.parts.route import MarginRule, Route
from whit.parts.straight_through import Sign


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(pixels[order]).float().reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels[order]).long()
    return x[:1300], y[:1300], x[1300:], y[1300:]


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(x + self.block(x))


NETWORKS = {
    "mlp": lambda: nn.Sequential(
        Normalise(8.0, 8.0), nn.Flatten(), nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(),
        nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10),
    ),
    "cnn": lambda: nn.Sequential(
        Normalise(8.0, 8.0), nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24),
        nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 10),
    ),
    "residual": lambda: nn.Sequential(
        Normalise(8.0, 8.0), nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), Residual(12),
        nn.AvgPool2d(2), Residual(12), nn.Flatten(), nn.Linear(12 * 16, 10),
    ),
    "depthwise": lambda: nn.Sequential(
        Normalise(8.0, 8.0), nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
        nn.ReLU6(), nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16),
        nn.Hardswish(), nn.Conv2d(16, 24, 1), nn.ReLU6(), nn.Flatten(), nn.Linear(24 * 64, 10),
    ),
}  # fmt: skip


def train(model, x, y):
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(100):
            loss = F.cross_entropy(model.train()(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def accuracy(scores, y):
    return float((scores.argmax(1) == y.numpy()).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_keep_the_accuracy_in_a_quarter_of_the_bytes(name, digits):
    x, y, unseen, labels = digits
    model = train(NETWORKS[name](), x, y)
    before = pack(model, x)
    packed = pack(model, x, calibration=x[:300])
    with torch.no_grad():
        expected = accuracy(model(unseen).numpy(), labels)
    assert expected > 0.93
    assert accuracy(packed.program(unseen.numpy()), labels) >= expected - 0.01
    assert {layer.format for layer in packed.layers} == {"int8"}
    weights = sum(layer.weights for layer in packed.layers)
    assert packed.nbytes <= before.nbytes - 2.9 * weights + 400
    if name in ("mlp", "cnn"):
        assert between(packed) <= INTEGERS
        assert kinds(packed).count("requantize") == len(packed.layers) - 1


def test_bytes_go_in_as_they_are(digits):
    x, y, unseen, labels = digits
    model = train(NETWORKS["cnn"](), x, y)
    x, unseen = x.to(torch.uint8), unseen.to(torch.uint8)
    packed = pack(model, x, calibration=x[:300])
    assert set(domains(packed)[:-1]) <= INTEGERS
    with torch.no_grad():
        expected = accuracy(model(unseen).numpy(), labels)
    assert accuracy(packed.program(unseen.numpy()), labels) >= expected - 0.01


def small():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_a_network_of_few_bits_has_nothing_to_quantise():
    model = nn.Sequential(Sign(), on_grid(nn.Linear(6, 4), 1), Sign(), on_grid(nn.Linear(4, 3), 0))
    with pytest.raises(NoEffect, match=r"8 bits or fewer already.*Leave the calibration out"):
        pack(model, torch.randn(5, 6), calibration=torch.randn(5, 6))
    with pytest.raises(NoEffect):
        pack(nn.Sequential(nn.ReLU()), torch.randn(5, 6), calibration=torch.randn(5, 6))


@pytest.mark.parametrize(
    "samples",
    [torch.randn(5, 7), torch.randn(5, 6).double(), torch.randn(6), torch.randn(0, 6)],
)
def test_calibration_samples_of_another_kind(samples):
    with pytest.raises(CannotPack, match="calibration"):
        pack(small(), torch.randn(5, 6), calibration=samples)


def test_an_array_as_calibration():
    with pytest.raises(CannotPack, match=r"calibration is ndarray; give a torch tensor"):
        pack(small(), torch.randn(5, 6), calibration=np.zeros((5, 6), np.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibration_samples_that_are_not_finite(value):
    samples = torch.randn(5, 6)
    samples[0, 0] = value
    with pytest.raises(CannotPack, match="not finite"):
        pack(small(), torch.randn(5, 6), calibration=samples)


def test_dead_channels_and_zero_inputs():
    model = small()
    with torch.no_grad():
        model[0].weight[:4] = 0
        model[0].bias[:4] = -1
    x = torch.randn(200, 6)
    with torch.no_grad():
        expected = model(x).numpy()
    found = pack(model, x, calibration=x).program(x.numpy())
    assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()
    packed = pack(model, torch.zeros(5, 6), calibration=torch.zeros(5, 6))
    assert np.isfinite(packed.program(np.zeros((2, 6), np.float32))).all()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    packed = pack(model, torch.zeros(5, 6), calibration=torch.randn(5, 6))
    found = packed.program(np.ones((2, 6), np.float32))
    np.testing.assert_allclose(found, model[2].bias.detach().numpy()[None].repeat(2, 0), atol=1e-2)


def test_samples_beyond_the_range_saturate():
    packed = pack(nn.Linear(4, 2).eval(), torch.randn(4, 4), calibration=torch.randn(100, 4))
    assert np.isfinite(packed.program(np.full((1, 4), 1e9, np.float32))).all()


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(40, 16), nn.Conv1d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(F.relu(self.conv(x)).amax(2))


def test_an_embedding_is_rounded_too():
    tokens = torch.randint(0, 40, (60, 9))
    model = Text().eval()
    packed = pack(model, tokens, calibration=tokens)
    assert {layer.format for layer in packed.layers} == {"int8"}
    with torch.no_grad():
        expected = model(tokens).numpy()
    error = np.abs(packed.program(raw(tokens)) - expected).max() / np.abs(expected).max()
    assert error < 0.03


def test_members_of_a_group_and_of_a_route():
    x = torch.randn(200, 6)
    group = nn.Sequential(Normalise(0.0, 2.0), Group([small(), small()]))
    packed = pack(group, x, calibration=x)
    assert {layer.format for layer in packed.layers} == {"int8"}
    assert packed.program.leading == 1
    route = Route([small(), small(), small()], MarginRule(0.2), [(0,), (1, 2)])
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), route)
    packed = pack(model, x, calibration=x)
    assert [layer.format for layer in packed.layers] == ["int8"] * 7
    with torch.no_grad():
        expected = model(x).numpy()
    same = packed.program(x.numpy()).argmax(1) == expected.argmax(1)
    assert same.mean() > 0.93


def test_weights_of_few_bits_keep_their_format_where_activations_are_rounded():
    model = nn.Sequential(
        on_grid(nn.Linear(6, 16), 1, 0.1), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
    )
    x = torch.randn(300, 6)
    packed = pack(settle(model, x), x, calibration=x)
    assert [layer.format for layer in packed.layers][1] == "int8"
    assert packed.layers[0].bits < 4 or packed.layers[0].format != "float32"


def planes_model():
    return nn.Sequential(on_grid(nn.Linear(16, 8), 7, 0.5), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_a_format_by_module():
    x = torch.randn(5, 16)
    packed = check(planes_model(), x, force={"0": "planes"})
    assert [layer.format for layer in packed.layers] == ["planes", "float32"]
    packed = check(planes_model(), x, force={"0": "int8", "*": "float32"})
    assert [layer.format for layer in packed.layers] == ["int8", "float32"]
    packed = check(planes_model(), x, force={"*": "float32"})
    assert [layer.format for layer in packed.layers] == ["float32", "float32"]


def test_a_forced_format_with_calibration():
    x = torch.randn(90, 16)
    packed = pack(planes_model(), x, calibration=x, force={"*": "planes"})
    assert [layer.format for layer in packed.layers] == ["planes", "planes"]


def test_forbidden_formats():
    x = torch.randn(5, 16)
    usual = pack(planes_model(), x).layers[0].format
    assert usual == "int4"
    other = check(planes_model(), x, forbid=["int4"]).layers[0].format
    assert other != "int4"
    with pytest.raises(CannotPack, match="forbidden") as caught:
        pack(planes_model(), x, force={"2": "float32"}, forbid=["float32"])
    assert caught.value.module == "2"


@pytest.mark.parametrize(
    ("force", "words"),
    [
        ({"7": "int8"}, r"'7', which is no module with a weight.*0, 2"),
        ({"1": "int8"}, "no module with a weight"),
        ({"2": "int4"}, "int4"),
        ({"*": "bits"}, "bits"),
        ({"0": "int5"}, "there is no weight format 'int5'; the formats are"),
    ],
)
def test_formats_that_do_not_fit(force, words):
    with pytest.raises(WhitError, match=words):
        pack(planes_model(), torch.randn(5, 16), force=force)
