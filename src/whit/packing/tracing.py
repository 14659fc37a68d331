"""From a module to a torch.export graph: baked copy, eval mode, free batch axis."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whit.errors import CannotPack
from whit.packing.fake_quantisation import FakeQuantisationInSteps, fix_fake_quantisation
from whit.parts.surgery import bake


@dataclass(frozen=True)
class Traced:
    """An exported graph with the values of its parameters and buffers by placeholder name."""

    nodes: list[torch.fx.Node]
    constants: dict[str, Tensor]
    input_name: str


def baked_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode on the CPU whose parametrisations became plain weights.

    The model itself, its training flags and the random state stay as they are.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise CannotPack(
            f"the model is {type(model).__name__}; give a torch.nn.Module that is not scripted"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            copied = copy.deepcopy(model, _kept_activations(model)).cpu()
            return fix_fake_quantisation(bake(copied).eval().requires_grad_(False))
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[:1]
        raise CannotPack(
            f"it cannot be copied ({type(error).__name__}: {first[0] if first else ''}); take "
            "locks, files and the like out of the model, and run lazy modules once before"
        ) from error


def _kept_activations(model: nn.Module) -> dict[int, Any]:
    """Return copies of tensors with a history that modules keep, which deepcopy refuses."""
    kept = (value for module in model.modules() for value in vars(module).values())
    tensors = (value for value in kept if isinstance(value, Tensor) and not value.is_leaf)
    return {id(value): value.detach().clone() for value in tensors}


def trace(baked: nn.Module, example: Tensor) -> Traced:
    """Export a baked model with a free batch axis.

    Args:
        baked: from ``baked_copy``.
        example: [batch, ...], at least two samples.

    Raises:
        CannotPack: torch.export fails, fixes the batch size, or the output is not one tensor.
    """
    free = ({0: torch.export.Dim.DYNAMIC},)
    functions, modules = FakeQuantisationInSteps(), _Entered(baked)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            _without_torchs_own_report(),
            modules,
            functions,
        ):
            warnings.simplefilter("ignore")
            exported = torch.export.export(baked, (example,), dynamic_shapes=free, strict=False)
    except Exception as error:  # torch.export raises many unrelated classes
        first = str(error).strip().splitlines()[:1]
        raise CannotPack(
            f"torch.export could not trace it with a free batch axis ({type(error).__name__}: "
            f"{first[0] if first else 'no message'}); make the forward call free of branches on "
            "values and of fixed batch sizes",
            modules.path,
            functions.failed if modules.running else "",
        ) from error
    changed = list(exported.graph_signature.buffers_to_mutate.values())
    if changed:
        raise CannotPack(
            f"its forward call changes the buffer '{changed[0]}'; a file holds no state: compute "
            "it from the input, or freeze it"
        )
    return Traced(
        list(exported.graph_module.graph.nodes),
        _constants(exported),
        exported.graph_signature.user_inputs[0],
    )


@contextmanager
def _without_torchs_own_report() -> Iterator[None]:
    """Keep torch from printing its whole graph when it refuses; our error says what matters."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class _Entered(AbstractContextManager["_Entered"]):
    """Know which modules are running, so that an error can name the innermost."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.running: list[str] = []
        self._handles: list[Any] = []

    @property
    def path(self) -> str:
        """Return the path of the innermost running module; "" for the model itself."""
        return self.running[-1] if self.running else ""

    def __enter__(self) -> "_Entered":
        for path, module in self.model.named_modules():
            enter = partial(_push, self.running, path)
            leave = partial(_pop, self.running)
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(leave))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def _push(running: list[str], path: str, module: nn.Module, inputs: object) -> None:
    running.append(path)


def _pop(running: list[str], module: nn.Module, inputs: object, output: object) -> None:
    running.pop()


def _constants(exported: Any) -> dict[str, Tensor]:
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {}
    for placeholder, name in names.items():
        source = exported.state_dict if name in exported.state_dict else exported.constants
        found[placeholder] = source[name].detach()
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        found[placeholder] = exported.constants[name].detach()
    return found


def module_path(node: torch.fx.Node) -> str:
    """Return the dotted path of the innermost module that a graph node came from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
