import pytest
from typer.testing import CliRunner

from whit.cli.app import app


@pytest.fixture
def whit():
    """Call the command line in this process; the result has exit_code, stdout and stderr."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def finished(whit, own_folder):
    """One finished comparison of the plain control; returns the working folder."""
    result = whit("compare", "own.py:task", "plain()", "--seeds", 1)
    assert result.exit_code == 0, result.stderr
    return own_folder
