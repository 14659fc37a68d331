"""HTML as values: every text is escaped, what is markup already stays as it is."""

from __future__ import annotations

import json
import math
from html import escape
from typing import Any

_VOID = ("br", "img", "meta", "wbr")


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


Content = str | None


def tag(name: str, /, *children: Content, **attributes: str | bool | None) -> Markup:
    """Return one element.

    Args:
        name: of the element.
        children: texts, which are escaped, and markup, which is not; None is left out.
        attributes: by name; an underscore at the end is dropped and others become hyphens
            (`class_`, `aria_label`). None and False leave an attribute out, True has no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Content) -> Markup:
    """Return the children one behind the other, texts escaped."""
    return Markup("".join(_escaped(child) for child in children if child is not None))


def caption(text: str, class_: str | None = None) -> Markup:
    """Return the caption of a table; its text stays in sight when a wide table is scrolled."""
    return tag("caption", tag("span", text), class_=class_)


def scrolling(table: Markup, label: str) -> Markup:
    """Return a wide table in a box that scrolls by itself, by keyboard too."""
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def script(content: str, kind: str = "") -> Markup:
    """Return a script element whose content is taken as it is; it must not hold `</script`."""
    kind = f' type="{kind}"' if kind else ""
    return Markup(f"<script{kind}>{content}</script>")


def data_script(name: str, values: object) -> Markup:
    """Return values as JSON inside a script element that is read, never run.

    Args:
        name: the element's id.
        values: plain values; numbers that are not finite become null.
    """
    text = json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # No text of a user may end the element or open a comment in it.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def _attribute(key: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def _escaped(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child, quote=False)
