"""The grammar of spec strings: sums of calls with literal options, and settings after an `@`.

`"a(x=1) + my_file.py:b() + package.module:c(y='s') @ epochs=30, learning_rate=1e-3"`. Text is
only parsed (`ast`, literals), never evaluated: a spec from a stranger cannot run code of its own.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from whit.errors import SpecError

MAX_LENGTH = 10_000
_CLOSING = {")": "(", "]": "[", "}": "{"}
_CALL = re.compile(
    r"(?:(?P<reference>[^()'\"]+):\s*)?(?P<name>[^\W\d]\w*)\s*(?P<options>\(.*\))?", re.DOTALL
)
_HOW = (
    "Write calls with options by name, joined by +, such as 'binarized_network() + "
    "one_cycle_pruning(sparsity=0.9) @ epochs=30'; values are plain Python literals."
)


@dataclass(frozen=True)
class Call:
    """One term of a spec.

    Attributes:
        name: of the factory.
        options: literal values by name.
        reference: file or module that holds the factory, "" for what is found by name.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    reference: str = ""

    def __str__(self) -> str:
        written = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.label}({written})"

    @property
    def label(self) -> str:
        """Name with its reference, as written before the bracket."""
        return f"{self.reference}:{self.name}" if self.reference else self.name


def parse_sum(text: str) -> tuple[list[Call], dict[str, Any]]:
    """Split a spec into its calls and the settings after `@`.

    Raises:
        SpecError: the text does not follow the grammar.
    """
    _check_text(text)
    body, *rest = _split(text, "@")
    if len(rest) > 1:
        raise SpecError(f"The spec {_shown(text)} has more than one '@'. {_HOW}")
    settings = _options(f"({rest[0]})", text) if rest else {}
    if rest and not settings:
        raise SpecError(f"The spec {_shown(text)} has no settings after its '@'. {_HOW}")
    return [_call(term, text) for term in _split(body, "+")], settings


def parse_call(text: str) -> Call:
    """Read a single call, as tasks are written.

    Raises:
        SpecError: the text does not follow the grammar, or is more than one call.
    """
    calls, settings = parse_sum(text)
    if len(calls) != 1 or settings:
        raise SpecError(f"{_shown(text)} was given where a single name or call is expected.")
    return calls[0]


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise SpecError(f"A spec is text; {type(text).__name__} was given. {_HOW}")
    if not text.strip():
        raise SpecError(f"An empty spec was given. {_HOW} The plain control is 'plain()'.")
    if len(text) > MAX_LENGTH:
        raise SpecError(
            f"The spec has {len(text)} characters, at most {MAX_LENGTH} are read. Put long "
            "values into a technique of your own: 'my_file.py:name()'."
        )


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator outside of brackets and quotes."""
    parts, start, quote, stack = [], 0, "", []
    position = 0
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in "([{":
            stack.append(character)
        elif character in ")]}":
            if not stack or stack.pop() != _CLOSING[character]:
                raise SpecError(f"The spec {_shown(text)} has a '{character}' too many. {_HOW}")
        elif character == separator and not stack:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    if quote or stack:
        missing = f"an unclosed quote {quote}" if quote else f"an unclosed '{stack[-1]}'"
        raise SpecError(f"The spec {_shown(text)} has {missing}. {_HOW}")
    return [*parts, text[start:]]


def _call(term: str, whole: str) -> Call:
    term = term.strip()
    if not term:
        raise SpecError(f"The spec {_shown(whole)} has an empty term. {_HOW}")
    match = _CALL.fullmatch(term)
    if match is None:
        raise SpecError(f"The term {_shown(term)} is not a call. {_HOW}")
    options = _options(match["options"] or "()", whole)
    return Call(match["name"], options, (match["reference"] or "").strip())


def _options(arguments: str, whole: str) -> dict[str, Any]:
    """Read `(a=1, b='x')`: names with literal values, nothing else."""
    source = f"f{arguments.strip()}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SpecError(f"The spec {_shown(whole)} cannot be read. {_HOW}") from None
    # A call that ends before the text does is followed by a comment.
    whole_call = ast.get_source_segment(source, tree) == source
    if not (whole_call and isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)):
        raise SpecError(f"The spec {_shown(whole)} is not a sum of single calls. {_HOW}")
    if tree.args:
        raise SpecError(f"The spec {_shown(whole)} has an option without a name. {_HOW}")
    options: dict[str, Any] = {}
    for keyword in tree.keywords:
        if keyword.arg is None or keyword.arg in options:
            raise SpecError(f"The spec {_shown(whole)} has a doubled or unnamed option. {_HOW}")
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise SpecError(
                f"Option '{keyword.arg}' in the spec {_shown(whole)} is not a plain value. Only "
                "Python literals can be written: numbers, strings, True, False, None, lists, "
                "tuples and dictionaries."
            ) from None
    return options


def _shown(text: str) -> str:
    shown = text.strip()
    return repr(shown if len(shown) <= 120 else shown[:117] + "...")
