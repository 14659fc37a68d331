"""Class names as one text of the metadata."""

from collections.abc import Sequence

from whit.errors import WhitError


def join_labels(labels: Sequence[str]) -> str:
    """Join labels behind a separator that none of them holds; it is also the first character.

    Raises:
        WhitError: the labels use up every separator.
    """
    if not labels:
        return ""
    for separator in ",;|\t\n\x1f":
        if not any(separator in label for label in labels):
            return "".join(separator + label for label in labels)
    raise WhitError("the labels hold every separator , ; | tab newline; simplify one of them")


def split_labels(text: str) -> tuple[str, ...]:
    """Undo ``join_labels``."""
    return tuple(text[1:].split(text[0])) if text else ()
