"""Which layers of a model can take discrete weights, and why others cannot."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from whit.core.options import nearest
from whit.errors import NotApplicable, SpecError
from whit.parts.channel_gates import ChannelGate
from whit.parts.instance_thresholds import InstancePReLU, InstanceTerm
from whit.procedures.coordinate_descent.working_copy import hooks_of

Discretisable = nn.Linear | nn.Conv2d
# Normalisations and learned activations stay real: few numbers, folded away when packed.
KEPT_REAL = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.PReLU,
    InstancePReLU,
)
# So do these with all that they hold: small networks of their own, beside the layers.
KEPT_WHOLE = (InstanceTerm, ChannelGate)
ITSELF = "the model itself (skip='')"


def treatable_layers(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, Discretisable]:
    """Return the linear and 2-D convolution layers of a model by path.

    Args:
        model: any module.
        skip: paths of layers to leave out; a text is one path.

    Raises:
        NotApplicable: there is none, or other modules hold weights that are not skipped.
        SpecError: a path of `skip` is no module of the model.
    """
    skip = [skip] if isinstance(skip, str) else skip
    _require_known(model, skip)
    found: dict[str, Discretisable] = {}
    refused: dict[str, str] = {}
    seen: dict[int, str] = {}
    whole = [path for path, m in model.named_modules() if isinstance(m, KEPT_WHOLE)]
    for path, module in model.named_modules():
        if any(path == name or path.startswith(name + ".") for name in [*skip, *whole]):
            continue
        if any(path.startswith(f"{other}.") for other in refused):
            continue
        reason = _reason_against(module, seen)
        if reason:
            refused[path] = reason
        elif isinstance(module, nn.Linear | nn.Conv2d):
            found[path] = module
            seen[id(module.weight)] = path
    if refused:
        raise NotApplicable(
            "Coordinate descent cannot treat these layers: "
            + "; ".join(f"{_named(path)}, {reason}" for path, reason in refused.items())
            + ". Leave them as they are with skip, or use another model."
        )
    if not found:
        raise NotApplicable(
            "The model has no layer of torch.nn.Linear or torch.nn.Conv2d to make discrete"
            + (f" beside the skipped {list(skip)}." if skip else ".")
        )
    return found


def _named(path: str) -> str:
    return f"'{path}'" if path else ITSELF


def _require_known(model: nn.Module, skip: Sequence[str]) -> None:
    paths = [path for path, _ in model.named_modules()]
    for name in skip:
        if name not in paths:
            known = nearest(str(name), [path for path in paths if path])
            raise SpecError(f"skip names '{name}', which the model does not have. {known}")


def _reason_against(module: nn.Module, seen: dict[int, str]) -> str:
    """Return why a module cannot be treated; "" where it can, or where it holds nothing."""
    kind = type(module).__name__
    if parametrize.is_parametrized(module):
        return f"{kind} with a parametrised weight (call whit.parts.surgery.bake(model) first)"
    own = [p for p in module.parameters(recurse=False) if p is not None]
    if not own or isinstance(module, KEPT_REAL):
        return ""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{kind} (it holds weights, and only nn.Linear and nn.Conv2d are treated)"
    if id(module.weight) in seen:
        return f"{kind}, which shares its weight with {_named(seen[id(module.weight)])}"
    reason = _reason_against_change(module)
    return f"{kind} {reason}" if reason else ""


def _reason_against_change(module: Discretisable) -> str:
    """Return why a layer does not do what its weight says; "" where it does.

    Its weight is written and its outputs are worked out from it, so nothing may come between.
    """
    stock = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return (
            "whose weight is made from other parameters (pruning or normalisation of torch.nn.utils"
            "; make it plain by their remove function first)"
        )
    if nn.parameter.is_lazy(module.weight):
        return "without a shape yet (call the model once first)"
    own = [name for name in ("forward", "_conv_forward") if name in module.__dict__]
    changed = type(module).forward is not stock.forward or (
        isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward
    )
    if own or changed:
        return f"with a forward of its own, not that of torch.nn.{stock.__name__}"
    if hooks_of(module):
        return "with a forward hook (remove it first)"
    return ""
