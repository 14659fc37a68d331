"""Every kernel against its reference: on this machine, and on processors that it may lack.

AVX-512 runs in Bochs, NEON in QEMU's user mode; csrc/tests/emulation says how. Without Debian's
packages bochs, qemu-user-static and g++-aarch64-linux-gnu those tests are skipped.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "csrc" / "tests"
BOCHS = CHECKS / "emulation" / "run_in_bochs.sh"
FAMILIES = {path.stem.removeprefix("check_") for path in CHECKS.glob("check_*.cpp")} - {"main"}
AVX512_LEVELS = ("avx512bw", "avx512vnni", "avx512vpopcntdq")

pytestmark = pytest.mark.slow


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def _equal(output: str, level: str) -> set[str]:
    """Families whose kernels equalled their references at a level."""
    return set(re.findall(rf"^{level} +(\S+) +equal", output, re.MULTILINE))


def test_kernels_equal_their_references(
    checks_folder: Path, run_checks: Callable[..., str], level: str
) -> None:
    assert _equal(run_checks(checks_folder / "whit_check", level), level) == FAMILIES


def test_a_wrong_level_is_no_success(checks_folder: Path) -> None:
    assert os.system(f"{checks_folder / 'whit_check'} avx1024 > /dev/null") != 0


@pytest.mark.parametrize("emulated", AVX512_LEVELS)
def test_avx512_kernels_equal_their_references(
    checks_folder: Path, run_checks: Callable[..., str], emulated: str
) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("whit_check was built for another processor")
    for program in ("bochs", "gcc", "ld", "objcopy"):
        _need(program)
    output = run_checks(BOCHS, checks_folder / "whit_check", "--quick", emulated)
    assert _equal(output, emulated) == FAMILIES


@pytest.mark.parametrize("emulated", ["scalar", "neon"])
def test_aarch64_kernels_equal_their_references(
    neon_checks: Path, run_checks: Callable[..., str], emulated: str
) -> None:
    _need("qemu-aarch64-static")
    output = run_checks("qemu-aarch64-static", neon_checks, "--quick", emulated)
    assert _equal(output, emulated) == FAMILIES
