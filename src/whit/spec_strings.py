"""From text to techniques and tasks, the same in Python, on the command line and in results."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from whit.core.options import bind_options, nearest, signature_text
from whit.core.references import attribute, failed_call, load_reference
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import Technique, is_technique
from whit.discovery import installed_techniques, module_names
from whit.errors import SpecError, TaskError, WhitError
from whit.grammar import Call, parse_call, parse_sum


@dataclass(frozen=True)
class Entry:
    """A spec with its settings.

    Attributes:
        technique: the sum of techniques.
        settings_changes: what stands after `@`, by name.
        text: canonical, with defaults filled in; it parses back to the same entry.
        label: as written, for people.
    """

    technique: Technique
    settings_changes: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    label: str = ""


@dataclass(frozen=True)
class Listed:
    """One line of a listing.

    Attributes:
        name: what a spec names it.
        family: folder of methods, "tasks" for a task, or the package that registered it.
        summary: first line of the docstring.
        signature: options with defaults.
    """

    name: str
    family: str
    summary: str
    signature: str


def spec(text: str) -> Technique:
    """Return the technique that a spec string names.

    Raises:
        SpecError: the text is malformed, names something unknown, or holds settings.
    """
    entry = parse_entry(text)
    if entry.settings_changes:
        raise SpecError(
            f"The spec {text!r} holds settings after '@'. Give them to execute as Settings, or use "
            "compare, which takes such entries."
        )
    return entry.technique


def parse_entry(text: str) -> Entry:
    """Return technique and settings that a spec string names.

    Raises:
        SpecError: the text is malformed, or names an unknown technique or option.
        SettingsError: a setting is unknown or out of range.
    """
    calls, changes = parse_sum(text)
    Settings().changed(**changes)
    total = Technique()
    for call in calls:
        total = total + _technique_of(call)
    written = ", ".join(f"{name}={value!r}" for name, value in changes.items())
    end = f" @ {written}" if changes else ""
    label = " + ".join(str(call) for call in calls)
    return Entry(total, changes, total.spec + end, label + end)


def find(name: str) -> Callable[..., Technique]:
    """Return the technique factory of this name: ours, or one that a package registered.

    Raises:
        SpecError: there is none; names the nearest.
    """
    modules = module_names("methods")
    if name in modules:
        made: Any = getattr(importlib.import_module(modules[name]), name, None)
        if is_technique(made):
            return made  # type: ignore[no-any-return]
    installed = installed_techniques()
    if name in installed:
        made = installed[name].load()
        if is_technique(made):
            return made  # type: ignore[no-any-return]
        raise SpecError(
            f"The entry point '{name}' ({installed[name].value}) is {type(made).__name__}, and a "
            "function under @whit.technique is expected."
        )
    factories = _our_techniques()
    if name in factories:
        return factories[name]
    raise SpecError(
        f"There is no technique '{name}'. {nearest(name, [*factories, *installed])} "
        "One of your own is written 'my_file.py:name()'."
    )


def task(text: str) -> Task:
    """Return the task that a text names: `digits`, `mnist(model='conv4')`, `my_file.py:task`.

    Raises:
        TaskError: there is none, or it is no task.
        SpecError: the text is malformed, or an option is unknown.
    """
    call = parse_call(text)
    if call.reference:
        made = _own_task(call)
        return replace(made, name=str(call) if call.options else call.label)
    factory = find_task(call.name)
    bind_options(call.name, inspect.signature(factory), (), call.options)
    return factory(**call.options)


def find_task(name: str) -> Callable[..., Task]:
    """Return the factory of a built-in task.

    Raises:
        TaskError: there is none; names the nearest.
    """
    modules = module_names("tasks")
    if name in modules:
        made = getattr(importlib.import_module(modules[name]), name, None)
        if callable(made):
            return made  # type: ignore[no-any-return]
    factories = _our_tasks()
    if name not in factories:
        raise TaskError(
            f"There is no task '{name}'. {nearest(name, factories)} One of your own is written "
            "'my_file.py:name'."
        )
    return factories[name]


def list_techniques() -> list[Listed]:
    """Return all techniques that a spec can name, by family and name."""
    found = [
        _listed(name, make.__module__.split(".")[2:-1], make)
        for name, make in _our_techniques().items()
    ]
    for name, point in installed_techniques().items():
        found.append(_listed(name, [point.value.split(":")[0]], find(name)))
    return sorted(found, key=lambda item: (item.family, item.name))


def list_tasks() -> list[Listed]:
    """Return all built-in tasks by name."""
    return [_listed(name, ["tasks"], make) for name, make in sorted(_our_tasks().items())]


def _listed(name: str, family: list[str], make: Callable[..., object]) -> Listed:
    summary = (inspect.getdoc(make) or "").partition("\n")[0]
    return Listed(
        name, ".".join(family) or "control", summary, signature_text(inspect.signature(make))
    )


def _technique_of(call: Call) -> Technique:
    make = _own_technique(call) if call.reference else find(call.name)
    try:
        made = make(**call.options)
    except WhitError:
        raise
    except Exception as error:
        raise failed_call(call.label, error) from error
    if not isinstance(made, Technique):
        raise SpecError(
            f"'{call.label}' returned {type(made).__name__}; a technique returns a whit.Technique."
        )
    return made


def _own_technique(call: Call) -> Callable[..., Technique]:
    made = attribute(load_reference(call.reference), call.name, call.reference)
    if not is_technique(made):
        what = (
            "a function without the decorator" if inspect.isfunction(made) else type(made).__name__
        )
        raise SpecError(
            f"'{call.label}' is {what}, and a technique is expected: a function under "
            "@whit.technique that returns a whit.Technique."
        )
    return made  # type: ignore[no-any-return]


def _own_task(call: Call) -> Task:
    made = attribute(load_reference(call.reference), call.name, call.reference)
    if inspect.isfunction(made) and not is_technique(made):
        bind_options(call.label, inspect.signature(made), (), call.options)
        try:
            made = made(**call.options)
        except WhitError:
            raise
        except Exception as error:
            raise failed_call(call.label, error) from error
    elif call.options:
        raise TaskError(f"'{call.label}' takes no options: it is {type(made).__name__}.")
    if not isinstance(made, Task):
        kind = made if inspect.isclass(made) else type(made)
        model = issubclass(kind, nn.Module)
        hint = f" For a model and arrays: own(model='{call.label}', data='arrays.npz')."
        raise TaskError(
            f"'{call.label}' is {kind.__name__}, and a task is expected: a whit.Task, or a "
            f"function that returns one.{hint if model else ''}"
        )
    return made


def _our_techniques() -> dict[str, Callable[..., Technique]]:
    found = {}
    for path in module_names("methods").values():
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            # A method whose optional package is missing must not hide the others.
            if error.name == "torch" or (error.name or "").startswith("whit"):
                raise
            continue
        for name, value in vars(module).items():
            if is_technique(value) and value.__module__ == path:
                found[name] = value
    return found


def _our_tasks() -> dict[str, Callable[..., Task]]:
    found: dict[str, Callable[..., Task]] = {}
    for path in module_names("tasks").values():
        module = importlib.import_module(path)
        for name, value in vars(module).items():
            if not inspect.isfunction(value) or value.__module__ != path or name.startswith("_"):
                continue
            signature = inspect.signature(value)
            named = all(p.kind is p.KEYWORD_ONLY for p in signature.parameters.values())
            if named and signature.return_annotation in (Task, "Task"):
                found[name] = value
    return found
