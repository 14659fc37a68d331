import pytest
import torch
from torch import nn

from whit.core.model_sizes import fit_sizes

SMALLER = [
    (nn.Linear(6, 4), nn.Linear(5, 3)),
    (nn.Bilinear(4, 5, 6), nn.Bilinear(3, 2, 4)),
    (nn.Conv2d(6, 4, 3), nn.Conv2d(5, 3, 3)),
    (nn.Conv1d(6, 4, 3, groups=2), nn.Conv1d(4, 2, 3, groups=2)),
    (nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(5, 5, 3, groups=5)),
    (nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(5, 10, 3, groups=5)),
    (nn.ConvTranspose2d(6, 4, 3), nn.ConvTranspose2d(5, 3, 3)),
    (nn.ConvTranspose2d(6, 6, 3, groups=6), nn.ConvTranspose2d(5, 5, 3, groups=5)),
    (nn.BatchNorm2d(6), nn.BatchNorm2d(5)),
    (nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(5, affine=False)),
    (nn.InstanceNorm2d(6, affine=True), nn.InstanceNorm2d(5, affine=True)),
    (nn.GroupNorm(2, 6), nn.GroupNorm(2, 4)),
    (nn.LayerNorm((6, 2)), nn.LayerNorm((5, 2))),
    (nn.Embedding(6, 4), nn.Embedding(5, 3)),
    (nn.PReLU(6), nn.PReLU(5)),
]


@pytest.mark.parametrize(("old", "new"), SMALLER, ids=lambda m: type(m).__name__)
def test_sizes_follow_the_tensors(old, new):
    unchanged = repr(old)
    fit_sizes(old)
    assert repr(old) == unchanged
    for name, parameter in new._parameters.items():
        setattr(old, name, parameter)
    for name, buffer in new._buffers.items():
        setattr(old, name, buffer)
    fit_sizes(nn.Sequential(old))
    assert repr(old) == repr(new)
    assert {k: v for k, v in vars(old).items() if not k.startswith("_")} == {
        k: v for k, v in vars(new).items() if not k.startswith("_")
    }


def test_what_keeps_no_tensor_stays():
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.LayerNorm(4, elementwise_affine=False))
    before = repr(model)
    fit_sizes(model)
    assert repr(model) == before
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)
