import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.binary_densenet import VARIANTS
from whit.parts.binary_layers import binary_layers
from whit.parts.dense_network import Architecture, BinaryDenseNet, DenseLayer
from whit.parts.masks import latent_weight
from whit.parts.straight_through import Sign
from whit.parts.surgery import bake

sys.path.insert(0, str(Path(__file__).parent))
from every_backend import everywhere, kinds  # noqa: E402

SMALL = Architecture((2, 1), (2.0,), growth=8, filters=8, multiple=8)


def counted(model):
    """Return numbers of binary, real convolution, classifier and batch norm parameters."""
    binary = sum(latent_weight(layer).numel() for layer in binary_layers(model))
    convolutions = sum(
        m.weight.numel() for m in model.modules()
        if isinstance(m, nn.Conv2d) and m not in binary_layers(model)
    )  # fmt: skip
    classifier = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()
    )
    channels = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    return binary, convolutions, classifier, channels


PUBLISHED = {
    "28": (4_202_496, 332_992, 577_000, 9_504, 5_150_504, 5_131_496, 4.12, 576),
    "37": (7_593_984, 435_392, 641_000, 15_936, 8_734_120, 8_702_248, 5.25, 640),
    "37_dilated": (7_593_984, 435_392, 641_000, 15_936, 8_734_120, 8_702_248, 5.25, 640),
    "45": (12_349_440, 689_344, 801_000, 24_864, 13_939_240, 13_889_512, 7.54, 800),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_parameter_counts_and_sizes(name):
    model = BinaryDenseNet(VARIANTS[name], 3, 1000, (224, 224))
    binary, convolutions, classifier, channels, total, trained, megabytes, features = PUBLISHED[
        name
    ]
    assert counted(model) == (binary, convolutions, classifier, channels)
    assert binary + convolutions + classifier + 4 * channels == total
    assert sum(p.numel() for p in model.parameters()) == trained
    size = (binary / 8 + 4 * (convolutions + classifier + 4 * channels)) / 2**20
    assert round(size, 2) == megabytes
    assert model.steps.head.in_features == features


def sizes(model, size, channels=3):
    """Return the side of the maps that each block gives."""
    seen = {}
    for name, child in model.steps.named_children():
        child.register_forward_hook(lambda m, x, y, name=name: seen.update({name: y.shape[-1]}))
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, *size))
    return seen


@pytest.mark.slow
def test_the_maps_of_large_images():
    seen = sizes(BinaryDenseNet(VARIANTS["28"], 3, 10, (224, 224)), (224, 224))
    assert [seen[f"block{k}_layer1"] for k in (1, 2, 3, 4)] == [56, 28, 14, 7]
    seen = sizes(BinaryDenseNet(VARIANTS["37_dilated"], 3, 10, (224, 224)), (224, 224))
    assert [seen[f"block{k}_layer1"] for k in (1, 2, 3, 4)] == [56, 28, 28, 28]


def test_dilated_blocks_keep_their_maps():
    plan = Architecture((1, 1, 1), (1.0, 1.0), 4, 4, dilations=(1, 2, 4), multiple=4)
    seen = sizes(BinaryDenseNet(plan, 1, 3, (16, 16)), (16, 16), 1)
    assert [seen[f"block{k}_layer1"] for k in (1, 2, 3)] == [16, 16, 16]
    plan = Architecture((1, 1, 1), (1.0, 1.0), 4, 4, multiple=4)
    seen = sizes(BinaryDenseNet(plan, 1, 3, (16, 16)), (16, 16), 1)
    assert [seen[f"block{k}_layer1"] for k in (1, 2, 3)] == [16, 8, 4]


def test_the_stem_depends_on_the_size():
    small = BinaryDenseNet(SMALL, 3, 4, (49, 80)).steps.stem
    assert isinstance(small, nn.Conv2d) and small.kernel_size == (3, 3) and small.stride == (1, 1)
    large = BinaryDenseNet(SMALL, 3, 4, (50, 80)).steps.stem
    assert [type(m).__name__ for m in large] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert large[0].kernel_size == (7, 7) and large[0].stride == (2, 2)


def test_new_features_come_last_and_old_ones_stay():
    torch.manual_seed(0)
    layer = bake(DenseLayer(5, SMALL, 1)).eval()
    x = torch.randn(2, 5, 6, 6)
    with torch.no_grad():
        y = layer(x)
        assert y.shape == (2, 13, 6, 6) and torch.equal(y[:, :5], x)
        sums = layer.new.conv(layer.new.pad(layer.new.sign(layer.new.norm(x))))
        assert torch.equal(y[:, 5:], sums) and torch.equal(sums, sums.round())
        layer.new.conv.weight.zero_()
        assert torch.equal(layer(x)[:, :5], x) and not layer(x)[:, 5:].any()


@pytest.mark.parametrize(("padding", "value"), [("plus_one", 1), ("minus_one", -1), ("zero", 0)])
def test_the_border_is_what_was_asked_for(padding, value):
    plan = Architecture((1,), (), 4, 4, padding=padding)
    layer = DenseLayer(4, plan, 2)
    padded = layer.new.pad(torch.full((1, 4, 3, 3), 9.0))
    assert padded.shape[-1] == 7 and set(padded.unique().tolist()) == {9.0, value}


def test_binary_weights_and_the_gradient_window():
    plan = Architecture((1,), (), 4, 4)
    model = BinaryDenseNet(plan, 1, 3, (8, 8))
    assert [layer.weight.abs().unique().tolist() for layer in binary_layers(model)] == [[1.0]]
    layer = model.steps.block1_layer1
    layer.new.norm = nn.Identity()
    x = torch.linspace(-2, 2, 4 * 9).reshape(1, 4, 3, 3).requires_grad_()
    layer(x)[:, 4:].square().sum().backward()
    outside = x.detach().abs() > 1.3
    assert not x.grad[outside].any() and x.grad[~outside].any()


def test_ablations():
    plan = Architecture(
        (1, 1), (1.0,), 4, 4, multiple=4, bottleneck=3, transitions="binary", scale="channel"
    )
    model = BinaryDenseNet(plan, 2, 3, (8, 8))
    shapes = [tuple(latent_weight(layer).shape) for layer in binary_layers(model)]
    assert shapes == [
        (12, 4, 1, 1), (4, 12, 3, 3), (8, 8, 1, 1), (12, 8, 1, 1), (4, 12, 3, 3)
    ]  # fmt: skip
    assert sum(isinstance(m, Sign) for m in model.modules()) == 5
    assert model(torch.randn(2, 2, 8, 8)).shape == (2, 3)


def test_images_come_out_at_their_size():
    model = BinaryDenseNet(SMALL, 4, 2, (7, 9), head="image")
    assert model(torch.randn(3, 4, 7, 9)).shape == (3, 2, 7, 9)


def test_too_small_images_are_refused():
    with pytest.raises(NotApplicable, match="nothing is left"):
        BinaryDenseNet(Architecture((1, 1, 1), (1.0, 1.0)), 1, 2, (3, 8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": (0, 1)}, "layers"),
        ({"layers": ()}, "layers"),
        ({"reductions": (2.0, 2.0)}, "reductions"),
        ({"reductions": (0.5,)}, "reductions"),
        ({"growth": 0}, "growth"),
        ({"dilations": (1,)}, "dilations"),
        ({"bottleneck": -1}, "bottleneck"),
        ({"padding": "one"}, "plus_one"),
        ({"scale": "row"}, "channel"),
        ({"transitions": "fp"}, "binary"),
        ({"window": -1}, "window"),
    ],
    ids=str,
)
def test_bad_sizes_and_options(options, words):
    with pytest.raises(SpecError, match=words):
        Architecture(**{"layers": (1, 1), "reductions": (2.0,), **options})


def exact(model):
    """Make every real number of a network a multiple of a power of two, so that sums are exact."""
    with torch.no_grad():
        for module in bake(model).modules():
            if isinstance(module, nn.BatchNorm2d):
                count = module.num_features
                module.weight.copy_(2.0 ** torch.randint(-3, -1, (count,)))
                module.weight[::3] *= -1
                module.bias.copy_(torch.randint(-8, 9, (count,)) / 16)
                module.running_mean.copy_(torch.randint(-4, 5, (count,)) / 4)
                module.running_var.fill_(1.0)
                module.eps = 0.0
            elif isinstance(module, nn.Conv2d | nn.Linear) and len(module.weight.unique()) > 2:
                module.weight.copy_((module.weight * 4).round() / 4)
                if module.bias is not None:
                    module.bias.zero_()
    return model


def test_it_packs_binary_and_answers_the_same_everywhere(tmp_path):
    torch.manual_seed(0)
    model = exact(BinaryDenseNet(SMALL, 1, 3, (8, 8)))
    x = torch.randint(-8, 9, (30, 1, 8, 8)) / 4
    packed, expected, found = everywhere(model, x, tmp_path)
    for backend, output in found.items():
        np.testing.assert_array_equal(output, expected, err_msg=backend)
    formats = {layer.module: layer.format for layer in packed.layers}
    binary = [path for path in formats if path.endswith("new.conv")]
    assert len(binary) == 3 and {formats[path] for path in binary} == {"bits"}
    signs = [s.result.domain for s in packed.program.steps if s.operator.kind == "threshold"]
    assert signs == ["sign"] * 3 and kinds(packed).count("concat") == 3
