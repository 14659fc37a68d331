"""`whit list` and `whit show`: what there is, and what its options are."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from whit.cli.guard import guarded, show_json

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@guarded
def list_all(as_json: AsJson = False) -> None:
    """List the techniques and tasks."""
    from whit.spec_strings import list_tasks, list_techniques

    techniques, tasks = list_techniques(), list_tasks()
    if as_json:
        show_json(
            {"techniques": [vars(item) for item in techniques], "tasks": [vars(t) for t in tasks]}
        )
        return
    from rich.console import Console

    from whit.reporting.table import listing

    console = Console()
    rows = [(item.family, item.name, item.summary) for item in techniques]
    console.print(listing(("family", "technique", "what it does"), rows))
    console.print(listing(("task", "what it is"), [(item.name, item.summary) for item in tasks]))
    console.print("whit show <name> tells the options; sums are written 'a() + b(x=1)'.")


@guarded
def show(
    name: Annotated[str, typer.Argument(help="Technique or task, or my_file.py:name.")],
    as_json: AsJson = False,
) -> None:
    """Show a technique or task: options, defaults, and where its card is."""
    made = _factory(name)
    task = made if not callable(made) else None
    found = described_task(name, task) if task is not None else _described(name, made)
    if as_json:
        show_json(found)
        return
    if task is not None:
        _print_task(found)
        return
    print(f"{found['name']}{found['signature']}\n\n{found['docstring']}\n")
    for option in found["options"]:
        print(f"  {option['name']}: {option['type']} = {option['default']!r}")
    print(f"\nSource: {found['source']}")
    if found["card"]:
        print(f"Card:   {found['card']}")


def described_task(name: str, task: Any) -> dict[str, Any]:
    """Return model, data and settings of a user's task, as plain values."""
    data = task.load()
    model = task.build_model(data, {})
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    return {
        "name": name,
        "task": task.name,
        "metric": task.metric_name,
        "samples": {split: len(part) for split, part in splits.items()},
        "inputs": [list(tensor.shape[1:]) for tensor in data.train.inputs],
        "classes": list(data.class_names),
        "params": sum(p.numel() for p in model.parameters()),
        "model": str(model),
        "settings": task.settings.as_dict(),
    }


def _print_task(found: dict[str, Any]) -> None:
    samples = ", ".join(f"{count:,} {split}" for split, count in found["samples"].items())
    shapes = " and ".join(str(shape) for shape in found["inputs"])
    print(f"{found['name']}: a task, judged by {found['metric']}\n")
    print(f"Data:     {samples} samples of shape {shapes}")
    if found["classes"]:
        print(f"Classes:  {', '.join(found['classes'])}")
    settings = ", ".join(f"{name}={value!r}" for name, value in found["settings"].items())
    print(f"Settings: {settings}")
    print(f"Model:    {found['params']:,} parameters\n{found['model']}")


def _described(name: str, make: Any) -> dict[str, Any]:
    from whit.core.options import signature_text

    signature = inspect.signature(make)
    source = Path(inspect.getsourcefile(inspect.unwrap(make)) or "")
    card = source.with_suffix(".md")
    return {
        "name": name,
        "signature": signature_text(signature),
        "docstring": inspect.getdoc(make) or "",
        "options": [
            {
                "name": p.name,
                "type": inspect.formatannotation(p.annotation).strip("'"),
                "default": None if p.default is p.empty else p.default,
            }
            for p in signature.parameters.values()
        ],
        "source": str(source),
        "card": str(card) if card.exists() else None,
    }


def _factory(name: str) -> Any:
    from whit.core.options import nearest
    from whit.core.references import attribute, load_reference
    from whit.core.task import Task
    from whit.errors import SpecError, TaskError
    from whit.grammar import parse_call
    from whit.spec_strings import find, find_task, list_tasks, list_techniques

    if name.endswith(".py") and ":" not in name:
        raise SpecError(f"'{name}' is a file; name what to show in it: {name}:task.")
    call = parse_call(name)
    if call.reference:
        made = attribute(load_reference(call.reference), call.name, call.reference)
        if not isinstance(made, Task) and not inspect.isfunction(made):
            raise SpecError(
                f"'{call.label}' is {type(made).__name__}; a technique or a task is expected."
            )
        return made
    try:
        return find(call.name)
    except SpecError:
        pass
    try:
        return find_task(call.name)
    except TaskError:
        known = [item.name for item in [*list_techniques(), *list_tasks()]]
        raise SpecError(
            f"There is no technique or task '{call.name}'. {nearest(call.name, known)}"
        ) from None
