"""Alike members of a group as one batched computation.

Chains of linear layers, batch norm and elementwise functions are run by hand: one batched product
a layer, with the members' weights stacked in the call. The stack is differentiable, so the
members keep their own parameters and whatever changes those is seen. Everything else goes through
`torch.func.vmap`.

Inside of a chain, values are [members, features, batch]: the members' features are then channels
beside one another, which batch norm takes as they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from whit.errors import WhitError
from whit.parts.normalise import Normalise

ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Dropout,
)  # fmt: skip
_IN_A_CHAIN = frozenset((*ELEMENTWISE, Normalise, nn.Flatten, nn.Linear, nn.BatchNorm1d))
Layers = list[tuple[nn.Module, ...]]


def require_alike(members: Sequence[nn.Module]) -> None:
    """Refuse members that differ in more than the values of their tensors.

    Raises:
        WhitError: says which member and what differs.
    """
    first = _description(members[0])
    for number, member in enumerate(members[1:], start=1):
        other = _description(member)
        if other == first:
            continue
        differing = [
            f"{b or 'nothing'} (member 0: {a or 'nothing'})"
            for a, b in ((first.get(k, ""), other.get(k, "")) for k in {**first, **other})
            if a != b
        ]
        raise WhitError(
            "A Group with way='batched' needs alike members: the same modules, and tensors of the "
            f"same shapes. Member {number} has {differing[0]}. Build them alike, or use "
            "way='one_by_one'."
        )


def _description(member: nn.Module) -> dict[str, str]:
    found = {}
    for name, module in member.named_modules():
        # Only torch's own: another module's repr may show values, and values may differ.
        settings = module.extra_repr() if type(module).__module__.startswith("torch.nn") else ""
        found[f"module {name}"] = f"'{name}' = {type(module).__qualname__}({settings})"
    for name, tensor in member.state_dict().items():
        found[f"tensor {name}"] = f"'{name}' of shape {list(tensor.shape)}, {tensor.dtype}"
    return found


def run_batched(members: Sequence[nn.Module], inputs: Sequence[Tensor], own_inputs: bool) -> Tensor:
    """Return the members' outputs from one batched computation.

    Args:
        members: alike, as `require_alike` wants them.
        inputs: each [batch, ...]; with `own_inputs` [members, batch, ...].
        own_inputs: each member has its own batch.

    Shapes: -> [members, batch, ...].

    Raises:
        WhitError: members differ, one sample meets batch norm, or vmap cannot run them.
    """
    layers = _chain(members)
    if layers is not None and len(inputs) == 1 and _fits(layers, inputs[0].dim() - own_inputs):
        x = inputs[0] if own_inputs else inputs[0].unsqueeze(0)
        return _run_chain(layers, x, len(members))
    _require_one_mode(members)
    return _run_vmap(members, inputs, own_inputs)


def _require_one_mode(members: Sequence[nn.Module]) -> None:
    for modules in zip(*(m.modules() for m in members), strict=False):
        if any(m.training != modules[0].training for m in modules):
            raise WhitError(
                f"A Group with way='batched' has members of which some are in training mode and "
                f"others in evaluation mode ({type(modules[0]).__name__}). Call group.train() or "
                "group.eval(), or use way='one_by_one'."
            )


def _chain(members: Sequence[nn.Module]) -> Layers | None:
    """Return the members' layers side by side, or None where they are no chains of one mode.

    Anything may have changed a member since the last call, so this is looked up in every call,
    and written to be quick.
    """
    columns: list[list[nn.Module]] = []
    for member in members:
        column: list[nn.Module] = []
        if not _collect(member, column):
            return None
        columns.append(column)
    layers = list(zip(*columns, strict=False))
    if any(len(column) != len(layers) for column in columns):
        return None
    for layer in layers:
        kind, training = type(layer[0]), layer[0].training
        for module in layer:
            if type(module) is not kind or module.training is not training:
                return None
    return layers


def _collect(module: nn.Module, column: list[nn.Module]) -> bool:
    """Add a module's layers to the column; False where one cannot be in a chain."""
    inside = module.__dict__
    if (
        inside["_forward_hooks"]
        or inside["_forward_pre_hooks"]
        or inside["_backward_hooks"]
        or inside["_backward_pre_hooks"]
    ):
        return False
    kind = type(module)
    if kind is nn.Sequential:
        return all(_collect(child, column) for child in inside["_modules"].values())
    column.append(module)
    return kind in _IN_A_CHAIN


def _fits(layers: Layers, axes: int) -> bool:
    """Say whether every layer meets the [batch, features] that the chain is written for."""
    for first, *_ in layers:
        if isinstance(first, nn.Flatten):
            if (first.start_dim, first.end_dim) != (1, -1) or axes < 2:
                return False
            axes = 2
        elif isinstance(first, nn.Linear | nn.BatchNorm1d) and axes != 2:
            return False
        if isinstance(first, nn.BatchNorm1d) and (
            first.momentum is None or not first.track_running_stats
        ):
            return False
    return True


def _run_chain(layers: Layers, x: Tensor, members: int) -> Tensor:
    """Run a chain on [members or 1, batch, ...]."""
    features_first = False
    for layer in layers:
        first = layer[0]
        if isinstance(first, nn.Linear | nn.BatchNorm1d):
            x = x if features_first else x.transpose(1, 2)
            features_first = True
            x = _linear(layer, x) if isinstance(first, nn.Linear) else _batch_norm(layer, x)
        elif isinstance(first, nn.Flatten):
            x = x if features_first else x.flatten(2)
        elif isinstance(first, Normalise):
            x = _normalise(layer, x, features_first)
        else:
            if isinstance(first, nn.Dropout) and len(x) < members:
                x = x.repeat(members, *[1] * (x.dim() - 1))  # each member draws for itself
            x = first(x)
    x = x.transpose(1, 2) if features_first else x
    # A copy for each member: without a layer with weights, this may still be the caller's input.
    return x if len(x) == members else x.repeat(members, *[1] * (x.dim() - 1))


def _parameters(layer: Sequence[nn.Module], name: str) -> Tensor:
    # Not by getattr, which is slow for parameters.
    return torch.stack([module._parameters[name] for module in layer])  # type: ignore[misc]


def _buffers(layer: Sequence[nn.Module], name: str) -> list[Tensor]:
    return [module._buffers[name] for module in layer]  # type: ignore[misc]


def _linear(layer: Sequence[nn.Module], x: Tensor) -> Tensor:
    """[members or 1, inputs, batch] -> [members, outputs, batch]."""
    weight = _parameters(layer, "weight")
    if len(x) == 1:
        product = (weight.flatten(0, 1) @ x[0]).view(*weight.shape[:2], -1)
    else:
        product = torch.bmm(weight, x)
    if layer[0]._parameters["bias"] is None:
        return product
    return product + _parameters(layer, "bias").unsqueeze(2)


def _batch_norm(layer: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Normalise [members or 1, features, batch]; each member has its own statistics."""
    first = layer[0]
    assert isinstance(first, nn.BatchNorm1d)
    members, batch = len(layer), x.shape[2]
    if first.training and batch == 1:
        raise WhitError(
            f"A Group with way='batched' was given one sample in training mode, and its members "
            f"have batch norm ({first}), which needs at least 2 samples to normalise over. Use a "
            "larger batch, or group.eval()."
        )
    side_by_side = x.expand(members, *x.shape[1:]).reshape(1, -1, batch)
    means, variances = _buffers(layer, "running_mean"), _buffers(layer, "running_var")
    mean, variance = torch.cat(means), torch.cat(variances)
    scale = _parameters(layer, "weight").flatten() if first.affine else None
    shift = _parameters(layer, "bias").flatten() if first.affine else None
    assert first.momentum is not None
    normal = functional.batch_norm(
        side_by_side, mean, variance, scale, shift,
        first.training, first.momentum, first.eps,
    )  # fmt: skip
    if first.training:
        with torch.no_grad():
            torch._foreach_copy_(
                means + variances, [*mean.chunk(members), *variance.chunk(members)]
            )
            torch._foreach_add_(_buffers(layer, "num_batches_tracked"), 1)
    return normal.view(members, -1, batch)


def _normalise(layer: Sequence[nn.Module], x: Tensor, features_first: bool) -> Tensor:
    """Shift and scale [members or 1, batch, ...], each member by its own constants."""
    constants = [_buffers(layer, name) for name in ("shift", "scale")]
    x = x.transpose(1, 2) if features_first else x
    if len(x) == 1 and all(torch.equal(own[0], other) for own in constants for other in own[1:]):
        x = layer[0](x)  # the members share the values, and the next product is one for all
    else:
        shift, scale = (_against_samples(torch.stack(own), x.dim()) for own in constants)
        x = (x - shift) / scale
    return x.transpose(1, 2) if features_first else x


def _against_samples(constants: Tensor, axes: int) -> Tensor:
    """Return [members, ...] with axes of 1 put in, to meet [members, batch, ...] of `axes` axes."""
    missing = axes - 1 - constants.dim()
    return constants.view(len(constants), 1, *[1] * missing, *constants.shape[1:])


def _run_vmap(members: Sequence[nn.Module], inputs: Sequence[Tensor], own_inputs: bool) -> Tensor:
    skeleton = members[0]
    parameters = _stacked([dict(m.named_parameters()) for m in members])
    buffers = _stacked([dict(m.named_buffers()) for m in members])

    def call(
        p: dict[str, Tensor], b: dict[str, Tensor], *x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return functional_call(skeleton, (p, b), x), b

    axes = tuple(0 if own_inputs else None for _ in inputs)
    run = torch.func.vmap(call, in_dims=(0, 0, *axes), randomness="different")
    try:
        output, moved = run(parameters, buffers, *inputs)
    except (RuntimeError, ValueError) as error:
        first = " ".join(str(error).split())[:300]
        raise WhitError(
            f"A Group with way='batched' cannot run its members ({type(skeleton).__name__}) by "
            f"vmap: {first} Use way='one_by_one', which gives the plain error if the members "
            "themselves are at fault."
        ) from error
    if skeleton.training:
        with torch.no_grad():
            for k, member in enumerate(members):
                for name, buffer in member.named_buffers():
                    buffer.copy_(moved[name][k])
    return output


def _stacked(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack differentiably, so that gradients reach each member's own parameters."""
    if any(s.keys() != states[0].keys() for s in states):
        raise WhitError(
            "The members of a Group with way='batched' no longer have the same tensors; something "
            "changed one of them. Change all of them alike, or use way='one_by_one'."
        )
    return {name: torch.stack([s[name] for s in states]) for name in states[0]}
