"""What every command shares: errors in one paragraph, Ctrl-C in one line, JSON on request."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from whit.cli.extras import extra_of
from whit.errors import MissingExtra, WhitError

BAD_INPUT = 2
INTERRUPTED = 130

Options = ParamSpec("Options")
Given = TypeVar("Given")


def guarded(command: Callable[Options, Given]) -> Callable[Options, Given]:
    """Let a command end with exit code 2 and one paragraph on errors that the user can mend."""

    @wraps(command)
    def run(*args: Options.args, **options: Options.kwargs) -> Given:
        try:
            return command(*args, **options)
        except WhitError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            extra = extra_of(package)
            if extra is None:
                raise
            fail(str(MissingExtra(extra, package)))
        except (MemoryError, OverflowError) as error:
            fail(
                f"This needs more memory than there is, or a number that is too large ({error}). "
                "Give smaller sizes, or check the file."
            )
        except KeyboardInterrupt:
            print(
                "\nInterrupted. Finished runs are kept, and of the others every finished epoch: "
                f"repeat the command and it goes on from there:\n  {command_line()}",
                file=sys.stderr,
            )
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader (`| head`) has gone; keep Python from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None

    return run


def command_line() -> str:
    """Return the command line as typed."""
    name = Path(sys.argv[0]).name
    start = ["python", "-m", "whit"] if name == "__main__.py" else [name]
    return shlex.join([*start, *sys.argv[1:]])


def fail(message: str) -> NoReturn:
    """Print one paragraph on stderr and end with exit code 2."""
    print(f"whit: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def show_json(value: Any) -> None:
    """Print a value as JSON on stdout; NaN, which JSON lacks, becomes null."""
    print(json.dumps(finite(value), indent=1))


def finite(value: Any) -> Any:
    """Return plain values as JSON can hold them: NaN and infinity become None."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
