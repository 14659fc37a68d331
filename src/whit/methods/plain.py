"""Plain training: the control that every technique is compared with.

All five slots leave everything alone: the task's model is built, trained once and measured. As a
term of a sum it changes nothing: `a + plain()` equals `a`.
"""

from __future__ import annotations

from whit.core.technique import Technique, technique


@technique
def plain() -> Technique:
    """Train the task's model as it is: the control."""
    return Technique()
