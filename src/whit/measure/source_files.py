"""Which files a Python file is made of: its own folder's or package's, found by reading imports."""

from __future__ import annotations

import ast
from pathlib import Path

_INSTALLED = ("site-packages", "dist-packages")


def source_files(path: Path) -> list[Path]:
    """Return a Python file and the files of its own folder or package that it imports, sorted.

    Found by reading the import statements, so that the answer depends on the files alone and not
    on what else this process has imported. Other installed packages are left out.

    Args:
        path: of the file.
    """
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported_files(file)
    return sorted(found)


def _imported_files(file: Path) -> list[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # whoever imports it says what is wrong
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    package = "" if root == file.parent else file.relative_to(root).parts[0]
    found = []
    for node in ast.walk(tree):
        for base, name in _imports(node, file, root):
            own = name.split(".")[0] == package if package else root.name not in _INSTALLED
            if base != root or own:
                found += _module_files(base, name)
    return found


def _imports(node: ast.AST, file: Path, root: Path) -> list[tuple[Path, str]]:
    """Return the folder where each imported dotted name starts, and the name."""
    if isinstance(node, ast.Import):
        return [(root, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = file.parents[node.level - 1] if node.level else root
        start = f"{node.module}." if node.module else ""
        return [(base, start + alias.name) for alias in node.names]
    return []


def _module_files(base: Path, name: str) -> list[Path]:
    """Return the files of a dotted module and of the packages around it, as far as they exist."""
    places = [base.joinpath(*name.split(".")[:count]) for count in range(1, name.count(".") + 2)]
    files = [file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")]
    return [file.resolve() for file in files if file.is_file()]
