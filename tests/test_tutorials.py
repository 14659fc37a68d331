"""Every code block of the tutorial pages runs, in order, in one empty folder a page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.M | re.S
)
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}


def blocks(page: Path) -> list[tuple[str, str | None, str]]:
    return [(m["language"], m["title"], m["code"]) for m in BLOCK.finditer(page.read_text())]


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The commands `whit` and `python` of this environment come first on the path."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "whit"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m whit "$@"\n')
    command.chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "COLUMNS": "110",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_all_blocks_run(page, tmp_path, environment):
    for number, (language, title, code) in enumerate(blocks(page), 1):
        if title:
            (tmp_path / title).write_text(code)
            continue
        done = subprocess.run(
            [*RUN[language], code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        said = f"{page.name}, block {number}:\n{code}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr, said


def test_there_are_five_pages_and_no_block_is_overlooked():
    assert len(PAGES) == 5
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"^```", text, re.M)) == 2 * len(blocks(page)), page.name
        assert {language for language, title, _ in blocks(page) if not title} <= set(RUN)
