"""The table of `whit bench`: one line a batch size, number of threads and state of the caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from whit.reporting.layout import significant

if TYPE_CHECKING:
    from whit.benchmarking.bench import Bench, BenchRow, Candidate, Network

WIDTH = 112
_COLORS = {"faster": "green", "slower": "red", "disturbed": "yellow"}


def bench_view(bench: Bench) -> RenderableType:
    """Return what `whit bench` prints: a table a file, what the peers are, and the machine."""
    parts: list[RenderableType] = []
    for network in bench.networks:
        parts += [Text(network_line(network), style="bold"), _table(bench, network)]
        parts += [Text(line, style="dim") for line in network_notes(network)]
        parts.append(Text(""))
    parts += [Text(line, style="dim") for line in [*machine_lines(bench), *explanations(bench)]]
    return Group(*parts)


def network_line(network: Network) -> str:
    """Return one line on a file: bytes, kernels, agreement with NumPy."""
    same = ""
    if network.same_class is not None:
        same = f", {network.same_class} of {network.samples} classes as in NumPy"
    kernels = f"{network.backend} kernels ({network.isa})"
    return f"{network.file}: {network.stored_bytes:,} bytes, {kernels}{same}"


def network_notes(network: Network) -> list[str]:
    """Return what a reader must know of the peers of a file."""
    notes = []
    if network.twin_bytes is not None:
        what = (
            "the same network in float32"
            if network.twin_same
            else "its float32 twin: same shapes, ReLU in place of rounding, folded batch norm"
        )
        ratio = network.twin_bytes / network.stored_bytes
        notes.append(
            f"Peers run {what}: {network.twin_bytes:,} bytes of weights, {ratio:.1f} times the file"
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in network.missing.items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"Not timed: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return notes


def machine_lines(bench: Bench) -> list[str]:
    """Return processor, versions, and what the looks at the machine found."""
    machine = bench.machine
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    lines = [f"{machine['cpu']}, {machine['cores']} cores; {versions}"]
    for threads, checks in bench.checks.items():
        known = [check for check in checks if check.share is not None]
        if bench.peak is None or len(known) < len(checks):
            lines.append(f"{_threads(threads)}: whether the machine was quiet is not known")
            continue
        shares = " before and ".join(f"{check.share:.0%}" for check in known)
        rates = " and ".join(f"{check.gflops:.0f}" for check in known)
        lines.append(
            f"{_threads(threads)}: torch's 256x4096 by 4096x4096 product reached {rates} GFLOP/s, "
            f"{shares} after of the peak of {threads * bench.peak.gflops:.0f} "
            f"({bench.peak.level}, {bench.peak.source})"
        )
    return lines


def explanations(bench: Bench) -> list[str]:
    """Return how the numbers of the table came about."""
    said = [
        "Milliseconds of one call: median (minimum), all candidates in turns in this process. "
        "Ratios are medians, in brackets minima: above 1, whit is faster.",
        "The verdict is against the fastest peer; within 3 % it is 'equal'.",
    ]
    if any(row.caches == "cold" for row in bench.rows):
        said.append(
            "Cold: before each call a block of memory twice the largest cache was read, so weights "
            "and code come from memory. Warm: the weights stay in the caches that they fit."
        )
    else:
        said.append("Warm: the weights stay in the caches that they fit; see --cold.")
    if any(row.verdict == "disturbed" for row in bench.rows):
        said.append(
            "Disturbed: before or after, the reference product fell under 60 % of the peak. "
            "Something else runs here, and ratios would flatter whit: repeat it on a quiet machine."
        )
    return said


def _table(bench: Bench, network: Network) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for head in ("batch", "threads", "caches"):
        table.add_column(head, justify="right" if head == "batch" else "left", no_wrap=True)
    for head in ("whit ms", "torch fp32 ms", "best fp32 peer", "best int8 peer", "verdict"):
        table.add_column(head, justify="left")
    for row in bench.rows:
        if row.file == network.file:
            table.add_row(*_cells(row))
    return table


def _cells(row: BenchRow) -> Iterator[Text]:
    yield Text(str(row.batch))
    yield Text(str(row.threads))
    yield Text(row.caches)
    yield Text(times_text(row.whit))
    yield _peer(row, row.peer("torch fp32"), named=False)
    yield _peer(row, row.best("float32"))
    yield _peer(row, row.best("int8"))
    yield Text(row.verdict, style=_COLORS.get(row.verdict, ""))


def _peer(row: BenchRow, peer: Candidate | None, named: bool = True) -> Text:
    if peer is None:
        return Text("-", style="dim")
    text = Text(f"{short_name(peer.name)}\n" if named else "")
    text.append(times_text(peer))
    return text.append(f"\n{ratio_words(row, peer)}", style="bold")


def ratio_words(row: BenchRow, peer: Candidate) -> str:
    """Return the ratio of medians and, in brackets, of minima."""
    median, minimum = row.ratio(peer), row.ratio(peer, "minimum_ms")
    assert median is not None and minimum is not None
    return f"{significant(median, 3)}x ({significant(minimum, 3)}x)"


def times_text(candidate: Candidate) -> str:
    """Return median and, in brackets, minimum of a candidate."""
    times = candidate.times
    return f"{significant(times.median_ms, 3)} ({significant(times.minimum_ms, 3)})"


def short_name(name: str) -> str:
    """Return the name of a peer as it fits into a column."""
    return name.replace("ONNX Runtime", "ORT")


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def missing_names(networks: Sequence[Network]) -> dict[str, dict[str, str]]:
    """Return the peers that could not be built, by file and name."""
    return {network.file: dict(network.missing) for network in networks if network.missing}
