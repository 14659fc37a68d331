"""Every ATen operator that the packer knows, and what lowers it.

A new operator is one function in the ``aten_*`` file of its theme and one entry in ``HANDLERS``.
"""

from collections.abc import Callable
from typing import Any

import torch

from whit.packing import aten_elementwise as elementwise
from whit.packing import aten_matrices as matrices
from whit.packing import aten_shapes as shapes
from whit.packing.in_place import DROPOUTS
from whit.packing.symbols import Call

aten = torch.ops.aten

UNCHANGED = {
    aten.alias, aten.detach, aten.clone, aten.contiguous, aten._to_copy, aten.to,
    aten.lift_fresh_copy, aten.type_as,
}  # fmt: skip
HANDLERS: dict[Any, Callable[[Call], Any]] = {
    **dict.fromkeys(UNCHANGED, elementwise.unchanged),
    **dict.fromkeys(elementwise.COMPARISONS, elementwise.lower_comparison),
    **dict.fromkeys(elementwise.CURVES, elementwise.lower_curve),
    **dict.fromkeys(
        (aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.neg), elementwise.lower_arithmetic
    ),
    **dict.fromkeys(
        (aten.clamp, aten.hardtanh, aten.relu6, aten.clamp_min, aten.clamp_max),
        elementwise.lower_clamp,
    ),
    **dict.fromkeys((aten.minimum, aten.maximum), elementwise.lower_extreme),
    **dict.fromkeys((aten.round, aten.floor, aten.ceil), elementwise.lower_round),
    **dict.fromkeys((aten.leaky_relu, aten.prelu), elementwise.lower_leaky_relu),
    **dict.fromkeys((aten.relu, aten.relu_), elementwise.lower_relu),
    **dict.fromkeys(DROPOUTS, elementwise.lower_dropout),
    aten.sign: elementwise.lower_sign,
    **dict.fromkeys((aten.conv1d, aten.conv2d), matrices.lower_conv),
    aten.linear: matrices.lower_linear,
    **dict.fromkeys((aten.matmul, aten.mm), matrices.lower_matmul),
    aten.addmm: matrices.lower_addmm,
    aten.embedding: matrices.lower_embedding,
    aten.batch_norm: matrices.lower_batch_norm,
    aten.layer_norm: matrices.lower_layer_norm,
    aten.group_norm: matrices.lower_group_norm,
    aten.instance_norm: matrices.lower_instance_norm,
    **dict.fromkeys(
        (aten.flatten, aten.view, aten.reshape, aten._unsafe_view), shapes.lower_reshape
    ),
    **dict.fromkeys((aten.unsqueeze, aten.squeeze, aten.unflatten), shapes.lower_reshape),
    **dict.fromkeys((aten.permute, aten.transpose), shapes.lower_transpose),
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), shapes.lower_pad),
    **dict.fromkeys((aten.max_pool1d, aten.max_pool2d), shapes.lower_max_pool),
    **dict.fromkeys(
        (aten.max_pool2d_with_indices, aten.max_pool1d_with_indices),
        shapes.lower_max_pool_with_positions,
    ),
    **dict.fromkeys((aten.avg_pool1d, aten.avg_pool2d), shapes.lower_avg_pool),
    **dict.fromkeys(
        (aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d), shapes.lower_adaptive_avg_pool
    ),
    **dict.fromkeys(
        (aten.adaptive_max_pool1d, aten.adaptive_max_pool2d), shapes.lower_adaptive_max_pool
    ),
    **dict.fromkeys((aten.mean, aten.sum, aten.amax), shapes.lower_reduce),
    **dict.fromkeys((aten.softmax, aten.log_softmax), shapes.lower_softmax),
    **dict.fromkeys((aten.cat, aten.concat), shapes.lower_concat),
    aten.max: shapes.lower_max_over_axis,
    aten.stack: shapes.lower_stack,
    aten.channel_shuffle: shapes.lower_channel_shuffle,
}
