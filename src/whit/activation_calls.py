"""Find calls of activation functions in forward: what a model applies without a module for it.

More counts than `parts.activation_functions` can swap, since what no technique reaches must be
said: further functions, and calls inside of torch's own modules. One forward call is watched, so
models that cannot be exported (branches on values, recurrent layers) are looked through as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whit.measure.meter import forward_macs
from whit.parts.activation_functions import calling_module, kind_of_call

FURTHER_FUNCTIONS = frozenset(
    ("celu", "hardsigmoid", "logsigmoid", "mish", "rrelu", "selu", "softplus", "softsign")
)
_ACTIVATION_MODULES = "torch.nn.modules.activation"


@dataclass(frozen=True)
class ActivationCall:
    """Calls of one activation function in the forward call of one module.

    Attributes:
        path: of the module, "" for the model itself.
        kind: class of the module.
        function: such as "relu"; "clamp" is `clamp(min=0)`.
        count: calls in one forward of the model.
        in_own_code: whether the module is somebody's own, not one of torch's.
    """

    path: str
    kind: str
    function: str
    count: int
    in_own_code: bool = True


def watched_forward(
    model: nn.Module, inputs: Sequence[Tensor]
) -> tuple[int, tuple[ActivationCall, ...]]:
    """Run one forward call, in evaluation mode and without gradients.

    Args:
        model: any module.
        inputs: of one batch.

    Returns:
        Its multiply-accumulates, and the calls of activation functions outside of modules such as
        `nn.ReLU`, in the order of their first call.
    """
    with _Seen() as seen:
        macs = forward_macs(model, *inputs)
    paths = {module: path for path, module in model.named_modules()}
    calls = [
        ActivationCall(
            paths.get(module, ""), type(module).__name__, function, count, _is_own(module)
        )
        for (module, function), count in seen.counts.items()
    ]
    return macs, tuple(calls)


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] != "torch"


class _Seen(TorchFunctionMode):
    """Counts calls by the module that makes them; what happens inside a call is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[nn.Module, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", "")).removesuffix("_")
        function = kind_of_call(func, args, kwargs) or (name if name in FURTHER_FUNCTIONS else "")
        module = calling_module() if function else None
        if module is not None and type(module).__module__ != _ACTIVATION_MODULES:
            self.counts[module, function] += 1
        return func(*args, **kwargs)
