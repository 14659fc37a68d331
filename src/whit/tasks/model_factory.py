"""From a model class or function of a user to the `build` of a task."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from types import FunctionType
from weakref import WeakSet

import torch
from torch import nn

from whit.core.data import Data
from whit.core.task import Task
from whit.errors import TaskError, WhitError
from whit.measure.provenance import code_digest
from whit.measure.source_files import source_files

ModelFactory = Callable[..., nn.Module]
REHEARSED_SAMPLES = 3


def model_builder(model: ModelFactory) -> ModelFactory:
    """Return `build(data, **choices)` of a task for a model class or a function that makes one.

    The factory is called with the data if its first argument is named `data` and has no default,
    else with nothing. Its arguments with defaults, such as `width=1.0`, become the choices.

    Args:
        model: the factory.

    Raises:
        TaskError: it is a model and no factory, or it needs other arguments.
    """
    name, parameters = factory_name(model), _parameters(model)
    takes_data = bool(parameters) and parameters[0].name == "data" and _needed(parameters[0])
    choices = parameters[takes_data:]
    missing = [p.name for p in choices if _needed(p)]
    if missing:
        raise TaskError(
            f"The model '{name}' needs {', '.join(missing)}. It is called with the data, if its "
            "first argument is named data, and otherwise with nothing. Give the others defaults, "
            f"or write a function: def model(): return {name}(...)."
        )
    made: WeakSet[nn.Module] = WeakSet()
    source = _source_digest(model)

    def build(data: Data, **choices: object) -> nn.Module:
        _ = source  # in the closure: a run's identity changes with the model's source
        built = model(data, **choices) if takes_data else model(**choices)
        if isinstance(built, nn.Module):
            if built in made:
                raise TaskError(
                    f"The model function '{name}' returned the same model again. Let it make a "
                    "new one at each call, or every run would go on from the last one's weights."
                )
            made.add(built)
        return built

    named = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in choices]
    first = Parameter("data", Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = Signature([first, *named])  # type: ignore[attr-defined]
    return build


def factory_name(model: object) -> str:
    """Return the name of a model class or function, for messages and results.

    Raises:
        TaskError: it is a model and no factory, or nothing that can be called.
    """
    if isinstance(model, nn.Module):
        raise TaskError(
            f"A model of class {type(model).__name__} was given where a factory is expected. All "
            "runs would share its weights: give the class, or a function that makes a new model "
            "at each call."
        )
    if not callable(model):
        raise TaskError(
            f"The model was given as {type(model).__name__}; expected a class of torch.nn.Module, "
            "or a function that returns a new model."
        )
    inner = model.func if isinstance(model, partial) else model
    name = str(getattr(inner, "__name__", type(inner).__name__))
    return "model" if name == "<lambda>" else name


def _parameters(model: ModelFactory) -> list[Parameter]:
    try:
        found = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return []
    return [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _needed(parameter: Parameter) -> bool:
    return parameter.default is parameter.empty


def _source_digest(model: ModelFactory) -> str:
    """Return 16 hex digits that change with the model's code and the files that it imports."""
    inner = model.func if isinstance(model, partial) else model
    classes = inspect.getmro(inner) if inspect.isclass(inner) else ()
    own = [c for c in classes if c.__module__.split(".")[0] not in ("torch", "builtins")]
    functions = [f for c in own for _, f in sorted(vars(c).items()) if isinstance(f, FunctionType)]
    parts = code_digest(*functions) if classes else code_digest(model)
    modules = {c.__module__ for c in own} or {str(getattr(inner, "__module__", ""))}
    for module in sorted(modules):
        file = getattr(sys.modules.get(module), "__file__", None)
        for path in source_files(Path(file)) if file else []:
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def rehearse(task: Task, data: Data) -> None:
    """Build the task's model once and give it a few samples, so that mistakes are said at once.

    Nothing is trained, and the random state is left as it was.

    Args:
        task: its build, loss and metric.
        data: of the task; the first training samples are used.

    Raises:
        TaskError: the model cannot be built, cannot take the inputs, or gives outputs that do not
            fit the target.
    """
    count = min(REHEARSED_SAMPLES, len(data.train))
    batch = data.train.batch(torch.arange(count))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            output = task.build_model(data, {}).eval()(*batch.inputs)
        except WhitError:
            raise
        except Exception as error:
            raise TaskError(_failure(task.name, batch.inputs[0], error)) from error
    task.check_output(output, count, len(data.class_names))
    if not data.class_names and output.shape[-task.output_axes :] != batch.target.shape[1:]:
        raise TaskError(
            f"Task '{task.name}': the model gives {list(output.shape[1:])} a sample, and the "
            f"target has {list(batch.target.shape[1:])}; expected the same shape."
        )


def _failure(name: str, inputs: torch.Tensor, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0][:300]
    hint = ""
    if inputs.dtype == torch.int64:
        hint = (
            " Inputs of int64 are given as indices, for nn.Embedding; measurements should be "
            "float32 or uint8."
        )
    return (
        f"Task '{name}': the model failed on {len(inputs)} samples of shape "
        f"{list(inputs.shape[1:])}, {inputs.dtype}: {type(error).__name__}: {reason}.{hint} Check "
        "its first layers against the inputs."
    )
