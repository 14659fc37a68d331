"""The sizes that modules keep beside their tensors, such as `in_channels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

_Convolution = nn.modules.conv._ConvNd
_Transposed = nn.modules.conv._ConvTransposeNd
_Norm = nn.modules.batchnorm._NormBase


def fit_sizes(model: nn.Module) -> None:
    """Let the sizes of all layers say what their tensors are, after tensors of other shapes came.

    Without this a layer with fewer channels would run, but print, pack and be counted by its old
    sizes; a convolution with a group for each channel would not run.
    """
    for module in model.modules():
        for kind, adapt in _ADAPTERS:
            if isinstance(module, kind):
                adapt(module)
                break


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _bilinear(module: Any) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _convolution(module: Any) -> None:
    first, second = module.weight.shape[:2]
    transposed = isinstance(module, _Transposed)
    # One group for each input channel stays one, as in depthwise convolutions.
    if module.groups > 1 and module.groups == module.in_channels:
        inputs = first if transposed else first * module.in_channels // module.out_channels
        module.groups = inputs
    grouped = second * module.groups
    module.in_channels, module.out_channels = (first, grouped) if transposed else (grouped, first)


def _norm(module: Any) -> None:
    tensor = module.weight if module.weight is not None else module.running_mean
    if isinstance(tensor, Tensor):
        module.num_features = len(tensor)


def _group_norm(module: Any) -> None:
    if module.weight is not None:
        module.num_channels = len(module.weight)


def _layer_norm(module: Any) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


_ADAPTERS: tuple[tuple[type[nn.Module], Callable[[Any], None]], ...] = (
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (_Convolution, _convolution),
    (_Norm, _norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
)
