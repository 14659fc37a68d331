#!/usr/bin/env bash
# The base install must work where torch is not: import, help, doctor, and every golden artifact.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --disable-pip-version-check -qq -c constraints.txt .
cd "$place"  # away from the sources: what is tested is what was installed
bin=$place/venv/bin

"$bin/python" - "$root/tests/golden" "$place/inputs.npy" <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

assert importlib.util.find_spec("torch") is None, "torch is installed here"

import numpy as np

import whit.runtime
from whit.runtime import native

print("extension:", native.reason() or "built")
for path in sorted(Path(sys.argv[1]).glob("*.whit")):
    program = whit.runtime.load(str(path))
    expected = np.load(path.with_suffix(".npz"))
    output = program(expected["inputs"])
    exact = path.name.startswith(("binary", "integer"))  # floats: sums in any order
    tolerance = 0 if exact else 1e-5 * np.abs(expected["outputs"]).max()
    worst = np.abs(output - expected["outputs"]).max()
    assert worst <= tolerance, f"{path.name} gives other values"
    if path.name == "binary_version1.whit":
        np.save(sys.argv[2], expected["inputs"])
    print(f"{path.name}: {output.shape}, {'equal' if exact else 'close'} to what was recorded")
PYTHON
"$bin/whit" --help >/dev/null
"$bin/whit" doctor
"$bin/whit" inspect "$root/tests/golden/binary_version1.whit"
"$bin/whit" predict "$root/tests/golden/binary_version1.whit" inputs.npy | head -n 3
"$bin/whit" export "$root/tests/golden/integer_version2.whit" --to c -o "$place/c"
