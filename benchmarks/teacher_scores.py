"""The validation accuracy of each ternary network and of the teacher that it imitates.

    python benchmarks/teacher_scores.py whit-runs/claims/mnist_ternary --out results/teachers.jsonl

Reads the runs that `whit compare` has left in a folder; the first training of a ternary network is
that of its teacher. The test split knows no teacher, so the two meet on validation.
"""

import argparse
import json
from pathlib import Path

from whit.measure.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="the --out folder of whit compare")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.runs.glob("*/*/result.json")]
    students = [one for one in results if "ternary_network(" in one["spec"]]
    for one in sorted(students, key=lambda one: one["seed"]):
        row = {
            "task": one["task"],
            "seed": one["seed"],
            "teacher_valid": one["history"][0]["valid"][-1],
            "student_valid": one["scorecard"]["valid_accuracy"],
            "provenance": one["provenance"],
        }
        Store(options.out).append(row)
        print(row["seed"], row["teacher_valid"], row["student_valid"])


if __name__ == "__main__":
    main()
