"""Groups and routes: their members are exported alone and put together again in the file.

torch.export follows neither a vmapped group nor a branch that depends on data. So each outermost
`Group` or `Route` is replaced by one opaque call before the export, and lowered by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whit.errors import CannotPack
from whit.packing.graph_nodes import (
    InputNode,
    Node,
    OperatorNode,
    RouteNode,
    in_order,
    reshaped,
)
from whit.packing.symbols import Call, Data
from whit.parts.features import WithFeatures
from whit.parts.group import Group
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule, Route
from whit.runtime.layout import MAX_RANK
from whit.runtime.operators import Concat
from whit.runtime.operators import Route as RouteOperator

Lower = Callable[[nn.Module, Tensor, Node | None], Data]
_NO_GROUP = 255


@dataclass(frozen=True, eq=False)
class Hidden:
    """A group or route that was taken out of a model.

    Args:
        path: of the module.
        module: the group or route.
        example: what it was called with.
    """

    path: str
    module: Group | Route
    example: Tensor


@torch.library.custom_op("whit::hidden", mutates_args=())
def _hidden(x: Tensor, number: int, members: int, sizes: list[int]) -> Tensor:
    return x.new_zeros(([members] if members else []) + [x.shape[0], *sizes], dtype=torch.float32)


@_hidden.register_fake
def _(x: Tensor, number: int, members: int, sizes: list[int]) -> Tensor:
    return x.new_empty(([members] if members else []) + [x.shape[0], *sizes], dtype=torch.float32)


class _Stub(nn.Module):
    def __init__(self, number: int, members: int, sizes: list[int]) -> None:
        super().__init__()
        self.number, self.count, self.sizes = number, members, sizes

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.whit.hidden(x, self.number, self.count, self.sizes)
        return result


def hide_subnetworks(model: nn.Module, example: Tensor) -> tuple[nn.Module, list[Hidden]]:
    """Replace every outermost group and route of a baked copy by a stub.

    Args:
        model: baked; changed in place.
        example: [batch, ...], what the model is called with.

    Returns:
        The model (a stub where it is itself a group or route) and what was hidden, by number.

    Raises:
        CannotPack: a group or route is called with several inputs, more than once, or never, or
            its members get inputs of their own.
    """
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, Group | Route)]
    outermost = [
        (path, module)
        for path, module in found
        if not any(path != other and (path + ".").startswith(f"{other}.") for other, _ in found)
        and not (path and isinstance(model, Group | Route))
    ]
    if not outermost:
        return model, []
    for path, module in outermost:
        if isinstance(module, Group) and module.own_inputs:
            raise CannotPack(
                "its members get inputs of their own (own_inputs=True), which one input of a file "
                "cannot give; set group.own_inputs = False to send the same input to all",
                path,
                "Group",
            )
    calls = _record_calls(model, [module for _, module in outermost], example)
    hidden: list[Hidden] = []
    for path, module in outermost:
        inputs, output = _only_call(calls.get(id(module), []), path)
        members = len(module.members) if isinstance(module, Group) else 0
        stub = _Stub(len(hidden), members, list(output.shape[2 if members else 1 :]))
        hidden.append(Hidden(path, module, inputs))
        if not path:
            return stub, hidden
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, stub)
    return model, hidden


Calls = dict[int, list[tuple[tuple[Tensor, ...], Tensor]]]


def _record_calls(model: nn.Module, modules: list[Group | Route], example: Tensor) -> Calls:
    calls: Calls = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.setdefault(id(module), []).append((inputs, output))

    handles = [module.register_forward_hook(record) for module in modules]
    try:
        with torch.no_grad():
            model(example)
    except Exception as error:  # whatever the user's own forward raises
        first = str(error).strip().splitlines()[:1]
        raise CannotPack(
            f"it fails on the example ({type(error).__name__}: {first[0] if first else ''}); give "
            "an example of the shape and dtype that it takes"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _only_call(calls: list[tuple[tuple[Tensor, ...], Tensor]], path: str) -> tuple[Tensor, Tensor]:
    if len(calls) != 1 or len(calls[0][0]) != 1:
        raise CannotPack(
            f"it is called {len(calls)} times"
            + (f" with {len(calls[0][0])} inputs" if calls else "")
            + "; a group or route is packed where it is called once, with one input",
            path,
        )
    (inputs,), output = calls[0]
    return inputs, output


def lower_subnetwork(call: Call, hidden: list[Hidden], lower: Lower) -> Data:
    """Lower a hidden group or route where its stub is called."""
    taken = hidden[call.arguments[1]]
    if isinstance(taken.module, Group):
        return _lower_group(call, taken, lower)
    return _lower_route(call, taken, lower)


def _lower_group(call: Call, taken: Hidden, lower: Lower) -> Data:
    outputs: list[Node] = []
    for number, member in enumerate(taken.module.members):
        path = _inside(taken.path, f"members.{number}")
        result = _lower_member(member, taken.example, call.data.node, path, lower)
        if result.leading or len(result.shape) >= MAX_RANK:
            raise call.refuse(f"the output of member {number} has too many axes to be stacked")
        outputs.append(reshaped(result.node, (1, *result.shape)))
    return call.now(concatenated(outputs, 0, call.module), leading=True)


def concatenated(parts: list[Node], axis: int, module: str) -> Node:
    """Return the parts one after the other along an axis of a sample."""
    whole = parts[0]
    for part in parts[1:]:
        sizes = list(whole.shape)
        sizes[axis] += part.shape[axis]
        whole = OperatorNode(
            module=module, shape=tuple(sizes), sources=(whole, part), operator=Concat(axis)
        )
    return whole


def _lower_route(call: Call, taken: Hidden, lower: Lower) -> Data:
    route = taken.module
    assert isinstance(route, Route)
    first = _lower_first(call, taken, route, lower)
    used = sorted({k for strategy in route.strategies for k in strategy if k > 0})
    members = []
    for number in used:
        source = InputNode(module="", shape=call.data.shape, domain="")
        path = _inside(taken.path, f"members.{number}")
        result = _lower_member(route.members[number], taken.example, source, path, lower)
        members.append((source, result.node))
    place = {0: 0, **{number: k for k, number in enumerate(used, start=1)}}
    operator = RouteOperator(
        strategies=tuple(tuple(place[k] for k in strategy) for strategy in route.strategies),
        members=len(members),
        **_rule(route.rule, call),
    )
    deciding = operator.deciding
    node = RouteNode(
        module=taken.path,
        shape=(first.shape[0] - deciding, *first.shape[1:]),
        sources=(first.node, call.data.node),
        route=operator,
        members=tuple(members),
    )
    return call.now(node)


def _lower_first(call: Call, taken: Hidden, route: Route, lower: Lower) -> Data:
    """Lower member 0, with the deciding scores behind its own where a head chooses."""
    path = _inside(taken.path, "members.0")
    if not isinstance(route.rule, FeatureRule):
        return _lower_member(route.members[0], taken.example, call.data.node, path, lower)
    both = _ScoresAndDecision(route.members[0], route.rule.head)
    places = {
        "features.network": path,
        "head": _inside(taken.path, "rule.head"),
        "": taken.path,
    }
    return _lower_member(both, taken.example, call.data.node, places, lower)


class _ScoresAndDecision(nn.Module):
    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = WithFeatures(network)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        scores, features = self.features(x)
        return torch.cat([scores, self.head(features)], 1)


Places = dict[str, str]  # prefix of a path inside what is lowered -> path in the whole model


def _lower_member(
    member: nn.Module, example: Tensor, source: Node, places: str | Places, lower: Lower
) -> Data:
    """Lower one member; its module paths are those of the whole model."""
    known = {"": places} if isinstance(places, str) else places
    try:
        result = lower(member, example, source)
    except CannotPack as error:
        inside = _placed(error.module, known)
        raise CannotPack(error.reason, inside, error.operator) from error
    return replace(result, node=_renamed(result.node, known, source))


def _renamed(output: Node, places: Places, source: Node) -> Node:
    renamed: dict[int, Node] = {}
    outside = {id(node) for node in in_order(source)}
    for node in in_order(output):
        if id(node) in outside:
            renamed[id(node)] = node
            continue
        sources = tuple(renamed[id(one)] for one in node.sources)
        module = _placed(node.module, places)
        renamed[id(node)] = replace(node, module=module, sources=sources)
    return renamed[id(output)]


def _placed(module: str, places: Places) -> str:
    """Return the path in the whole model; of several prefixes the longest counts."""
    for prefix in sorted(places, key=len, reverse=True):
        if not prefix or f"{module}.".startswith(f"{prefix}."):
            return _inside(places[prefix], module[len(prefix) :].lstrip("."))
    return module


def _inside(path: str, name: str) -> str:
    return ".".join(part for part in (path, name) if part)


def _rule(rule: nn.Module, call: Call) -> dict[str, Any]:
    """Return margin, temperature and what chooses behind them, as arguments of the operator."""
    familiar = rule if isinstance(rule, MarginRule) else getattr(rule, "familiar", None)
    if not isinstance(rule, MarginRule | GroupSumRule | FeatureRule):
        raise call.refuse(
            f"the rule {type(rule).__name__} cannot be written; use MarginRule, GroupSumRule or "
            "FeatureRule of whit.parts.route"
        )
    assert isinstance(familiar, MarginRule)
    chosen: dict[str, Any] = {"group_of": (), "groups": 0}
    if isinstance(rule, GroupSumRule):
        known = rule.membership
        group_of = torch.where(known.any(1), known.argmax(1), _NO_GROUP)
        chosen = {"group_of": tuple(group_of.tolist()), "groups": known.shape[1]}
    elif isinstance(rule, FeatureRule):
        chosen["deciding"] = rule.situations - 1
    return {"margin": float(familiar.margin), "temperature": float(familiar.temperature), **chosen}
