"""Check a method's card: front matter, headings, and code blocks that run."""

from __future__ import annotations

import re
from pathlib import Path

from whit.errors import WhitError

FRONT_MATTER = ("paper", "year", "data", "saves")
HEADINGS = (
    "What it does",
    "Use it in your loop",
    "Use it by name",
    "Settings that work",
    "What it costs",
    "Deviations from the paper",
    "When it does not help",
    "Results",
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def check_card(card: Path) -> None:
    """Check a card and run its Python blocks, each in a fresh namespace.

    Args:
        card: the .md file beside the method.

    Raises:
        WhitError: the card is missing, lacks a part, or a block fails.
    """
    if not card.exists():
        raise WhitError(f"The card '{card.name}' is missing beside its method.")
    text = card.read_text()
    matter = text.split("---")[1] if text.startswith("---") else ""
    lacks = [key for key in FRONT_MATTER if not re.search(rf"^{key}: \S", matter, re.MULTILINE)]
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    if lacks:
        raise WhitError(f"The front matter of '{card.name}' lacks {lacks}.")
    if headings != list(HEADINGS):
        raise WhitError(f"'{card.name}' has the headings {headings}; expected {list(HEADINGS)}.")
    blocks = _BLOCK.findall(text)
    if not blocks:
        raise WhitError(f"'{card.name}' shows no Python block.")
    for number, block in enumerate(blocks, 1):
        try:
            exec(compile(block, f"{card.name}, block {number}", "exec"), {})
        except Exception as error:
            raise WhitError(
                f"Block {number} of '{card.name}' fails: {type(error).__name__}: {error}"
            ) from error
