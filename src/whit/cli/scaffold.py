"""`whit new`: write a small technique that works, to be replaced piece by piece."""

from __future__ import annotations

import keyword
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from whit.cli.guard import guarded, show_json

FAMILIES = (
    "low_bit",
    "sparse",
    "compact",
    "together",
    "distributed",
    "spiking",
    "search",
    "graphs",
    "sequences",
    "hardware",
)
_PACKAGE = Path(__file__).resolve().parents[1]


@guarded
def new(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}.")],
    name: Annotated[str, typer.Argument(help="Name of the technique, like my_pruning.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the skeleton of a new technique: into the checkout, or as a file of your own."""
    _check_names(family, name)
    checkout = _checkout()
    files = _own_file(name) if checkout is None else _method_files(checkout, family, name)
    _write(files)
    spec = f"{name}()" if checkout else f"{name}.py:{name}()"
    if as_json:
        show_json({"files": [str(path) for path in files], "spec": spec})
        return
    for path in files:
        print(f"wrote {path}")
    print(f"It works as it is. Try: whit compare digits '{spec}' --epochs 5")
    if checkout is not None:
        print("Then: make test (it is found by itself). Replace what is marked REPLACE.")
        return
    print("Replace what is marked REPLACE, and check that it keeps the rules:")
    print(
        f'python -c "from {name} import {name}; from whit.testing import check_technique; '
        f'check_technique({name}, card=False)"'
    )


def _check_names(family: str, name: str) -> None:
    from whit.core.options import nearest
    from whit.discovery import installed_techniques, module_names
    from whit.errors import SpecError

    folders = {p.name for p in (_PACKAGE / "methods").iterdir() if p.is_dir() and p.name[0] != "_"}
    families = folders | set(FAMILIES)
    if family not in families:
        raise SpecError(f"There is no family '{family}'. {nearest(family, families)}")
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or name[0] == "_":
        raise SpecError(
            f"'{name}' cannot name a technique: write lower-case words joined by _, like "
            "my_pruning."
        )
    if name in {**module_names("methods"), **installed_techniques()}:
        raise SpecError(f"There is a technique '{name}' already. Choose another name.")


def _checkout() -> Path | None:
    """Return the checkout that the package runs from, if the current folder lies in it."""
    root = _PACKAGE.parents[1]
    inside = Path.cwd().resolve().is_relative_to(root)
    return root if inside and (root / "pyproject.toml").exists() else None


def _method_files(root: Path, family: str, name: str) -> dict[Path, str]:
    from whit.cli.skeletons import CARD, TECHNIQUE, TEST

    method = root / "src" / "whit" / "methods" / family / f"{name}.py"
    files = {
        method: _filled(TECHNIQUE, family, name),
        method.with_suffix(".md"): _filled(CARD, family, name),
        root / "tests" / "methods" / family / f"test_{name}.py": _filled(TEST, family, name),
    }
    package = method.parent / "__init__.py"
    if not package.exists():
        files[package] = f'"""Techniques of the family {family}."""\n'
    return files


def _own_file(name: str) -> dict[Path, str]:
    from whit.cli.skeletons import TECHNIQUE

    return {Path(f"{name}.py"): _filled(TECHNIQUE, "", name)}


def _filled(text: str, family: str, name: str) -> str:
    words = name.split("_")
    return Template(text).substitute(
        name=name,
        family=family,
        title=" ".join(words).capitalize(),
        class_name="".join(word.capitalize() for word in words),
    )


def _write(files: dict[Path, str]) -> None:
    from whit.errors import WhitError

    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise WhitError(
            f"{existing[0]} exists already and is not overwritten. Choose another name."
        )
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WhitError(f"The files cannot be written: {error}.") from None
