"""The choice of the instruction set, and what the compiled code of each level may contain."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whit.runtime import native

PRINT_LEVEL = """
import numpy as np
from whit.runtime import native
out = np.zeros((1, 1), dtype=np.int32)
matrix = native.Matrix("signs", np.ones((1, 33), dtype=np.int8))
matrix.multiply(np.zeros((1, 2), dtype=np.uint32), out)
print(native.isa(), matrix.level, out[0, 0])
"""


def _with_level(level: str, program: str = PRINT_LEVEL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"WHIT_ISA": level},
    )


def test_a_level_can_be_forced(level: str) -> None:
    done = _with_level(level)
    assert done.stdout.split() == [level, level, "33"], done.stderr


@pytest.mark.skipif(not native.available(), reason=str(native.reason()))
@pytest.mark.parametrize(("name", "message"), [("sse9", "must be scalar, "), ("neon", "lacks")])
def test_a_level_that_is_not_there_is_an_error(name: str, message: str) -> None:
    if name in native.cpu_features():
        pytest.skip("this processor has it")
    done = _with_level(name)
    assert done.returncode != 0
    assert message in done.stderr


# ---- compiled code ------------------------------------------------------------------------------

FORBIDDEN = {  # what the disassembly of a level may not contain
    "scalar": r"%[yz]mm|%k[0-7]|\sv[a-z]+[a-z0-9]*\s.*%xmm",
    "avx2": r"%zmm|%[xy]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]",
    "avx512bw": r"\svpdpbusds?\b|\svpdpwssd|\svpopcnt[bwdq]",
    "avx512vnni": r"\svpopcnt[bwdq]",
    "avx512vpopcntdq": r"\svpopcnt[bw]\b",
}
EXPECTED = {  # and what it must, or it was compiled without its flags
    "avx2": r"%ymm",
    "avx512bw": r"%zmm",
    "avx512vnni": r"\svpdpbusd\b",
    "avx512vpopcntdq": r"\svpopcnt[dq]\b",
}


def _objects(folder: Path, library: str) -> list[Path]:
    return sorted((folder / "CMakeFiles" / f"{library}.dir").rglob("*.o"))


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _disassembly(objects: list[Path]) -> str:
    return _output("objdump", "--disassemble", "--no-show-raw-insn", *objects)


@pytest.fixture
def x86_objects(checks_folder: Path) -> Path:
    if os.uname().machine != "x86_64":
        pytest.skip("the rules are written for x86-64")
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    return checks_folder


@pytest.mark.slow
@pytest.mark.parametrize("compiled", FORBIDDEN)
def test_a_level_holds_its_own_instructions_only(x86_objects: Path, compiled: str) -> None:
    objects = _objects(x86_objects, f"whit_kernels_{compiled}")
    assert objects, "this level was not compiled"
    code = _disassembly(objects)
    found = re.search(f".*({FORBIDDEN[compiled]}).*", code)
    assert found is None, found and found.group(0)
    if compiled in EXPECTED:
        assert re.search(EXPECTED[compiled], code), "compiled without the flags of its level"


@pytest.mark.slow
@pytest.mark.parametrize("library", ["whit_kernels", "whit_engine"])
def test_code_outside_the_levels_runs_on_any_processor(x86_objects: Path, library: str) -> None:
    found = re.search(f".*({FORBIDDEN['scalar']}).*", _disassembly(_objects(x86_objects, library)))
    assert found is None, found and found.group(0)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", FORBIDDEN)
def test_a_level_shares_no_function_with_another(x86_objects: Path, compiled: str) -> None:
    # The linker keeps one of several inline functions (weak symbols) of the same name: perhaps
    # the one with instructions that this processor lacks.
    symbols = _output("nm", "--defined-only", *_objects(x86_objects, f"whit_kernels_{compiled}"))
    shared = [line for line in symbols.splitlines() if re.search(r"\s[WVuw]\s", line)]
    assert not shared, shared
