"""Why a weight got its format, or cannot have another, in words."""

from whit.packing.value_profile import MatrixProfile
from whit.runtime.float_codings import CodeBook
from whit.runtime.integer_codings import MAX_PLANES, planes_of
from whit.runtime.storage import Format

_RANGES = {"bits": "-1 and +1", "ternary": "-1, 0, +1", "ternary5": "-1, 0, +1"}
_RANGES |= {"int4": "-8 to 7", "int8": "-128 to 127", "planes": f"{MAX_PLANES} bits"}


def explain(
    form: Format, profile: MatrixProfile, scales: int, following: tuple[str, int] | None
) -> str:
    """Return the reason of a choice.

    Args:
        form: the format chosen.
        profile: the values that it stores.
        scales: number of scales.
        following: name and bytes of the next smallest format, if there is one.
    """
    sizes = profile.sizes
    what = _integers_in_words(profile, scales) if form.integers else _floats_in_words(form, profile)
    if form.layout.name == "two_four":
        what += ", at most 2 of each 4 non-zero"
    share = 100.0 * (sizes.count - sizes.nonzero) / sizes.count
    zeros = f", {share:.1f} % zeros" if sizes.nonzero < sizes.count else ""
    runner_up = f", next {following[0]} with {following[1]}" if following else ""
    return f"{form.name}: {what}{zeros}{runner_up}"


def what_is_missing(form: Format, floats: MatrixProfile, grids: list[MatrixProfile]) -> str:
    """Say why a format cannot hold a matrix.

    Args:
        form: the format.
        floats: the matrix.
        grids: the matrix as integers, for each way to scale them; empty when there is none.
    """
    if form.integers and not grids:
        return f"{form.name} needs integers times a scale, and the values are none"
    if form.layout.name == "two_four" and not floats.sizes.paired:
        return f"{form.name} needs at most 2 non-zero values in each 4, and there are more"
    if form.integers:
        return _unfit_integers(form, grids)
    if isinstance(form.coding, CodeBook):
        return _unfit_code_book(form, form.coding, floats)
    return f"{form.name} would change values that are no binary16 numbers"


def _unfit_integers(form: Format, grids: list[MatrixProfile]) -> str:
    sizes = min((grid.sizes for grid in grids), key=lambda sizes: sizes.high - sizes.low)
    low, high = int(sizes.low), int(sizes.high)
    if -1 <= low and high <= 1:
        levels = [level for level in (low, 0, high) if level or sizes.nonzero < sizes.count]
        names = ", ".join(f"{level:+d}" if level else "0" for level in sorted(set(levels)))
        return f"{len(set(levels))} levels ({names}) do not fit in {form.name}"
    return f"integers {low} to {high} do not fit in {form.name} ({_RANGES[form.coding.name]})"


def _unfit_code_book(form: Format, coding: CodeBook, floats: MatrixProfile) -> str:
    if floats.sizes.nonzero == 0:
        return f"{form.name} needs a value that is not 0"
    distinct = "more than 4096" if floats.histogram is None else floats.histogram.values.size
    return f"{distinct} different values do not fit in {form.name} ({1 << coding.bits} entries)"


def _integers_in_words(profile: MatrixProfile, scales: int) -> str:
    sizes = profile.sizes
    times = {0: "1", 1: "s"}.get(scales, "s of its row")
    if -1 <= sizes.low and sizes.high <= 1:
        zero = "" if sizes.nonzero == sizes.count else " 0,"
        return f"only -{times},{zero} +{times}"
    scale = "" if scales == 0 else f" times {times}"
    width = planes_of(profile.values)
    return f"only integers {sizes.low:.0f} to {sizes.high:.0f}{scale} ({width} bits)"


def _floats_in_words(form: Format, profile: MatrixProfile) -> str:
    histogram = profile.histogram
    if histogram is not None and isinstance(form.coding, CodeBook):
        return f"only {histogram.values.size} different values"
    return "all exact in 16 bits" if form.coding.name == "float16" else "many magnitudes"
