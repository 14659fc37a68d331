"""Run a model's steps on many candidates at once: only what depends on the changed layer is redone.

Candidates lie in the batch axis: row r of a value belongs to sample `rows[r]`, or, where no rows
are given, the samples are repeated once for each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from whit.procedures.coordinate_descent.channels import ChannelNorm

Values = dict[fx.Node, Any]


class Propagation:
    """The steps of a model, from any of its discrete layers on.

    Args:
        steps: of the model, in float64 and evaluation mode.
        layers: the steps that are discrete layers.

    Attributes:
        norms: the batch norms among the steps.
        sizes: how many numbers a sample each step gives, known after `forward`.
    """

    def __init__(self, steps: fx.GraphModule, layers: Sequence[fx.Node]) -> None:
        """Find what depends on what."""
        self.steps = steps
        self.nodes = list(steps.graph.nodes)
        self.output_node = self.nodes[-1]
        self.norms = [m for m in steps.modules() if isinstance(m, ChannelNorm)]
        self.copies = [1]
        for norm in self.norms:
            norm.copies = self.copies
        self.dependents = {layer: self._after(layer) for layer in layers}
        self.kept = set(layers) | {n for layer in layers for n in layer.all_input_nodes}
        for node in self.nodes:
            if len(node.all_input_nodes) > 1:
                self.kept.update(node.all_input_nodes)
        self.kept.update(self.output_node.all_input_nodes)
        self.inputs_reach = set(self._after(self.nodes[0])) | {self.nodes[0]}
        self.sizes: dict[fx.Node, float] = {}
        self._macs: dict[fx.Node, int] = {}
        self._modules = {
            node: steps.get_submodule(str(node.target))
            for node in self.nodes
            if node.op == "call_module"
        }
        self._last_uses = self._find_last_uses()

    def _after(self, layer: fx.Node) -> list[fx.Node]:
        reached = {layer}
        for node in self.nodes:
            if any(before in reached for before in node.all_input_nodes):
                reached.add(node)
        return [n for n in self.nodes if n in reached and n is not layer and n.op != "output"]

    @property
    def batchwise(self) -> bool:
        """Whether the samples of a candidate depend on each other (statistics of the batch)."""
        return any(norm.batch for norm in self.norms)

    def forward(self, inputs: Tensor) -> Values:
        """Run everything; return the values that later questions need, and those of the layers."""
        values: Values = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = inputs
            elif node.op != "output":
                values[node] = self._run(node, values)
            if node.op != "output" and isinstance(values[node], Tensor):
                self.sizes[node] = values[node].numel() / len(inputs)
            for old in self._last_uses.get(node, ()):
                if old not in self.kept:
                    values.pop(old, None)
        return values

    def _find_last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            for before in node.all_input_nodes:
                last[before] = node
        uses: dict[fx.Node, list[fx.Node]] = {}
        for before, node in last.items():
            uses.setdefault(node, []).append(before)
        return uses

    def forward_from(self, layer: fx.Node, value: Tensor, values: Values) -> Values:
        """Return all values after a layer's output has changed; old values are left as they are."""
        fresh = dict(values)
        fresh[layer] = value
        for node in self.dependents[layer]:
            fresh[node] = self._run(node, fresh)
        return {node: held for node, held in fresh.items() if node in self.kept}

    def output(self, values: Values) -> Tensor:
        """Return the model's output."""
        result: Tensor = values[self.output_node.all_input_nodes[0]]
        return result

    def onward(
        self, layer: fx.Node, value: Tensor, values: Values, copies: int, rows: Tensor | None = None
    ) -> Tensor:
        """Return the model's outputs for candidates that differ in a layer's output.

        Shapes: value [rows, ...] -> [rows, ...].

        Args:
            layer: whose output is given.
            value: for every row.
            values: of all samples as the network is.
            copies: how many candidates there are; only used where no rows are given.
            rows: int64, the sample of every row; None for all samples of each candidate in turn.
        """
        fresh: Values = {layer: value}
        self.copies[0] = copies
        try:
            for node in self.dependents[layer]:
                for before in node.all_input_nodes:
                    if before not in fresh:
                        of_samples = before in self.inputs_reach
                        held = values[before]
                        fresh[before] = _repeated(held, copies, rows) if of_samples else held
                fresh[node] = self._run(node, fresh)
        finally:
            self.copies[0] = 1
        return self.output(fresh)

    def forward_macs(self, sample: Tensor) -> int:
        """Return the multiply-accumulates of `forward` for one sample [1, ...]."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.forward(sample)
        return int(counter.get_total_flops()) // 2

    def macs_after(self, layer: fx.Node, value: Tensor, values: Values) -> int:
        """Return the multiply-accumulates of one row of `onward`, counted once a layer."""
        if layer not in self._macs:
            row = torch.zeros(1, dtype=torch.int64)
            with FlopCounterMode(display=False) as counter:
                self.onward(layer, value[:1], values, 1, row)
            self._macs[layer] = int(counter.get_total_flops()) // 2
        return self._macs[layer]

    def _run(self, node: fx.Node, values: Values) -> Any:
        def held(argument: fx.Node) -> Any:
            return values[argument]

        args = fx.map_arg(node.args, held)
        named = fx.map_arg(node.kwargs, held)
        if node.op == "call_module":
            module = self._modules[node]
            if _of_the_user(module) and args and isinstance(args[0], Tensor):
                args = (args[0].clone(), *args[1:])  # its forward may work in place
            return module(*args, **named)
        if node.op == "get_attr":
            return _attribute(self.steps, str(node.target))
        # Calls in place would change values that are kept.
        if args and isinstance(args[0], Tensor):
            args = (args[0].clone() if _in_place(node) else args[0], *args[1:])
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **named)
        assert callable(node.target)
        return node.target(*args, **named)


def _in_place(node: fx.Node) -> bool:
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    arithmetic = getattr(node.target, "__module__", "") == "_operator" and name.startswith("i")
    told = bool(node.kwargs.get("inplace")) or any(a is True for a in node.args[1:])
    return name.endswith("_") or told or arithmetic


def _of_the_user(module: nn.Module) -> bool:
    return not type(module).__module__.startswith(("torch.", "whit."))


def _attribute(root: nn.Module, path: str) -> Any:
    holder, _, name = path.rpartition(".")
    return getattr(root.get_submodule(holder), name)


def _repeated(value: Any, copies: int, rows: Tensor | None) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if rows is not None:
        return value.index_select(0, rows)
    return value.repeat(copies, *[1] * (value.dim() - 1))
