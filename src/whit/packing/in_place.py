"""Operators that change a tensor in place (``relu_``, ``add_``): what they compute, and when not.

A changed tensor gets a new value by name. That is right only while nothing else shows the same
memory, so views that are read afterwards are refused.
"""

from typing import Any

import torch

from whit.errors import CannotPack

DROPOUTS = (
    torch.ops.aten.dropout,
    torch.ops.aten.feature_dropout,
    torch.ops.aten.alpha_dropout,
    torch.ops.aten.feature_alpha_dropout,
)


def is_in_place(node: torch.fx.Node) -> bool:
    """Say whether a call changes its first argument."""
    return str(node.target).removeprefix("aten.").split(".")[0].endswith("_")


def functional(node: torch.fx.Node) -> Any:
    """Return the ATen overload that computes the same in a new tensor; itself where there is none.

    Args:
        node: a call of an ATen overload.
    """
    target: Any = node.target
    packet = getattr(target, "overloadpacket", None)
    if packet is None or not is_in_place(node):
        return target
    name = str(packet).removeprefix("aten.").rstrip("_")
    plain = getattr(torch.ops.aten, name, None)
    return getattr(plain, target._overloadname, target)


def check_views(node: torch.fx.Node, module: str) -> None:
    """Refuse a change in place that a later operator would see through another view.

    Args:
        node: a call that changes its first argument.
        module: its path, for the message.

    Raises:
        CannotPack: another tensor of the same memory is read afterwards.
    """
    changed = node.all_input_nodes[0]
    memory = _memory(changed)
    before: list[torch.fx.Node] = []
    for other in node.graph.nodes:
        if other is node:
            break
        before.append(other)
    known = set(before)
    for other in before:
        later = any(user is not node and user not in known for user in other.users)
        if other is not changed and later and memory is not None and _memory(other) == memory:
            raise CannotPack(
                f"it changes a tensor in place of which '{other.name}' is another view that is "
                "read afterwards; use the operator that makes a new tensor",
                module,
                str(node.target).removeprefix("aten."),
            )


def _memory(node: torch.fx.Node) -> int | None:
    if getattr(node.target, "overloadpacket", None) in DROPOUTS:
        return _memory(node.all_input_nodes[0])  # in eval mode it returns its very input
    value = node.meta.get("val")
    return int(value.untyped_storage()._cdata) if isinstance(value, torch.Tensor) else None
