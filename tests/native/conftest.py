"""The C++ kernels: which levels there are, and builds of whit_check for the slow tests."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whit.runtime import native

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "build" / "checks"  # kept, so that a second run compiles what has changed only
X86_LEVELS = ("avx2", "avx512bw", "avx512vnni", "avx512vpopcntdq")
NEON_OPTIONS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
)


def _offered(level: str) -> bool:
    try:
        native.Matrix("float32", np.ones((1, 1), dtype=np.float32), level)
    except (ValueError, RuntimeError):
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with an argument `level` at each instruction set that this processor has."""
    if "level" in metafunc.fixturenames:
        levels = [level for level in native.INSTRUCTION_SETS if _offered(level)]
        if not levels and os.environ.get("WHIT_REQUIRE_NATIVE") == "1":
            levels = ["scalar"]  # fails, which is what the variable asks for
        metafunc.parametrize("level", levels)


def _need(*programs: str) -> None:
    """Skip the test where one of the programs is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def _build(name: str, *options: str) -> Path:
    _need("cmake", "c++", "make")
    folder = BUILDS / name
    settings = ["-DWHIT_BUILD_CHECKS=ON", "-DWHIT_BUILD_BINDING=OFF", *options]
    # Static: the emulated machine has no dynamic linker.
    settings.append("-DCMAKE_EXE_LINKER_FLAGS=-static")
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *settings],
        ["cmake", "--build", str(folder), "--parallel", str(os.cpu_count())],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def checks_folder() -> Path:
    """Folder with whit_check for this machine, and the object files of every level."""
    return _build("here", "-DWHIT_BUILD_EXAMPLES=ON")


@pytest.fixture(scope="session")
def neon_checks() -> Path:
    """whit_check for aarch64."""
    _need("aarch64-linux-gnu-g++")
    return _build("aarch64", *NEON_OPTIONS) / "whit_check"


@pytest.fixture
def run_checks() -> Callable[..., str]:
    """Run a command; its output, after checking that it ended well."""

    def run(*command: str | Path, seconds: int = 600) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            env=os.environ | {"WHIT_EMULATION_SECONDS": str(seconds)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
