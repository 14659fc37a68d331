"""Find what a user names as `my_file.py:name` or `package.module:name`, and what it is made of."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from whit.core.options import nearest
from whit.core.task import Task
from whit.errors import SpecError, WhitError

_PACKAGE = Path(__file__).resolve().parents[1]


def attribute(module: ModuleType, name: str, label: str) -> Any:
    """Return a public name of a user's module.

    Raises:
        SpecError: the module has no such name.
    """
    if not hasattr(module, name):
        own = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_")
            and (isinstance(value, Task) or getattr(value, "__module__", "") == module.__name__)
        ]
        raise SpecError(f"'{label}' has nothing named '{name}'. {nearest(name, own)}")
    return getattr(module, name)


def load_reference(reference: str) -> ModuleType:
    """Import the file or module that a spec names before its colon.

    Args:
        reference: path of a Python file, or dotted name of an importable module.

    Raises:
        SpecError: it is missing, empty, or cannot be imported; the message says where.
    """
    if reference.endswith(".py") or "/" in reference or "\\" in reference:
        return _load_file(reference)
    if not all(part.isidentifier() for part in reference.split(".")):
        raise SpecError(
            f"'{reference}' is neither a Python file nor the dotted name of a module. Write "
            "'my_file.py:name()' or 'package.module:name()'."
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # as for `python -m`; the console command does not have it
    module: ModuleType = _guarded(reference, lambda: importlib.import_module(reference))
    return module


def _load_file(reference: str) -> ModuleType:
    path = Path(reference).expanduser()
    source = _source(path, reference)
    digest = hashlib.sha256(f"{path.resolve()}\0{source}".encode()).hexdigest()[:16]
    name = f"whit_own_{digest}"
    module = sys.modules.get(name)
    if module is None:
        module = _execute_file(name, path, reference)
    # Set again: the same file may now be named by another path, and specs repeat it as given.
    module.__whit_reference__ = reference  # type: ignore[attr-defined]
    return module


def _source(path: Path, reference: str) -> str:
    try:
        source = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=3)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise SpecError(f"There is no file '{reference}' (looked in {Path.cwd()}).{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"The file '{reference}' cannot be read as Python text: {error}.") from None
    if not source.strip():
        raise SpecError(
            f"The file '{reference}' is empty. It should define a function under "
            "@whit.technique, or a whit.Task; `whit new` writes a working one."
        )
    return source


def _execute_file(name: str, path: Path, reference: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise SpecError(f"The file '{reference}' is not a Python file; its name should end in .py.")
    loader = found.loader
    module = importlib.util.module_from_spec(found)
    module.__whit_reference__ = reference  # type: ignore[attr-defined]
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # as for a script: the file may import its neighbours
    sys.modules[name] = module
    try:
        _guarded(reference, lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _guarded(reference: str, load: Any) -> Any:
    """Import, and say in one paragraph what went wrong inside the user's code."""
    try:
        return load()
    except WhitError:
        raise
    except SyntaxError as error:
        raise SpecError(
            f"'{reference}' is not valid Python: {error.msg} in line {error.lineno}"
            f"{_of(error.filename, reference)}."
        ) from None
    except ModuleNotFoundError as error:
        raise SpecError(
            f"'{reference}' cannot be imported: there is no module '{error.name}'{_line(error)}. "
            "Install it, or correct the name."
        ) from None
    except ImportError as error:
        raise SpecError(f"'{reference}' cannot be imported: {error}{_line(error)}.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SpecError(
            f"'{reference}' stopped while it was imported: {type(error).__name__}: "
            f"{error}{_line(error)}."
        ) from None


def _of(filename: str | None, reference: str) -> str:
    same = filename is None or Path(filename).name == Path(reference).name
    return "" if same else f" of '{filename}'"


def _line(error: BaseException) -> str:
    """Name the innermost line of the user's own code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    return f" (line {frames[-1].lineno} of '{Path(frames[-1].filename).name}')" if frames else ""


def failed_call(label: str, error: BaseException) -> SpecError:
    """Return the error to raise when a user's own factory raised one."""
    return SpecError(
        f"'{label}' failed when it was called: {type(error).__name__}: {error}{_line(error)}."
    )
