"""The way of the data through a model: which step follows which, and which are discrete layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import fx, nn

from whit.errors import NotApplicable


class Call(nn.Module):
    """A call of a function or of a tensor's method in a model's `forward`, as a module.

    Args:
        function: a function, or the name of a method of the input.
        rest: positional arguments after the input.
        named: keyword arguments.
    """

    def __init__(self, function: Any, rest: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Keep the call."""
        super().__init__()
        self.function = function
        self.rest = rest
        self.named = named

    def forward(self, x: Any) -> Any:
        """Return `function(x, *rest, **named)`."""
        if isinstance(self.function, str):
            return getattr(x, self.function)(*self.rest, **self.named)
        return self.function(x, *self.rest, **self.named)


class _Tracer(fx.Tracer):
    """Looks into what holds a discrete layer, and takes all else as it is."""

    def __init__(self, layers: Collection[nn.Module]) -> None:
        super().__init__()
        self.layers = set(layers)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m in self.layers:
            return True
        holds = any(part in self.layers for part in m.modules())
        return not holds and type(m).forward is not nn.Sequential.forward


def trace(model: nn.Module, layers: dict[nn.Module, str]) -> fx.GraphModule:
    """Return the steps of a model with one input; discrete layers are steps of their own.

    Args:
        model: takes one tensor.
        layers: the discrete layers and their paths.

    Raises:
        NotApplicable: the model's `forward` cannot be followed, or it calls a layer twice or never.
    """
    root = nn.Sequential(model)  # so that a model that is one layer is a step too
    try:
        graph = _Tracer(layers).trace(root)
    except Exception as error:  # whatever a forward does that a stand-in for a tensor cannot
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise NotApplicable(
            f"The forward of {type(model).__name__} cannot be followed step by step, which "
            f"coordinate descent needs ({reason}). Write it without decisions that depend on "
            "values or shapes, and with one input, or train this model with another technique."
        ) from error
    steps = fx.GraphModule(root, graph)
    calls = [_module_of(steps, node) for node in graph.nodes]
    for layer, path in layers.items():
        if calls.count(layer) != 1:
            raise NotApplicable(
                f"The layer '{path}' is called {calls.count(layer)} times in one forward; "
                "coordinate descent treats layers that are called once. Leave it out with skip."
            )
    return steps


def _module_of(steps: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return steps.get_submodule(str(node.target)) if node.op == "call_module" else None


def layer_nodes(steps: fx.GraphModule, layers: Collection[nn.Module]) -> list[fx.Node]:
    """Return the steps that are discrete layers, in the order of execution."""
    return [node for node in steps.graph.nodes if _module_of(steps, node) in set(layers)]


def chain(steps: fx.GraphModule, first: fx.Node, last: fx.Node) -> list[nn.Module] | None:
    """Return what lies between two steps as modules in a row; None where it is no single row.

    Args:
        steps: of the model.
        first: a step, not part of the answer.
        last: a step that comes later, not part of the answer.
    """
    row: list[nn.Module] = []
    node = last
    while True:
        before = node.all_input_nodes
        if len(before) != 1 or len(before[0].users) != 1:
            return None
        node = before[0]
        if node is first:
            return row[::-1]
        module = _as_module(steps, node)
        if module is None:
            return None
        row.append(module)


def _as_module(steps: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return a step as a module of its first argument alone, if it is one."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_module":
        plain = len(node.args) == 1 and not node.kwargs
        return steps.get_submodule(str(node.target)) if plain else None
    if node.op in ("call_function", "call_method"):
        return Call(node.target, tuple(node.args[1:]), dict(node.kwargs))
    return None


def whole_chain(steps: fx.GraphModule) -> list[nn.Module]:
    """Return all modules from input to output in a row; empty where the model is no single row."""
    nodes = list(steps.graph.nodes)
    return chain(steps, nodes[0], nodes[-1]) or []
