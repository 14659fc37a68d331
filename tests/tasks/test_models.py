import pytest
import torch
from torch import nn

from whit.core.data import ImageData, Split, VectorData
from whit.errors import TaskError
from whit.tasks.digits import digits
from whit.tasks.models import conv4, mlp4


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


def test_conv4_pools_before_normalising() -> None:
    model = conv4(images(9))
    names = [name for name, _ in model.named_children()]
    assert names[:5] == ["normalise", "conv1", "pool1", "norm1", "relu1"]
    assert names[-1] == "head"
    assert model(torch.zeros(2, 1, 9, 9)).shape == (2, 3)
    assert model.conv1.bias is None and model.linear3.bias is None and model.head.bias is not None


def test_every_activation_is_its_own_module() -> None:
    for model in (mlp4(vectors(8)), conv4(images(8))):
        named = list(model.named_modules(remove_duplicate=False))
        assert len(named) == len({id(module) for _, module in named})


def test_width_scales_and_has_a_floor() -> None:
    half = mlp4(vectors(4), width=0.5)
    assert half.linear1.out_features == 16
    assert mlp4(vectors(4), width=0.001).linear3.out_features == 4


def test_conv4_needs_images() -> None:
    for data in (vectors(64), images(3)):
        with pytest.raises(TaskError, match="conv4"):
            conv4(data)


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
    for width in (0, -1.0, float("nan"), float("inf"), True, "1"):
        with pytest.raises(TaskError, match="width"):
            digits(width=width)
    with pytest.raises(TaskError, match="width"):
        digits().build_model(digits().load(), {"width": 0.0})


def test_names_are_the_calls_that_make_the_tasks() -> None:
    assert digits().name == "digits"
    assert digits(model="mlp4", width=1).name == "digits"
    assert digits(width=0.5, model="conv4").name == "digits(model='conv4', width=0.5)"
