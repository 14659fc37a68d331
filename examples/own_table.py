"""A CSV file of your own: compare techniques on it, then give new rows to the packed winner.

Run it with `python examples/own_table.py`.
"""

import csv
import tempfile
from pathlib import Path

from sklearn.datasets import load_wine

import whit
from whit.tasks.encoded_table import TableOptions, load_table


def write_table(path: Path) -> None:
    """Write the wines of scikit-learn as a CSV file, some values missing, one column of texts."""
    wine = load_wine()
    names = [name.replace("/", " per ") for name in wine.feature_names]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "glass", "grower"])
        for number, (values, kind) in enumerate(zip(wine.data, wine.target, strict=True)):
            cells = ["" if (number + i) % 40 == 0 else f"{v:g}" for i, v in enumerate(values)]
            glass = "dark" if values[9] > 5 else "pale"
            writer.writerow([*cells, glass, f"grower {'abc'[kind]}"])


def main(folder: Path) -> list[str]:
    """Compare a technique with the control, and answer for two rows from the recommended file."""
    path = folder / "wines.csv"
    write_table(path)
    # On the command line: whit compare "tabular(path='wines.csv', target='grower')"
    task = f"tabular(path='{path}', target='grower')"
    specs = ["one_cycle_pruning(sparsity=0.8)"]
    comparison = whit.compare(
        specs, task=task, seeds=1, settings={"epochs": 15}, out=folder / "runs"
    )
    print(comparison)

    table = load_table(str(path), TableOptions(target="grower"))
    print(f"{len(table.data.feature_names)} inputs: {', '.join(table.data.feature_names)}")
    with path.open() as file:
        rows = list(csv.DictReader(file))[::100]
    recommended, _ = comparison.recommend()
    program = whit.runtime.load(recommended.best.packed_path)
    answers = table.answers(program(table.encode(rows)))
    print(answers)
    return answers


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
