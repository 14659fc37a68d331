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

"$bin/python" - "$root/tests/golden" <<'PYTHON'
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
    inputs = path.with_suffix(".npy")
    if not inputs.exists():
        sys.exit(f"{path.name} has no sample inputs beside it: {inputs.name} is missing")
    output = program(np.load(inputs))
    assert np.isfinite(output).all(), f"{path.name} gives values that are not finite"
    print(f"{path.name}: {output.shape}")
PYTHON
"$bin/whit" --help >/dev/null
"$bin/whit" doctor
