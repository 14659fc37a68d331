"""The ONNX file itself; the only file that speaks to the package `onnx`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from whit.errors import MissingExtra
from whit.export.onnx_build import INPUT, OUTPUT, Built
from whit.export.onnx_graph import Node
from whit.runtime import Program
from whit.runtime.program import RESERVED_INFO

if TYPE_CHECKING:
    import onnx

OPSET = 17  # LayerNormalization; QDQ for each row since 13: old tools read it
IR_VERSION = 8  # the one of opset 17
BATCH = "batch"


def model_of(program: Program, built: Built) -> onnx.ModelProto:
    """Return the checked ONNX model of a graph.

    Args:
        program: where input, output, labels and texts come from.
        built: the graph.

    Raises:
        MissingExtra: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtra("onnx", "onnx") from None
    helper = onnx.helper
    shape: list[int | str] = list(program.output_shape)
    batch_axis = 1 if program.leading else 0
    shape.insert(batch_axis, BATCH)
    graph = helper.make_graph(
        [_node(onnx, node) for node in built.graph.nodes],
        "whit",
        [_tensor(onnx, INPUT, program.input.dtype, [BATCH, *program.input.shape])],
        [_tensor(onnx, OUTPUT, "float32", shape)],
        [onnx.numpy_helper.from_array(a, name) for name, a in built.graph.constants.items()],
        doc_string=_description(program),
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="whit"
    )
    model.doc_string = graph.doc_string
    helper.set_model_props(model, _texts(program))
    onnx.checker.check_model(model, full_check=True)
    return model


def with_outputs(model: onnx.ModelProto, tensors: list[str]) -> bytes:
    """Return the model as bytes with further tensors as outputs."""
    import onnx

    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {output.name for output in wider.graph.output}
    for name in dict.fromkeys(tensors):
        if name not in known:
            wider.graph.output.append(onnx.ValueInfoProto(name=name))
    return bytes(wider.SerializeToString())


def _node(onnx: Any, node: Node) -> Any:
    attributes = dict(node.attributes)
    if "to" in attributes:
        attributes["to"] = _type(onnx, attributes["to"])
    name = node.outputs[0]
    return onnx.helper.make_node(node.operator, node.inputs, node.outputs, name=name, **attributes)


def _tensor(onnx: Any, name: str, dtype: str, shape: list[Any]) -> Any:
    return onnx.helper.make_tensor_value_info(name, _type(onnx, dtype), shape)


def _type(onnx: Any, dtype: str) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _texts(program: Program) -> dict[str, str]:
    texts = {name: text for name, text in program.info.items() if name not in RESERVED_INFO}
    if program.labels:
        texts["labels"] = json.dumps(program.labels, ensure_ascii=False)
    if program.input.range:
        texts["input_range"] = json.dumps([float(n) for n in program.input.range])
    return texts


def _description(program: Program) -> str:
    known = program.input.range
    span = f" of {known[0]:g} to {known[1]:g}" if known else ""
    return (
        f"Exported by whit from a packed .whit file. Input: raw {program.input.dtype} values{span};"
        " the first axis is the batch; whatever scaling the network needs is part of the graph. "
        "Labels (JSON list), task and spec are in the metadata."
    )
