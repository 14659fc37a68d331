"""Which row to use, and why, in words: the smallest file of nearly the control's quality."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from whit.core.budget import Budget
from whit.errors import SettingsError

if TYPE_CHECKING:
    from whit.comparison import Comparison
    from whit.rows import Row

TOLERANCE = 0.01
WORTHWHILE = 0.05


def check_tolerance(tolerance: float) -> float:
    """Return the tolerance.

    Raises:
        SettingsError: it is not within 0..1.
    """
    whole = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not whole or not 0 <= tolerance <= 1:
        raise SettingsError(
            f"The tolerance was given as {tolerance!r}; expected a number from 0 to 1: how much "
            "validation quality the recommended technique may lose, 0.01 by default."
        )
    return tolerance


def recommendation(
    comparison: Comparison, budget: Budget, tolerance: float = TOLERANCE
) -> tuple[Row, str]:
    """Return the row to use, and the rule that chose it in words.

    Args:
        comparison: its first row is the control.
        budget: limits to keep.
        tolerance: loss of mean validation quality that is allowed, 0..1.
    """
    check_tolerance(tolerance)
    control = comparison.control
    working = [row for row in comparison.rows if not row.failed]
    kept = [row for row in working if not _broken(budget, row)]
    if not kept:
        return _nothing_kept(working, budget)
    others = [row for row in kept if row is not control and "stored_bytes" in row.means]
    # A difference of exactly the tolerance is allowed, whatever binary fractions make of it.
    least = control.valid - tolerance - 1e-9
    good = [row for row in others if math.isfinite(row.valid) and row.valid >= least]
    best = min(good, key=lambda row: (row.means["stored_bytes"], -row.valid), default=None)
    usable = control in kept and "stored_bytes" in control.means
    if best is not None and (not usable or _worthwhile(best, control)):
        return best, _smallest(best, control, budget, tolerance)
    if usable:
        return control, _stay(control, others, len(working) > 1, budget, tolerance)
    return _best_quality(kept, control, budget, tolerance)


def distance(row: Row, control: Row) -> str:
    """Return in words how far a row's validation quality is from the control's."""
    gap = row.valid - control.valid
    if not math.isfinite(gap):
        return f"its mean validation {row.metric}, or the control's, is no finite number"
    named = f"its mean validation {row.metric} {row.valid:.4f}"
    if abs(gap) < 5e-5:
        return f"{named} equals the control's {control.valid:.4f}"
    side = "above" if gap > 0 else "below"
    return f"{named} is {abs(gap):.4f} {side} the control's {control.valid:.4f}"


def _broken(budget: Budget, row: Row) -> list[str]:
    return budget.violations({**row.means, "reasons": row.reasons})


def _excess(budget: Budget, row: Row) -> float:
    """Return by which factor a row is farthest beyond a limit; infinite where it is unknown."""
    factors = [1.0]
    for limit in budget.limits:
        value = row.means.get(limit.column)
        if value is None:
            return math.inf
        if not limit.holds(value):
            high, low = max(value, limit.value), min(value, limit.value)
            factors.append(high / low if low > 0 else math.inf)
    return max(factors)


def _worthwhile(row: Row, control: Row) -> bool:
    return row.means["stored_bytes"] <= (1 - WORTHWHILE) * control.means["stored_bytes"]


def _allowed(tolerance: float) -> str:
    return f"at most {tolerance:g} below is allowed" if tolerance else "no loss is allowed"


def _smallest(row: Row, control: Row, budget: Budget, tolerance: float) -> str:
    size = f"{row.means['stored_bytes']:,.0f} bytes"
    if "stored_bytes" in control.means:
        size += f" instead of the control's {control.means['stored_bytes']:,.0f}"
    else:
        size += "; the control has no packed file"
    limits = f" It keeps the budget ({budget})." if budget else ""
    if budget and _broken(budget, control):
        limits = f" It keeps the budget ({budget}); the control does not."
    return (
        f"Recommended: {row.label}, the smallest file ({size}) at this quality: "
        f"{distance(row, control)}; {_allowed(tolerance)}.{limits}"
    )


def _stay(control: Row, others: list[Row], compared: bool, budget: Budget, tolerance: float) -> str:
    start = f"Recommended: {control.label}, the control"
    if not compared:
        return f"{start}: there was nothing to compare it with."
    limits = f" and keeps the budget ({budget})" if budget else ""
    said = f"{start}: nothing here is smaller by 5 % at this quality{limits}."
    smaller = [row for row in others if _worthwhile(row, control)]
    if not smaller:
        return said
    near = max(smaller, key=lambda row: row.valid)
    return (
        f"{said} The best of the smaller files is that of {near.label}: {distance(near, control)}; "
        f"{_allowed(tolerance)}."
    )


def _best_quality(
    kept: list[Row], control: Row, budget: Budget, tolerance: float
) -> tuple[Row, str]:
    """Choose by quality where no packed file is good enough."""
    chosen = max(kept, key=lambda row: row.valid)
    packed = [row for row in kept if "stored_bytes" in row.means]
    limits = f" among those that keep the budget ({budget})" if budget else ""
    said = f"Recommended: {chosen.label}, the best validation {chosen.metric}{limits}"
    if not packed:
        reason = chosen.reasons.get("stored_bytes", "it was not measured").rstrip(".")
        return chosen, (
            f"{said}: {chosen.valid:.4f}. But there is no packed file of it, nor of any other "
            f"here: {reason}."
        )
    if chosen not in packed:
        return chosen, (
            f"{said}: {chosen.valid:.4f}. But there is no packed file of it, and the techniques "
            f"that have one lose more than {tolerance:g}."
        )
    loss = control.valid - chosen.valid
    if loss <= tolerance:
        return chosen, f"{said}: {distance(chosen, control)}; {_allowed(tolerance)}."
    cost = "The budget costs" if budget else "A packed file costs"
    return chosen, (
        f"{said}. {cost} quality here: {distance(chosen, control)}, more than the "
        f"{tolerance:g} that is allowed."
    )


def _nothing_kept(working: list[Row], budget: Budget) -> tuple[Row, str]:
    chosen = min(
        working, key=lambda row: (len(_broken(budget, row)), _excess(budget, row), -row.valid)
    )
    broken = _broken(budget, chosen)
    count = "one limit" if len(broken) == 1 else f"{len(broken)} limits"
    return chosen, (
        f"No technique keeps the budget ({budget}). Nearest is {chosen.label}, which breaks "
        f"{count}: {'; '.join(broken)}."
    )
