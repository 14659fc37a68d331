"""`whit doctor`: what is installed here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from whit.cli.extras import EXTRAS
from whit.cli.guard import guarded, show_json
from whit.errors import WhitError

_PACKAGES = ("numpy", "safetensors", "typer", "rich", "torch", "scipy", "scikit-learn")
_FEATURES = (
    *("popcnt", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq"),
    "asimd",
)
TESTED = ("Linux", "x86_64")


@guarded
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what works on this machine and what is missing."""
    found = examine()
    if as_json:
        show_json(found)
        return
    print(f"whit {found['whit']}, Python {found['python']}, {found['platform']}")
    if not found["tested_platform"]:
        print("Untested here: whit is tested on Linux x86-64; the NumPy runtime should work.")
    print(f"CPU features: {', '.join(found['cpu_features']) or 'unknown'}; {found['cores']} cores")
    native = found["native"]
    print(
        f"Native kernels: compiled, {native['isa']} in use"
        if native["available"]
        else f"Native kernels: no: {native['reason']}"
    )
    for name, text in found["versions"].items():
        print(f"  {name} {text or 'not installed'}")
    for extra, state in found["extras"].items():
        missing = ", ".join(state["missing"])
        text = "installed" if not missing else f"missing {missing}: pip install 'whit[{extra}]'"
        print(f"Extra {extra}: {text}")
    print(f"Data folder (WHIT_DATA): {found['data']}")


def examine() -> dict[str, Any]:
    """Return what `doctor` prints, as plain values; imports no heavy package."""
    from whit import __version__

    return {
        "whit": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "tested_platform": (platform.system(), platform.machine()) == TESTED,
        "cores": os.cpu_count(),
        "cpu_features": _cpu_features(),
        "native": _native(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "extras": {
            extra: {"missing": [p for p in packages if importlib.util.find_spec(p) is None]}
            for extra, packages in EXTRAS.items()
        },
        "data": _data_folder(),
    }


def _native() -> dict[str, Any]:
    try:
        from whit.runtime import native
    except ImportError as error:
        reason = f"the extension cannot be imported ({error})"
        return {"available": False, "reason": reason, "isa": ""}
    if not native.available():
        return {"available": False, "reason": str(native.reason()), "isa": ""}
    try:
        return {"available": True, "reason": "", "isa": native.isa()}
    except WhitError as error:
        return {"available": False, "reason": str(error), "isa": ""}


def _cpu_features() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return [name for name in _FEATURES if name in flags]


def _data_folder() -> str:
    given = os.environ.get("WHIT_DATA")
    if not given:
        return "not set: files beside the checkout, else verified downloads"
    folder = Path(given)
    if not folder.is_dir():
        return f"{given} (does not exist)"
    return given if os.access(folder, os.R_OK) else f"{given} (cannot be read)"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
