"""Own models whose activations are calls in forward: made binary, trained, packed and saved."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import whit
from whit.errors import NoEffect, WhitError
from whit.methods.low_bit.binarized_network import ClipLatentWeights, binarize, binary_layers
from whit.parts.straight_through import Sign, binary_sign
from whit.parts.surgery import bake
from whit.result_folder import load_result


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16 * 4 * 4, 3)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.norm1(self.conv1(x))), 2)
        return self.head(torch.relu(self.conv2(x)).flatten(1))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        inner = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        inner = self.norm2(self.conv2(inner))
        inner += x
        return functional.relu(inner, True)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.blocks(self.norm(self.stem(x)).relu_())
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(64, 32, bias=False)
        self.norm1 = nn.BatchNorm1d(32)
        self.linear2 = nn.Linear(32, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.norm1(self.linear1(x.flatten(1))).relu()
        x = self.linear2(x)
        x.clamp_(min=0)
        return self.head(x)


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator)


def trained(kind, steps=4):
    torch.manual_seed(0)
    model = binarize(kind(), example=samples(2))
    clip = ClipLatentWeights(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = samples(32), torch.arange(32) % 3
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        optimizer.step()
        clip.after_step()
    return model.eval()


# What each layer multiplies: signs wherever activations were called before it.
BINARY = {Pooled: ["conv2", "head"], Perceptron: ["linear2", "head"],
          Residual: [f"blocks.{b}.conv{c}" for b in range(2) for c in (1, 2)]}  # fmt: skip


@pytest.mark.parametrize("kind", [Pooled, Residual, Perceptron])
def test_an_own_model_trains_and_packs_to_the_same_bits(kind):
    model = bake(trained(kind))
    assert type(model).__name__ == kind.__name__
    packed = whit.pack(model, samples(4))
    x = samples(500, seed=1)
    with torch.no_grad():
        expected = model(x).numpy()
    assert (packed.program(x.numpy()) == expected).all()
    assert len(set(expected.argmax(1).tolist())) > 1, "the example tells samples apart"
    assert {layer.format for layer in packed.layers} == {"bits"}
    matrices = [op for op in packed.program.operators if op.macs]
    widths = {
        layer.module.removesuffix(".conv"): (op.weight_bits, op.activation_bits)
        for layer, op in zip(packed.layers, matrices, strict=True)
    }
    assert {path for path, bits in widths.items() if bits == (1, 1)} == set(BINARY[kind])


@pytest.mark.parametrize("kind", [Pooled, Residual, Perceptron])
def test_what_the_layers_see_is_binary(kind):
    model, seen = trained(kind, steps=1), {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda m, x, path=path: seen.update({path: x[0]}))
    model(samples(4))
    signs = {
        p.removesuffix(".conv") for p, x in seen.items() if set(x.unique().tolist()) == {-1, 1}
    }
    assert signs == set(BINARY[kind])


def test_copies_and_states_answer_alike():
    model, x = trained(Residual), samples(8)
    fresh = binarize(Residual(), example=x).eval()
    fresh.load_state_dict(model.state_dict())
    for twin in (
        copy.deepcopy(model),
        fresh,
        pickle.loads(pickle.dumps(bake(copy.deepcopy(model)))),
    ):
        assert torch.equal(twin(x), model(x))


def test_an_example_is_needed_where_there_are_calls_only():
    model = Perceptron()
    with pytest.raises(NoEffect, match="torch.relu.*example=x"):
        binarize(model)
    assert type(model) is Perceptron and binary_layers(model) == []
    assert len(binary_layers(binarize(model, activations=False))) == 3, "the advice works"
    with pytest.raises(NoEffect, match="swapped already"):
        binarize(trained(Perceptron), weights=False, example=samples(2))
    with pytest.raises(WhitError, match="fails on the example.*mat1 and mat2"):
        binarize(Perceptron(), example=(torch.randn(2, 5),))


class Gated(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(64, 8), nn.Linear(8, 3)
        self.activation = activation

    def forward(self, x):
        x = self.activation(self.linear1(x.flatten(1)))
        return torch.sigmoid(self.linear2(x))


def test_gates_and_outputs_stay_as_they_are():
    model, x = binarize(Gated(functional.gelu), weights=False, example=samples(2)), samples(4)
    hidden = binary_sign(model.linear1(x.flatten(1)))
    assert torch.equal(model(x), model.linear2(hidden).sigmoid())
    with pytest.raises(NoEffect, match="It calls sigmoid, tanh, but.*nn.Tanh"):
        binarize(Gated(torch.tanh), example=samples(2))
    tanh = binarize(Gated(nn.Tanh()), weights=False)
    assert isinstance(tanh.activation, Sign)


def test_modules_and_calls_in_one_model():
    class Both(Perceptron):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.Sequential(self.norm1, nn.ReLU())

    model, seen = binarize(Both()), []
    assert isinstance(model.norm1[1], Sign)
    model.head.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    model(samples(4))
    assert set(seen[0].unique().tolist()) == {-1, 1}


OWN = """
import torch
from torch import nn

import whit


class Net(nn.Module):
    def __init__(self, features, hidden, classes):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.norm, self.head = nn.BatchNorm1d(hidden), nn.Linear(hidden, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.linear1(x.float())))
        return self.head(self.linear2(x).relu_())


def load():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (500, 6), generator=generator, dtype=torch.uint8)
    y = (x[:, :2].float().mean(1) > 127).long()
    parts = zip(x.split((300, 100, 100)), y.split((300, 100, 100)), strict=True)
    return whit.VectorData(*(whit.Split((a,), b) for a, b in parts), class_names=("low", "high"))


task = whit.Task("own.py:task", load, lambda data: Net(6, 32, 2),
                 settings=whit.Settings(epochs=3, batch_size=50, learning_rate=0.01))
"""


def test_the_technique_on_an_own_task_saved_and_loaded(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    result = whit.execute(whit.task("own.py:task"), whit.spec("binarized_network()"), out="run")
    row = result.scorecard.as_dict()
    assert row["valid_accuracy"] > 0.7 and result.packed is not None
    assert {layer.format for layer in result.packed.layers} == {"bits"}
    assert set(row["macs_by_width"]) == {"w1a8", "w1a1"}
    loaded = load_result("run").model
    x = whit.task("own.py:task").load().valid.inputs[0]
    with torch.no_grad():
        expected = result.model(x)
        assert torch.equal(loaded(x), expected)
    assert (result.packed.program(x.numpy()) == expected.numpy()).all()
