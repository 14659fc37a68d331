"""Where a number comes from: versions, machine, commit; and the identity of a run."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch

from whit import __version__
from whit.measure.source_files import source_files

_PACKAGE = Path(__file__).resolve().parents[1]
_VERSIONS = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")
# What decides the weights and the numbers of every run; a change here makes old rows stale.
_SHARED_SOURCES = ("core", "parts", "procedures", "packing", "runtime", "measure", "tasks")
MAX_CLOSURE_DEPTH = 4
_HEAD = re.compile(r"(?:(?P<reference>[^()+@'\"]+):\s*)?(?P<name>[^\W\d]\w*)\s*(?=[(+@]|\s*$)")


def provenance() -> dict[str, Any]:
    """Return versions, machine, threads, commit and time as plain values."""
    return {
        "whit": __version__,
        "python": platform.python_version(),
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **git_state(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def made_by() -> str:
    """Return program, version and commit in one line, for a packed file."""
    commit = git_state().get("commit")
    return f"whit {__version__}" + (f" ({str(commit)[:10]})" if commit else "")


@cache
def cpu_model() -> str:
    """Return the processor's name, "unknown" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@cache
def git_state() -> dict[str, Any]:
    """Return `commit` and `dirty` of the checkout that the package runs from, else None."""
    top = _git("rev-parse", "--show-toplevel")
    # An installed package may lie in a .venv inside somebody else's checkout: that commit says
    # nothing.
    if top is None or Path(top).resolve() / "src" / "whit" != _PACKAGE:
        return {"commit": None, "dirty": None}
    changes = _git("status", "--porcelain", "--", str(_PACKAGE))
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def run_identity(
    *,
    spec: str,
    task: str,
    data_checksum: str,
    settings: Mapping[str, object],
    seed: int,
    device: str = "cpu",
    functions: Sequence[object] = (),
) -> str:
    """Return 16 hex digits that change whenever the run's result could.

    Args:
        spec: canonical spec of the technique.
        task: reference of the task.
        data_checksum: of the task's data.
        settings: all training settings by name.
        seed: of the run.
        device: name of the torch device.
        functions: of the task and the technique, for those that are handed over as objects.
    """
    parts = {
        "functions": code_digest(*functions),
        "spec": spec,
        "task": task,
        "data": data_checksum,
        "settings": dict(settings),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "device": device,
        "sources": [*sources_of(spec, "methods"), *sources_of(task, "tasks")],
        "whit": [__version__, _shared_digest()],
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def sources_of(text: str, package: str) -> list[str]:
    """Return digests of the source files that hold the factories named in a spec.

    Args:
        text: a spec of techniques or a task.
        package: "methods" or "tasks", where bare names are looked up.
    """
    digests = []
    for match in _HEAD.finditer(_without_brackets(text)):
        for path in _files_of((match["reference"] or "").strip(), match["name"], package):
            digests.append(f"{match['name']}:{_digest([path])}")
    return digests


def _without_brackets(text: str) -> str:
    """Replace the options of every call by `()`: names inside them are no calls."""
    kept, depth, quote, escaped = [], 0, "", False
    for character in text.partition(" @ ")[0]:
        if quote:
            if not escaped and character == quote:
                quote = ""
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            kept.append("()" if depth == 0 else "")
        elif depth == 0:
            kept.append(character)
    return "".join(kept)


def _files_of(reference: str, name: str, package: str) -> list[Path]:
    if reference.endswith(".py"):
        path = Path(reference).expanduser()
        return source_files(path) if path.exists() else []
    if reference:
        file = getattr(sys.modules.get(reference), "__file__", None)
        return source_files(Path(file)) if file else []
    found = sorted((_PACKAGE / package).rglob(f"{name}.py"))
    return found or sorted((_PACKAGE / package).rglob("toys.py"))


def code_digest(*functions: object) -> list[str]:
    """Return digests of what functions of a user do: code, constants, closure, source file.

    For tasks and techniques that are handed over as objects, whose names say nothing of them.
    """
    return [_function_digest(function) for function in functions]


def _function_digest(function: object, depth: int = 0) -> str:
    if isinstance(function, partial):
        parts = [_function_digest(function.func, depth), repr(function.args)]
        return "|".join([*parts, repr(sorted(function.keywords.items()))])
    if is_dataclass(function) and not inspect.isclass(function) and depth <= MAX_CLOSURE_DEPTH:
        attributes = [getattr(function, field.name) for field in fields(function)]
        inside = [_value_digest(value, depth) for value in attributes]
        return "|".join([type(function).__qualname__, *inside])
    if not isinstance(function, FunctionType) or depth > MAX_CLOSURE_DEPTH:
        kind = function if inspect.isclass(function) else type(function)
        return f"{kind.__module__}.{kind.__qualname__}"
    code = function.__code__
    closure = inspect.getclosurevars(function).nonlocals
    values = (*(closure[k] for k in sorted(closure)), *(function.__defaults__ or ()))
    inner = [_value_digest(value, depth) for value in values]
    named = sorted((function.__kwdefaults__ or {}).items())
    file = Path(code.co_filename)
    source = _digest([file]) if file.exists() else ""
    text = "|".join([_code_text(code), *inner, repr(named), source])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_text(code: CodeType) -> str:
    constants = []
    for c in code.co_consts:
        text = _code_text(c) if isinstance(c, CodeType) else repr(c)
        # The order of a set's texts differs from process to process.
        constants.append(repr(sorted(map(repr, c))) if isinstance(c, frozenset) else text)
    return "|".join([code.co_name, code.co_code.hex(), *map(str, code.co_names), *constants])


def _value_digest(value: object, depth: int) -> str:
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, tuple):
        return repr([_value_digest(part, depth) for part in value])
    return _function_digest(value, depth + 1)


@cache
def _shared_digest() -> str:
    paths = [p for folder in _SHARED_SOURCES for p in sorted((_PACKAGE / folder).rglob("*.py"))]
    return _digest(paths)


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
