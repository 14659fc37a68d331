"""Public names are what they say, whatever was imported before, and change on purpose only."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import whit

SNAPSHOT = Path(__file__).with_name("api_snapshot.txt")
REGENERATE = (
    "The public interface changed. If that is meant: say so in CHANGELOG.md, keep the old name for "
    "one minor release, and write the snapshot again with "
    "`python tests/test_public_names.py --write`."
)
# Modules that import packages of an extra when they are imported, or run when they are.
NOT_IMPORTABLE_ALONE = {"whit.__main__"}


def submodules():
    names = [info.name for info in pkgutil.walk_packages(whit.__path__, "whit.")]
    return [name for name in names if name not in NOT_IMPORTABLE_ALONE]


def import_all():
    for name in submodules():
        try:
            importlib.import_module(name)
        except ImportError as error:
            if name != "whit._native":
                raise AssertionError(f"{name} cannot be imported: {error}") from error


def test_the_walk_finds_the_package():
    names = submodules()
    assert {"whit.core.fit", "whit.methods.plain", "whit.runtime", "whit.cli.app"} <= set(names)


@pytest.mark.parametrize("name", whit.__all__)
def test_a_public_name_is_an_object_even_after_all_imports(name):
    import_all()
    value = getattr(whit, name)
    assert not isinstance(value, ModuleType)
    assert callable(value) or not inspect.isfunction(value)
    home = sys.modules[whit._HOME[name]]
    assert value is getattr(home, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__name__ == name


def test_no_module_bears_the_name_of_a_public_function():
    """With lazy names, importing `whit.x` would put the module in the place of the function `x`."""
    import_all()
    clashes = [
        name
        for name in submodules()
        if name.rpartition(".")[0] == "whit" and name.rpartition(".")[2] in whit.__all__
    ]
    for package_name in [n for n in submodules() if hasattr(sys.modules.get(n), "__path__")]:
        package = sys.modules[package_name]
        for exported in getattr(package, "__all__", ()):
            if isinstance(getattr(package, exported), ModuleType):
                clashes.append(f"{package_name}.{exported}")
    assert not clashes


def test_dir_and_unknown_names():
    assert set(whit.__all__) <= set(dir(whit)) and "runtime" in dir(whit)
    assert whit.runtime.load is not None
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = whit.nonsense


def test_importing_whit_costs_no_torch():
    code = "import sys, whit; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False"]


class Bare:
    """An annotation that prints as its source does."""

    def __init__(self, annotation):
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        self.text = text.replace("pathlib._local.", "pathlib.")

    def __repr__(self):
        return self.text


def signature_of(value):
    signature = inspect.signature(value)
    empty = signature.empty
    parameters = [
        p if p.annotation is empty else p.replace(annotation=Bare(p.annotation))
        for p in signature.parameters.values()
    ]
    returned = signature.return_annotation
    signature = signature.replace(
        parameters=parameters,
        return_annotation=empty if returned is empty else Bare(returned),
    )
    return re.sub(r"<function ([\w.]+) at [^>]*>", r"<\1>", str(signature))


def snapshot():
    """One line per public name with its signature, and one per public method of a class."""
    lines = []
    for name in whit.__all__:
        value = getattr(whit, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            lines.append(f"{name}({value.__bases__[0].__name__})")
            continue
        lines.append(name + signature_of(value))
        if inspect.isclass(value):
            for key, member in sorted(vars(value).items()):
                if key.startswith("_"):
                    continue
                bare = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                if inspect.isfunction(bare) and bare.__qualname__ == f"{name}.{key}":
                    lines.append(f"    {name}.{key}{signature_of(bare)}")
                elif isinstance(bare, property):
                    lines.append(f"    {name}.{key}: property")
    return "\n".join(lines) + "\n"


def test_the_public_interface_is_as_recorded():
    assert snapshot() == SNAPSHOT.read_text(), REGENERATE


if __name__ == "__main__" and "--write" in sys.argv:
    SNAPSHOT.write_text(snapshot())
