"""Comparisons that the tests of the report page share: a real one, and edge cases made from it."""

from dataclasses import replace

import pytest

from whit.comparison import compare

HOSTILE = "own.py:x(s='</script><script>window.broken=1</script><img src=x onerror=alert(1)>')"


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Two techniques and the control on iris: one with two trainings, one of 1-bit weights."""
    folder = tmp_path_factory.mktemp("report") / "whit-runs"
    specs = ["distillation(student_width=0.5)", "binarized_network()"]
    settings = {"epochs": 3}
    return compare(specs, "iris", 2, settings=settings, budget="stored_bytes <= 2 kB", out=folder)


def changed(row, label, factor=1.0, **more):
    """Return a row under another name, with other means and its own packed file left out."""
    means = {name: value * factor for name, value in row.means.items()}
    return replace(row, label=label, spec=label, means=means, **more)


@pytest.fixture(scope="session")
def twelve(real):
    """Twelve rows: close points, long names, a hostile name, unknown costs, a failed one, stale."""
    control, student, binary = real.rows
    rows = [
        changed(student, f"own_folder/my_file.py:technique_{n}(x={n}, y='long')", 1 - n / 40)
        for n in range(1, 7)
    ]
    costs = ("stored_bytes", "macs", "energy_nj", "latency_ms")
    known = {name: value for name, value in binary.means.items() if name not in costs}
    reason = "cannot pack module 'net.<b>': no operator"
    rows += [
        changed(binary, HOSTILE, 1.02),
        replace(changed(binary, "unpacked()"), means=known, reasons=dict.fromkeys(costs, reason)),
        replace(
            changed(binary, "half_known()"),
            means={**binary.means, "latency_ms": float("nan")},
            stale=True,
            notes=("second control: judged against 'plain() @ epochs=9', and so are the ratios",),
        ),
        replace(binary, label="failed()", spec="failed()", runs=(), means={}, failed="no <layers>"),
    ]
    return replace(real, rows=(control, binary, *rows))
