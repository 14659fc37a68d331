"""An ONNX graph while it is being built: nodes, constants and values, without the package onnx.

A value of the program becomes one tensor. Its form, the dtype of that tensor, follows from its
domain: raw and quantised bytes stay ``uint8`` and ``int8``; signs travel as float32 +1 and -1,
16-bit integers as float32 (exact, and every tool knows it); exact sums are float32 where all of
them stay below 2^24, and ``int32`` where they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.runtime.layout import Activation

Array = NDArray[Any]

FORMS = {"uint8": "uint8", "int8": "int8"}
LIMITS = {"uint8": 255, "int8": 128, "int16": 1 << 15, "int32": 1 << 31, "sign": 1}
EXACT_FLOAT = 1 << 24  # every integer below is a float32, so are all partial sums of a product


@dataclass(frozen=True)
class Node:
    """One ONNX node; attributes are numbers, lists of numbers, or an array for a constant."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A value of the program as a tensor of the graph.

    Args:
        tensor: name of the tensor [batch, *shape].
        shape: shape of one sample.
        domain: domain of the value in the program.
        form: dtype of the tensor.
        limit: largest magnitude that an integer of it can have; 0 for floats.
    """

    tensor: str
    shape: tuple[int, ...]
    domain: str
    form: str = "float32"
    limit: int = 0

    def moved(self, tensor: str, result: Activation) -> Value:
        """Return the same numbers in another order or shape."""
        return replace(self, tensor=tensor, shape=result.shape)


def value_of(tensor: str, result: Activation, limit: int | None = None) -> Value:
    """Return the value of a tensor that has the usual form of its domain."""
    form = FORMS.get(result.domain, "float32")
    known = LIMITS.get(result.domain, 0) if limit is None else limit
    return Value(tensor, result.shape, result.domain, form, known)


@dataclass
class Graph:
    """Nodes and constants so far; the same node or constant asked for twice is made once."""

    scope: str = ""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    _known: dict[Any, tuple[str, ...]] = field(default_factory=dict)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; return the name of its tensor."""
        return self.nodes_of(operator, 1, *inputs, **attributes)[0]

    def nodes_of(
        self, operator: str, outputs: int, *inputs: str, **attributes: Any
    ) -> tuple[str, ...]:
        """Append a node with several outputs; return the names of its tensors."""
        key = (operator, outputs, inputs, repr(sorted(attributes.items())))
        if key not in self._known:
            base = f"{self.scope}/{operator}_{len(self.nodes)}"
            names = (base, *(f"{base}_{number}" for number in range(1, outputs)))
            self.nodes.append(Node(operator, inputs, names, attributes))
            self._known[key] = names
        return self._known[key]

    def constant(self, array: Array) -> str:
        """Return the name of a constant tensor."""
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = (self.own_constant(array),)
        return self._known[key][0]

    def own_constant(self, array: Array) -> str:
        """Return the name of a constant tensor that no other node shares.

        ONNX Runtime rewrites the constants of DequantizeLinear and stumbles over shared ones.
        """
        name = f"{self.scope}/constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def number(self, value: float, form: str = "float32") -> str:
        """Return the name of a constant scalar."""
        return self.constant(np.array(value, dtype=form))

    def integers(self, *values: int) -> str:
        """Return the name of a constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def cast(self, tensor: str, form: str) -> str:
        """Return a tensor as another dtype."""
        return self.node("Cast", tensor, to=form)

    def floats(self, value: Value) -> str:
        """Return the tensor of a value as float32."""
        return value.tensor if value.form == "float32" else self.cast(value.tensor, "float32")

    def dequantized(self, value: Value) -> str:
        """Return bytes as float32 by DequantizeLinear, where tools look for it."""
        if value.form not in FORMS:
            return self.floats(value)
        one, zero = self.number(1), self.number(0, value.form)
        return self.node("DequantizeLinear", value.tensor, one, zero)

    def comparable(self, value: Value) -> tuple[str, str]:
        """Return a tensor that holds every number of a value exactly, and its float dtype."""
        if value.form == "int32":
            return self.cast(value.tensor, "float64"), "float64"
        return self.floats(value), "float32"

    def reshape(self, tensor: str, shape: tuple[int, ...]) -> str:
        """Give every sample another shape; the batch axis stays."""
        return self.node("Reshape", tensor, self.integers(0, *shape))

    def named(self, tensor: str, name: str) -> None:
        """Give the tensor that a node makes its final name.

        Args:
            tensor: as the node was given it; a tensor that no node makes is passed on.
            name: the new name.
        """
        if not any(tensor in node.outputs for node in self.nodes):
            self.nodes.append(Node("Identity", (tensor,), (name,), {}))
            return

        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name if each == tensor else each for each in names)

        self.nodes = [
            replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs))
            for node in self.nodes
        ]


def per_channel(constants: Array, rank: int) -> Array:
    """Shape one constant, or one a channel, so that it broadcasts over [batch, channel, ...].

    Args:
        constants: [1] or [channels].
        rank: axes of one sample.
    """
    return constants.reshape((-1,) + (1,) * (rank - 1))
