from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import whit
from whit.core.data import ImageData, Split, VectorData
from whit.errors import TaskError
from whit.methods.low_bit.binarized_network import binarize, binary_layers
from whit.packing.packer import float_inputs
from whit.parts.straight_through import Sign
from whit.tasks.digits import digits
from whit.tasks.models import Builder, ResidualBlock, conv4, mlp2, mlp4, mlp4_wide, resnet8


def images(size: int) -> ImageData:
    inputs = torch.arange(4 * size * size).remainder(256).to(torch.uint8).view(4, 1, size, size)
    split = Split((inputs,), torch.tensor([0, 1, 2, 0]))
    return ImageData(split, split, split, class_names=("a", "b", "c"))


def vectors(features: int) -> VectorData:
    split = Split((torch.randn(4, features),), torch.tensor([0, 1, 2, 0]))
    return VectorData(split, split, split, class_names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("features", "sizes"),
    [(300, [512, 256, 128, 3]), (64, [128, 128, 64, 3]), (4, [32, 32, 16, 3])],
)
def test_mlp4_sizes_follow_the_inputs(features: int, sizes: list[int]) -> None:
    model = mlp4(vectors(features))
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == sizes
    assert model(torch.randn(2, features)).shape == (2, 3)


@pytest.mark.parametrize(
    ("features", "width", "sizes"),
    [(784, 1.0, [256, 3]), (784, 0.5, [128, 3]), (64, 1.0, [32, 3]), (4, 1.0, [10, 3])],
)
def test_mlp2_is_two_layers_and_nothing_else(features: int, width: float, sizes: list[int]) -> None:
    model = mlp2(vectors(features), width)
    assert [type(m).__name__ for m in model] == ["Normalise", "Linear", "ReLU", "Linear"]
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == sizes


def test_mlp4_wide_has_three_hidden_layers_of_one_size() -> None:
    model = mlp4_wide(vectors(20), 0.5)
    sizes = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert sizes == [512, 512, 512, 3]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.modules()) == 3


def test_conv4_pools_before_normalising() -> None:
    model = conv4(images(9))
    names = [name for name, _ in model.named_children()]
    assert names[:5] == ["normalise", "conv1", "pool1", "norm1", "relu1"]
    assert names[-1] == "head"
    assert model(torch.zeros(2, 1, 9, 9)).shape == (2, 3)
    assert model.conv1.bias is None and model.linear3.bias is None and model.head.bias is not None


def test_every_activation_is_its_own_module() -> None:
    for model in (mlp4(vectors(8)), conv4(images(8)), resnet8(images(8))):
        named = list(model.named_modules(remove_duplicate=False))
        assert len(named) == len({id(module) for _, module in named})


def test_width_scales_and_has_a_floor() -> None:
    half = mlp4(vectors(4), width=0.5)
    assert half.linear1.out_features == 16
    assert mlp4(vectors(4), width=0.001).linear3.out_features == 4


@pytest.mark.parametrize(("name", "build"), [("conv4", conv4), ("resnet8", resnet8)])
def test_convolutions_need_images(name: str, build: Builder) -> None:
    for data in (vectors(64), images(3)):
        with pytest.raises(TaskError, match=f"'{name}' needs images of 4 x 4.*Use model='mlp4'"):
            build(data)
    assert build(images(4))(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_choices_vary_the_build_of_a_task() -> None:
    task = digits(width=0.5)
    data = task.load()
    assert task.build_model(data, {}).linear1.out_features == 64
    assert task.build_model(data, {"width": 2.0}).linear1.out_features == 256
    assert hasattr(task.build_model(data, {"model": "conv4"}), "conv1")
    with pytest.raises(TaskError, match="width"):
        task.build_model(data, {"with": 2})


def test_unknown_models_and_widths_are_refused() -> None:
    with pytest.raises(TaskError, match="Did you mean 'mlp4'"):
        digits(model="mlp5")
    with pytest.raises(TaskError, match="Did you mean 'resnet8'"):
        digits(model="resnet9")
    for width in (0, -1.0, float("nan"), float("inf"), True, "1"):
        with pytest.raises(TaskError, match="width"):
            digits(width=width)
    with pytest.raises(TaskError, match="width"):
        digits().build_model(digits().load(), {"width": 0.0})


def test_names_are_the_calls_that_make_the_tasks() -> None:
    assert digits().name == "digits"
    assert digits(model="mlp4", width=1).name == "digits"
    assert digits(width=0.5, model="conv4").name == "digits(model='conv4', width=0.5)"


def test_resnet8_halves_the_image_twice_and_starts_with_a_normalisation() -> None:
    model = resnet8(images(28))
    names = [name for name, _ in model.named_children()]
    assert names[:4] == ["normalise", "stem", "stem_norm", "stem_relu"] and names[-1] == "head"
    hidden = torch.zeros(2, 1, 28, 28)
    shapes = []
    for child in model.children():
        hidden = child(hidden)
        if isinstance(child, ResidualBlock):
            shapes.append(tuple(hidden.shape[1:]))
    assert shapes == [(16, 28, 28), (32, 14, 14), (64, 7, 7)] and hidden.shape == (2, 3)


def test_a_residual_block_is_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    for inputs, outputs, stride in ((4, 4, 1), (4, 6, 2), (4, 6, 1)):
        block = ResidualBlock(inputs, outputs, stride).eval()
        x = torch.randn(2, inputs, 5, 5)
        conv = functional.conv2d
        inner = conv(x, block.conv1.weight, stride=stride, padding=1)
        inner = conv(block.norm1(inner).clamp_min(0), block.conv2.weight, padding=1)
        around = x
        if (inputs, stride) != (outputs, 1):
            around = block.shortcut.norm(conv(x, block.shortcut.conv.weight, stride=stride))
        expected = (block.norm2(inner) + around).clamp_min(0)
        assert torch.allclose(block(x), expected, atol=1e-6)
        assert block(x).shape == (2, outputs, -(-5 // stride), -(-5 // stride))


def test_width_multiplies_the_channels_of_resnet8() -> None:
    model = resnet8(images(8), width=1.5)
    assert model.stem.out_channels == 24
    assert [model.get_submodule(f"block{k}").conv2.out_channels for k in (1, 2, 3)] == [24, 48, 96]
    assert resnet8(images(8), width=0.01).head.in_features == 4


def test_resnet8_has_the_size_of_the_one_in_mlperf_tiny() -> None:
    inputs = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    split = Split((inputs,), torch.tensor([0, 1, 2]))
    names = tuple("abcdefghij")
    model = resnet8(ImageData(split, split, split, class_names=names, input_range=(0.0, 255.0)))
    assert sum(p.numel() for p in model.parameters()) == 78_042


def settled(width: float, binary: bool) -> tuple[nn.Module, torch.Tensor]:
    """A network after some steps of training, with its last images."""
    torch.manual_seed(4)
    data = images(12)
    model = resnet8(data, width)
    if binary:
        binarize(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    target = torch.arange(96) % 3
    inputs = (torch.randint(0, 96, (96, 1, 12, 12)) + 80 * target.view(-1, 1, 1, 1)).to(torch.uint8)
    for _ in range(20):
        functional.cross_entropy(model(inputs.float()), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), inputs


@pytest.mark.parametrize("binary", [False, True])
def test_resnet8_packs_and_gives_the_same_classes(binary: bool, tmp_path: Path) -> None:
    model, inputs = settled(0.5, binary)
    with float_inputs(model):
        packed = whit.pack(model, inputs[:2], labels=("a", "b", "c"))
    packed.save(tmp_path / "resnet8.whit")
    with torch.no_grad():
        expected = model(inputs.float()).numpy()
    found = whit.runtime.load(tmp_path / "resnet8.whit")(inputs.numpy())
    assert len(set(expected.argmax(1))) == 3, "one class for all would prove nothing"
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert abs(found - expected).max() < 1e-5
    formats = {layer.module: layer.bits for layer in packed.layers}
    assert len(formats) == 10
    assert all(bits < 8 for bits in formats.values()) == binary


def test_binarize_finds_every_layer_and_activation_of_resnet8() -> None:
    model = binarize(resnet8(images(8)))
    assert len(binary_layers(model)) == 10
    assert sum(isinstance(m, Sign) for m in model.modules()) == 7
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_a_skipped_stem_leaves_the_blocks_binary() -> None:
    binary = binary_layers(binarize(resnet8(images(8)), skip=["stem", "head"]))
    assert len(binary) == 8
