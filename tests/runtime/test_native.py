import os
import subprocess
import sys

import numpy as np
import pytest

from whit.runtime import native

needs_extension = pytest.mark.skipif(
    not native.available() and os.environ.get("WHIT_REQUIRE_NATIVE") != "1",
    reason=str(native.reason()),
)


@needs_extension
def test_cpu_features_are_known_names() -> None:
    known = {"popcnt", "avx2", "avx512f", "avx512bw", "avx512vnni", "avx512vpopcntdq", "neon"}
    assert set(native.cpu_features()) <= known
    assert native.isa() in native.INSTRUCTION_SETS


@needs_extension
def test_a_matrix_refuses_what_does_not_fit() -> None:
    values = np.ones((3, 40), dtype=np.int8)
    with pytest.raises(ValueError, match="1 bytes each"):
        native.Matrix("ternary", values.astype(np.int16))
    with pytest.raises(ValueError, match="matrix"):
        native.Matrix("ternary", values[0])
    with pytest.raises(ValueError, match="kind"):
        native.Matrix("quaternary", values)
    matrix = native.Matrix("ternary", values, max_rows=4)
    left, out = np.zeros((4, 40), dtype=np.uint8), np.zeros((4, 3), dtype=np.int32)
    with pytest.raises(ValueError, match="40 bytes"):
        matrix.multiply(left[:, :39].copy(), out)
    with pytest.raises(ValueError, match="int32"):
        matrix.multiply(left, out.astype(np.float32))
    with pytest.raises(ValueError, match="max_rows"):
        matrix.multiply(np.zeros((5, 40), dtype=np.uint8), np.zeros((5, 3), dtype=np.int32))


WITHOUT_EXTENSION = """
import sys
sys.modules["whit._native"] = None
from whit.runtime import native
assert not native.available()
print(native.reason())
assert native.cpu_features() == []
for call in (native.isa, lambda: native.program(b"", 1)):
    try:
        call()
    except RuntimeError as error:
        assert "needs the C++ extension" in str(error)
    else:
        raise AssertionError("the core ran without an extension")
"""


@pytest.mark.parametrize(("required", "fails"), [("0", False), ("1", True)])
def test_a_missing_extension_has_a_reason_or_is_an_error(required: str, fails: bool) -> None:
    environment = {**os.environ, "WHIT_REQUIRE_NATIVE": required}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr
    if fails:
        assert "WHIT_REQUIRE_NATIVE is set" in done.stderr
    else:
        assert "could not be imported" in done.stdout
