"""Compile an exported C file to learn how many bytes of code and data it becomes."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from whit.errors import WhitError

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
SECTIONS = ("text", "rodata", "data", "bss")


def c_sections(source: Path, compiler: str = "cc") -> dict[str, int]:
    """Compile a file for size and read the sizes of its sections.

    Args:
        source: the C file; its header lies beside it.
        compiler: a C compiler that takes the options of gcc and clang; the tool ``size`` of
            binutils must be there too, under the same prefix as a cross compiler.

    Returns:
        Bytes of "text" (code), "rodata" (constants), "data" and "bss" (the arena).

    Raises:
        WhitError: no such compiler, no ``size``, or the compiler stops with an error.
    """
    prefix = compiler[: compiler.rfind("-") + 1] if compiler.endswith(("-gcc", "-cc")) else ""
    size = f"{prefix}size"
    for tool in (compiler, size):
        if shutil.which(tool) is None:
            raise WhitError(
                f"'{tool}' is not installed, which is needed for the sizes of code and data: "
                "install a C compiler and binutils (apt install gcc), or name another compiler"
            )
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "model.o")
        plain = ("-fno-pic", "-fno-asynchronous-unwind-tables")
        _run([compiler, *FLAGS, "-Os", *plain, "-c", str(source), "-o", target])
        return _read_sizes(_run([size, "-A", target]))


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise WhitError(
            f"the command {' '.join(command)} stopped with an error: {result.stderr.strip()[:2000]}"
        )
    return result.stdout


def _read_sizes(listing: str) -> dict[str, int]:
    sizes = dict.fromkeys(SECTIONS, 0)
    for line in listing.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[0].startswith("."):
            name = parts[0].split(".")[1]
            if name in sizes:
                sizes[name] += int(parts[1])
    return sizes
