import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from whit.errors import WhitError
from whit.runtime import load
from whit.runtime import program as program_module
from whit.runtime.operators import OPERATOR_CODES
from whit.runtime.storage import FORMATS

# The golden file is a binary 8-6-3 network of format version 1, made once, with
#   whit.pack(model, example, labels=["a", "b", "c"], info={"task": "golden"}, input_range=(0, 16))
# by `PYTHONPATH=src python tests/golden/make_golden.py`; it must stay readable for ever.
GOLDEN = Path(__file__).parents[1] / "golden"


def test_golden_file_of_version_1_stays_readable():
    expected = np.load(GOLDEN / "binary_version1.npz")
    program = load(GOLDEN / "binary_version1.whit")
    np.testing.assert_array_equal(program(expected["inputs"]), expected["outputs"])
    assert program.labels == ("a", "b", "c")
    assert program.info["task"] == "golden"
    assert program.info["format_version"] == "1"
    assert program.input.shape == (8,)
    assert program.input.range == (0.0, 16.0)


GOLDEN_2 = sorted(path.stem for path in GOLDEN.glob("*_version[23].whit"))


@pytest.mark.parametrize("name", GOLDEN_2)
def test_golden_files_of_later_versions_stay_readable(name):
    expected = np.load(GOLDEN / f"{name}.npz")
    program = load(GOLDEN / f"{name}.whit")
    output = program(expected["inputs"])
    assert program.info["format_version"] == name[-1]
    if name.startswith(("binary", "integer")):
        np.testing.assert_array_equal(output, expected["outputs"])
    else:  # sums of floats may be made in another order
        scale = np.abs(expected["outputs"]).max()
        np.testing.assert_allclose(output, expected["outputs"], atol=1e-5 * scale)


def test_the_golden_files_hold_every_operator_and_every_weight_format():
    steps = [step for name in GOLDEN_2 for step in load(GOLDEN / f"{name}.whit").steps]
    assert {step.operator.kind for step in steps} == set(OPERATOR_CODES)
    formats = {step.cost.weight_format for step in steps} - {""}
    assert formats == {form.name for form in FORMATS.values()}


def golden():
    return load(GOLDEN / "binary_version1.whit", backend="reference")


def test_any_batch_size_gives_the_same_rows(monkeypatch):
    inputs = np.random.default_rng(0).integers(0, 17, (33, 8))
    whole = golden()(inputs)
    assert golden()(inputs[:0]).shape == (0, 3)
    monkeypatch.setattr(program_module, "_CHUNK_BYTES", 1)
    np.testing.assert_array_equal(golden()(inputs), whole)
    assert whole.dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros(8), "without a batch axis"),
        (np.zeros((2, 9)), r"expected \[batch, 8\]"),
        (np.zeros(()), r"expected \[batch, 8\]"),
        (np.zeros((2, 8), dtype=bool), "dtype bool"),
        (np.zeros((2, 8), dtype=complex), "dtype complex"),
        (np.full((2, 8), "a"), "dtype <U1"),
        (np.full((2, 8), np.nan), "NaN"),
        (np.full((2, 8), 1e300), "infinite"),
    ],
)
def test_wrong_inputs_are_explained(inputs, message):
    with pytest.raises(WhitError, match=message):
        golden()(inputs)


def test_backends():
    program = load(GOLDEN / "binary_version1.whit")
    assert program.info["backend"] == program.backend
    assert program.backend in ("native", "reference")
    with pytest.raises(WhitError, match="unknown"):
        load(GOLDEN / "binary_version1.whit", backend="cuda")
    with pytest.raises(WhitError, match="threads"):
        load(GOLDEN / "binary_version1.whit", threads=0)


def test_native_backend_is_taken_or_explained():
    from whit.runtime import native

    if native.available():
        inputs = np.random.default_rng(0).integers(0, 17, (33, 8))
        found = load(GOLDEN / "binary_version1.whit", backend="native")(inputs)
        np.testing.assert_array_equal(found, golden()(inputs))
    else:
        with pytest.raises(WhitError, match="reference"):
            load(GOLDEN / "binary_version1.whit", backend="native")


def test_costs_are_counted_from_the_file():
    costs = {cost.name: cost for cost in golden().operators}
    first, last = costs["linear_1"], costs["linear_3"]
    assert (first.weight_bits, first.activation_bits, first.macs) == (1, 32, 48)
    assert (last.weight_bits, last.activation_bits, last.macs) == (1, 1, 18)
    assert (first.weight_bytes, first.constant_bytes) == (6, 0)
    assert last.accumulation_length == 6
    assert golden().activation_peak_bytes == 64


def test_the_runtime_imports_no_torch():
    code = (
        "import sys, numpy as np, whit.runtime\n"
        f"program = whit.runtime.load({str(GOLDEN / 'binary_version1.whit')!r})\n"
        "program(np.zeros((1, 8)))\n"
        "assert not {'torch', 'safetensors', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
