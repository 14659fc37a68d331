"""From process start to the first prediction of a packed network, without torch.

    python benchmarks/start_time.py [digits.whit [results/start_time.jsonl]]

Whole processes, interleaved: an empty Python, `import numpy`, and load + predict of one sample.
Prints medians and minima in milliseconds, and appends them to a file when one is named. Without
arguments it takes the small golden file of the tests.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from whit.measure.provenance import provenance

ROUNDS = 15
PREDICT = """
import sys
import numpy as np
import whit.runtime
program = whit.runtime.load(sys.argv[1])
program(np.zeros((1, *program.input.shape), dtype=program.input.dtype))
assert "torch" not in sys.modules
"""
PROGRAMS = {"empty": "pass", "numpy": "import numpy", "load_and_predict": PREDICT}


def main() -> None:
    golden = Path(__file__).parents[1] / "tests" / "golden" / "binary_version2.whit"
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else golden
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, code in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, str(file)], check=True)
            seconds[name].append(time.perf_counter() - start)
    row: dict[str, object] = {"file": file.name, "rounds": ROUNDS}
    for name, values in seconds.items():
        row[f"{name}_median_ms"] = round(1000 * median(values), 1)
        row[f"{name}_min_ms"] = round(1000 * min(values), 1)
    print(json.dumps(row))
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a") as results:
            results.write(json.dumps(row | {"provenance": provenance()}) + "\n")


if __name__ == "__main__":
    main()
