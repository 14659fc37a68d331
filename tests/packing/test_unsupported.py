"""What cannot be packed: each error names the module, the operator and a way out."""

import pytest
import torch
import torch.nn.functional as F
from packing_networks import Function
from torch import nn

from whit.errors import CannotPack
from whit.packing import pack


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(8, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


IMAGE, SEQUENCE, VECTOR = (3, 8, 8), (5, 8), (8,)
ANOTHER = "replace the module, move it out of the model, or keep the model in torch"

# module, shape of a sample, operator, way out
UNSUPPORTED = {
    "matmul": (Function(lambda x: x @ x.transpose(1, 2)), SEQUENCE, "matmul", "constant matrix"),
    "scaled_attention": (
        Function(lambda x: F.scaled_dot_product_attention(x, x, x)),
        SEQUENCE,
        "scaled_dot_product_attention",
        ANOTHER,
    ),
    "einsum": (
        Function(lambda x: torch.einsum("bij,bkj->bik", x, x)), SEQUENCE, "einsum", ANOTHER,
    ),
    "transposed_convolution": (nn.ConvTranspose2d(3, 4, 2), IMAGE, "conv_transpose2d", ANOTHER),
    "nearest": (nn.Upsample(scale_factor=2), IMAGE, "upsample_nearest2d", ANOTHER),
    "bilinear": (
        nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, "upsample_bilinear2d", ANOTHER,
    ),
    "slice": (Function(lambda x: x[:, 1:]), VECTOR, "slice", ANOTHER),
    "chunk": (Function(lambda x: x.chunk(2, 1)[0]), VECTOR, "chunk", ANOTHER),
    "cumsum": (Function(lambda x: x.cumsum(1)), VECTOR, "cumsum", ANOTHER),
    "sort": (Function(lambda x: x.sort(1)[0]), VECTOR, "sort", ANOTHER),
    "topk": (Function(lambda x: x.topk(2, 1)[0]), VECTOR, "topk", ANOTHER),
    "ceil_mode": (nn.MaxPool2d(3, ceil_mode=True), IMAGE, "max_pool2d", "ceil_mode; use neither"),
    "average_ceil_mode": (nn.AvgPool2d(3, ceil_mode=True), IMAGE, "avg_pool2d", "use neither"),
    "adaptive": (nn.AdaptiveAvgPool2d(3), IMAGE, "adaptive_avg_pool2d", "pool to 1"),
    "complex": (Function(lambda x: torch.fft.fft(x).real), VECTOR, "fft_fft", ANOTHER),
    "float64": (Function(lambda x: x.double()), VECTOR, "to", "model.float()"),
    "float16": (Function(lambda x: x.half().float()), VECTOR, "to", "model.float()"),
    "truncated": (Function(lambda x: x.long().float()), VECTOR, "to", "keep float32"),
    "dropout": (Function(lambda x: F.dropout(x, 0.5, True)), VECTOR, "dropout", "use nn.Dropout"),
    "conv3d": (
        nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 2)), IMAGE, "conv3d", ANOTHER,
    ),
    "batch_mean": (Function(lambda x: x - x.mean(0)), VECTOR, "mean", "each sample must be alone"),
    "batch_softmax": (Function(lambda x: x.softmax(0)), VECTOR, "softmax", "must be alone"),
    "batch_statistics": (
        nn.BatchNorm1d(8, track_running_stats=False), VECTOR, "batch_norm", "use eval mode",
    ),
    "random": (Function(lambda x: x + torch.rand_like(x)), VECTOR, "rand_like", ANOTHER),
    "whole_mean": (Function(lambda x: x.mean()), VECTOR, "mean", "name the axes"),
    "flattened_batch": (Function(lambda x: x.flatten()), VECTOR, "flatten", "keep [batch, ...]"),
    "batch_sized_constant": (
        Function(lambda x: x + torch.zeros(x.shape[0], 1)), VECTOR, "zeros", "do not depend on it",
    ),
    "division": (
        Function(lambda x: x / (x.abs() + 1)), VECTOR, "div", "division of the activation by a",
    ),
    "power": (Function(lambda x: x**3), VECTOR, "pow", "only the power 2"),
    "beta": (nn.Softplus(beta=2), VECTOR, "softplus", "use nn.Softplus()"),
    "late_softplus": (nn.Softplus(threshold=3), VECTOR, "softplus", "use nn.Softplus()"),
    "selu": (nn.SELU(), VECTOR, "selu", ANOTHER),
    "reflection": (nn.ReflectionPad2d(1), IMAGE, "pad", "only constant padding"),
    "uneven_dilation": (
        nn.Conv2d(3, 4, 2, dilation=(1, 2)), IMAGE, "conv2d", "use one number",
    ),
    "maximum": (Function(lambda x: torch.maximum(x, -x)), VECTOR, "maximum", "a number can be"),
    "limits": (
        Function(lambda x: torch.clamp(x, torch.zeros(8), torch.ones(8))),
        VECTOR, "clamp", "use one number",
    ),
    "rounding": (Function(torch.round), VECTOR, "round", "clamp before or after"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_the_message_names_module_operator_and_a_way_out(name):
    module, shape, operator, way_out = UNSUPPORTED[name]
    model = nn.Sequential(nn.Identity(), nn.ModuleDict({"part": module})["part"])
    with pytest.raises(CannotPack) as caught:
        pack(model.eval(), torch.randn(3, *shape))
    assert caught.value.module.split(".")[0] == "1"
    assert caught.value.operator.split(".")[0] == operator
    assert way_out in caught.value.reason
    message = str(caught.value)
    assert "module '1" in message
    assert f"operator {operator}" in message


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(kind):
    operator = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn_tanh"}[kind]
    model = nn.Sequential(nn.Linear(8, 8), Recurrent(kind))
    with pytest.raises(CannotPack, match=ANOTHER) as caught:
        pack(model, torch.randn(2, *SEQUENCE))
    assert caught.value.module == "1.cell"
    assert caught.value.operator.split(".")[0] == operator


@pytest.mark.parametrize(
    "module", [Attention(), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)]
)
def test_attention(module):
    with pytest.raises(CannotPack, match="keep it first|constant matrix") as caught:
        pack(nn.Sequential(nn.Identity(), module), torch.randn(2, *SEQUENCE))
    assert caught.value.module.startswith("1.")
    assert caught.value.operator


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x + 1 if x.sum() > 0 else x, "__bool__"),
        (lambda x: x * float(x.mean()), "__float__"),
        (lambda x: F.conv2d(x[:, None, None], torch.zeros(1, 1, 3, 3)), "conv2d"),
    ],
)
def test_what_torch_export_cannot_follow(function, operator):
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), Function(function)))
    with pytest.raises(CannotPack, match="free of branches on values") as caught:
        pack(model, torch.randn(2, *VECTOR))
    assert caught.value.module == "1.1"
    assert caught.value.operator == operator


def test_a_fixed_batch_size():
    with pytest.raises(CannotPack, match="fixed batch sizes"):
        pack(Function(lambda x: x.reshape(3, 8) + 1), torch.randn(3, *VECTOR))


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


def test_two_inputs():
    x = torch.randn(2, 4)
    with pytest.raises(CannotPack, match="2 inputs were given; models with exactly one input"):
        pack(TwoInputs(), x, x)
    with pytest.raises(CannotPack, match="y"):
        pack(TwoInputs(), x)


@pytest.mark.parametrize("function", [lambda x: (x + 1, x + 2), lambda x: {"a": x, "b": x + 1}])
def test_two_outputs(function):
    with pytest.raises(CannotPack, match="returns 2 outputs; return one tensor"):
        pack(nn.Sequential(nn.ReLU(), Function(function)), torch.randn(2, 4))


def test_an_output_that_is_constant():
    with pytest.raises(CannotPack, match="does not depend on its input"):
        pack(Function(lambda x: torch.zeros(2)), torch.randn(2, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64, torch.bool])
def test_inputs_of_other_dtypes(dtype):
    with pytest.raises(CannotPack, match=r"give float32 \(x.float\(\)\), uint8"):
        pack(nn.Identity(), torch.zeros(2, 4).to(dtype))


def test_five_axes():
    with pytest.raises(CannotPack, match="1 to 4 axes"):
        pack(nn.Identity(), torch.zeros(2, 1, 1, 1, 1, 1))


@pytest.mark.parametrize("size", [256, 300])
def test_sizes_that_do_not_fit_their_field(size):
    with pytest.raises(CannotPack, match="at most 255") as caught:
        pack(nn.Sequential(nn.Conv1d(1, 1, size)), torch.zeros(2, 1, 400))
    assert caught.value.module == "0"


def test_a_large_embedding_index_is_an_error_of_the_program():
    packed = pack(nn.Embedding(10, 3), torch.zeros(2, 4, dtype=torch.int64))
    assert packed.program(torch.full((1, 4), 9, dtype=torch.int32).numpy()).shape == (1, 4, 3)
    with pytest.raises(Exception, match="10"):
        packed.program(torch.full((1, 4), 10, dtype=torch.int32).numpy())


def test_a_refusal_is_said_once_and_torch_prints_nothing_beside_it(capfd):
    branching = Function(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(CannotPack, match="torch.export could not trace it"):
        pack(branching, torch.randn(8, 4))
    assert capfd.readouterr() == ("", "")
