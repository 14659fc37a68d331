import subprocess
import sys

import pytest

COMMANDS = (
    "list",
    "show",
    "run",
    "compare",
    "pack",
    "predict",
    "inspect",
    "bench",
    "doctor",
    "new",
)


def python(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)


def test_help_names_every_command(whit):
    result = whit("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
        assert whit(command, "--help").exit_code == 0


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"], ["doctor"]])
def test_quick_commands_import_no_torch(words):
    code = (
        "import sys\nfrom whit.cli.app import main\n"
        f"sys.argv = {['whit', *words]!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_usage_errors_end_with_2(whit):
    for words in (["nope"], ["run"], ["compare", "iris", "--seeds", "many"], ["list", "--nope"]):
        assert whit(*words).exit_code == 2


def test_a_missing_extra_names_the_command_that_installs_it():
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom whit.cli.app import main\n"
        "sys.argv = ['whit', 'list']\nmain()\n"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert "pip install 'whit[train]'" in done.stderr
    assert "Traceback" not in done.stderr
