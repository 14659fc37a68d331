"""What the sources may import and how long they may be; read from the files with ast, not run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "whit"
FILES = sorted(SOURCE.rglob("*.py"))
CORE_AND_BELOW = ("runtime", "parts", "packing", "measure", "core")
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(nodes: Iterator[ast.AST], path: Path) -> Iterator[str]:
    """Absolute names of what the import statements among `nodes` bring in."""
    package = ["whit", *path.relative_to(SOURCE).parent.parts]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run on import: not inside functions, not under `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))


def packages_at_import(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(module_level(tree_of(path)), path)}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize(
    "path", [p for p in FILES if part_of(p) in CORE_AND_BELOW], ids=name_of
)  # fmt: skip
def test_core_and_below_import_little(path: Path) -> None:
    allowed = {"whit", "numpy", "safetensors", *sys.stdlib_module_names}
    if part_of(path) != "runtime":
        allowed.add("torch")
    assert packages_at_import(path) <= allowed


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "methods"], ids=name_of)
def test_methods_never_import_one_another(path: Path) -> None:
    own = ".".join(["whit", *path.relative_to(SOURCE).with_suffix("").parts])
    others = {
        name
        for name in imported(ast.walk(tree_of(path)), path)
        if name.startswith("whit.methods.") and not f"{name}.".startswith(f"{own}.")
    }
    assert not others


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        docstring = ast.get_docstring(node) is not None
        spared = first.end_lineno - first.lineno + 1 if docstring and first.end_lineno else 0
        assert node.end_lineno is not None
        lines = node.end_lineno - node.lineno + 1 - spared
        assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_init_files_only_re_export(path: Path) -> None:
    if path.name == "__init__.py" and path.parent != SOURCE:
        for node in tree_of(path).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            assert docstring or names or isinstance(node, ast.Import | ast.ImportFrom)
            assert "*" not in ast.unparse(node) or docstring


@pytest.mark.parametrize("extension", ["*.cpp", "*.h"])
def test_native_files_are_short_and_free_of_torch(extension: str) -> None:
    for path in (SOURCE.parent.parent / "csrc").rglob(extension):
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE, path.name
        assert "torch/" not in text and "ATen" not in text, path.name
        if path.name != "binding.cpp":
            assert "Python.h" not in text and "nanobind" not in text, path.name


def test_the_files_are_found() -> None:
    """The checks above are worth nothing on an empty list."""
    assert len(FILES) > 10
