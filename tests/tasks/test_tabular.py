"""The task `tabular`: own tables by path, public ones by name."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import whit
from whit.core.task import r_squared
from whit.errors import DataError, SpecError, TaskError, WhitError
from whit.tasks import data_folder
from whit.tasks.encoded_table import TableOptions, load_table
from whit.tasks.shipped_tables import SHIPPED, shipped_file
from whit.tasks.splits import fixed_parts
from whit.tasks.tabular import tabular

ROOT = os.environ.get("WHIT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHARED = Path(ROOT) / "tabular"


@pytest.fixture
def shared() -> None:
    if not SHARED.is_dir():
        message = f"the public tables are not in {SHARED}; WHIT_DATA may name another folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def rows_of_plants(count=60):
    random = np.random.RandomState(0)
    for i in range(count):
        kind = i % 2
        height = "" if i % 9 == 4 else f"{random.normal(10 + 5 * kind, 1):.3f}"
        name = "moss" if i % 3 else "fern"
        yield [height, name, f"{i % 4}", height or "12.5", ("yes", "no")[kind]]


def write(path, rows, header=("height", "name", "soil", "weight", "edible")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def plants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write("plants.csv", rows_of_plants())


def test_classes_from_texts(plants):
    task = tabular(path=plants, categorical=["soil"])
    data = task.checked_data()
    assert task.name == "tabular(path='plants.csv', categorical=('soil',))"
    assert data.class_names == ("no", "yes") and task.metric_name == "accuracy"
    assert [len(p) for p in (data.train, data.valid, data.test)] == [36, 12, 12]
    assert data.train.target.bincount().tolist() == [18, 18]
    assert data.feature_names == (
        "height",
        "height is missing",
        "name=fern",
        "name=moss",
        *(f"soil={n}" for n in range(4)),
        "weight",
    )
    model = task.build_model(data, {"width": 0.5})
    measured = torch.tensor([n in ("height", "weight") for n in data.feature_names])
    expected = data.train.inputs[0].mean(0).where(measured, 0.0)
    assert torch.allclose(model.normalise.shift, expected, atol=1e-5)
    assert bool((model.normalise.scale[~measured] == 1).all()) and model.linear1.out_features == 16


def test_a_fresh_process_makes_the_same_task_from_its_name(plants):
    task = tabular(path=plants, target="soil", ignore=["edible"], width=0.5)
    code = "import sys, whit; t = whit.task(sys.argv[1]); print(t.name, t.load().checksum())"
    done = subprocess.run(
        [sys.executable, "-c", code, task.name], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{task.name} {task.load().checksum()}"


def test_the_target_is_the_column_target_or_the_last(plants, tmp_path):
    assert load_table(plants).target == "edible"
    rows = [(i % 2, i, i * 2) for i in range(20)]
    assert load_table(write(tmp_path / "t.csv", rows, ("target", "a", "b"))).target == "target"


def test_numbers_with_fractions_are_a_regression(plants):
    task = tabular(path=plants, target="weight")
    assert task.metric is r_squared and task.loss is torch.nn.functional.mse_loss
    table = load_table(plants, TableOptions(target="weight"))
    trained = table.data.train.target
    assert trained.shape == (36, 1) and trained.dtype == torch.float32
    assert abs(float(trained.mean())) < 1e-6 and abs(float(trained.std(correction=0)) - 1) < 1e-6
    known = sorted(float(row[3]) for row in rows_of_plants())
    parts = (table.data.train, table.data.valid, table.data.test)
    found = [v for part in parts for v in table.answers(part.target.numpy())]
    assert np.allclose(sorted(found), known, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["3", "10", "3.0", "2"], "auto", ("2", "3", "10")),
        (["b", "a", "10", "a"], "auto", ("10", "a", "b")),
        (["0.5", "1.5"], "classification", ("0.5", "1.5")),
        (["0.5", "1.5"], "auto", ()),
        ([str(i) for i in range(21)], "auto", ()),
        ([str(i) for i in range(20)], "auto", tuple(str(i) for i in range(20))),
        (["1", "2"], "regression", ()),
    ],
)
def test_what_kind_of_target(tmp_path, values, kind, names):
    rows = [(i, values[i % len(values)]) for i in range(3 * len(values) + 9)]
    path = write(tmp_path / "t.csv", rows, ("x", "y"))
    assert load_table(path, TableOptions(kind=kind)).data.class_names == names


def parts_of(path, **options):
    table = load_table(str(path), TableOptions(**options))
    splits = (table.data.train, table.data.valid, table.data.test)
    return table, [split.inputs[0].clone() for split in splits]


@pytest.mark.parametrize("part", [1, 2])
def test_the_encoder_sees_training_rows_alone(plants, part):
    """Change every value of a validation or test row: the encoded training rows do not move."""
    before, old = parts_of(plants)
    rows = list(rows_of_plants())
    target = torch.tensor([["no", "yes"].index(row[-1]) for row in rows])
    changed = int(fixed_parts(target, 2, 20240208)[part][0])
    rows[changed] = ["9999", "palm", "77", "", rows[changed][-1]]
    write(plants, rows)
    after, new = parts_of(plants)
    assert after.data.feature_names == before.data.feature_names
    assert torch.equal(old[0], new[0]), "the training rows moved"
    assert torch.equal(old[3 - part], new[3 - part])
    assert not torch.equal(old[part], new[part]), "the changed row was not read"
    assert new[part][0, 0] == 9999 and new[part][0, 2:4].tolist() == [0, 0]


def test_a_training_value_does_move_the_encoder(plants):
    _, old = parts_of(plants)
    rows = list(rows_of_plants())
    target = torch.tensor([["no", "yes"].index(row[-1]) for row in rows])
    rows[int(fixed_parts(target, 2, 20240208)[0][0])][1] = "palm"
    write(plants, rows)
    table, new = parts_of(plants)
    assert "name=palm" in table.data.feature_names and new[1].shape[1] == old[1].shape[1] + 1


def test_new_rows_are_encoded_as_the_files_rows_were(plants):
    table = load_table(plants)
    with open(plants) as file:
        rows = list(csv.DictReader(file))
    known = {row.numpy().tobytes() for p in parts_of(plants)[1] for row in p}
    assert {row.tobytes() for row in table.encode(rows)} == known
    numbers = {"height": 3.5, "name": "fern", "soil": 1, "weight": None}
    assert table.encode([numbers])[0, :4].tolist() == [3.5, 0, 1, 0]
    assert table.answers(np.array([[0.1, 3.0], [2.0, 1.0]])) == ["yes", "no"]
    with pytest.raises(DataError, match="lack the column 'weight'"):
        table.encode([{"height": 1, "name": "fern", "soil": 2}])
    with pytest.raises(DataError, match="at least one"):
        table.encode([])


def test_a_packed_network_answers_for_new_rows(plants):
    task = tabular(path=plants)
    result = whit.execute(task, settings=task.settings.changed(epochs=15))
    table = load_table(plants)
    with open(plants) as file:
        rows = list(csv.DictReader(file))
    answers = table.answers(result.packed.program(table.encode(rows)))
    assert np.mean([a == row["edible"] for a, row in zip(answers, rows, strict=True)]) > 0.9


EVERY = [[str(i), str(i % 2)] for i in range(12)]
BAD = {
    "no column": (EVERY, {"target": "z"}, "no column 'z' .target.*Known: x, y"),
    "no categorical": (EVERY, {"categorical": ["xx"]}, "'xx' .categorical.*Did you mean 'x'"),
    "no ignored": (EVERY, {"ignore": ["w"]}, "no column 'w' .ignore"),
    "target ignored": (EVERY, {"ignore": ["y"]}, "'y' is the target.*also named"),
    "nothing left": (EVERY, {"ignore": ["x"]}, "no column but the target"),
    "one class": ([[r[0], "a"] for r in EVERY], {}, "one class, 'a': there is nothing"),
    "one value": ([[r[0], "2.5"] for r in EVERY], {}, "one value, 2.5"),
    "few rows": ([["1", "a"], ["2", "b"]], {}, "fewer than 3 rows, one for each split: 'a', 'b'"),
    "two rows": ([["1", "0.5"], ["2", "1.5"]], {}, "2 samples for 3 splits"),
    "rare class": ([*EVERY, ["5", "7"]], {}, "1 of 3 classes in column 'y'.*'7'"),
    "all missing": ([["?", r[1]] for r in EVERY], {}, "lack a value in column 'x'"),
    "target missing": ([*EVERY, ["1", ""], ["2", "NA"]], {}, "2 of 14 rows .*first in row 13"),
    "no numbers": (
        [[r[0], "a"] for r in EVERY] + EVERY,
        {"kind": "regression"},
        "12 of 24 rows do not; the first is row 1 ",
    ),
    "infinite": ([["inf", r[1]] for r in EVERY], {}, "should hold finite numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_said_in_one_paragraph(tmp_path, case):
    rows, options, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        tabular(path=write(tmp_path / "t.csv", rows, ("x", "y")), **options)
    assert "\n" not in str(caught.value)


def test_text_among_numbers_is_said_with_its_split(tmp_path):
    rows = [[str(i), str(i % 2)] for i in range(30)]
    train, valid, test = fixed_parts(torch.arange(30) % 2, 2, 20240208)
    for part, message in ((valid, "1 of 6 validation rows .*'much'"), (test, "sealed")):
        changed = [list(row) for row in rows]
        changed[int(part[0])][0] = "much"
        with pytest.raises(DataError, match=message):
            tabular(path=write(tmp_path / "t.csv", changed, ("x", "y")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "class"}, "Did you mean 'classification'"),
        ({"categorical": "soil"}, "list of column names"),
        ({"path": 3}, "expected a text"),
        ({"width": 0}, "width"),
    ],
)
def test_bad_options(plants, options, message):
    with pytest.raises(TaskError, match=message):
        tabular(**{"path": plants, **options})


def test_names_of_no_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no table 'adlt'.*Did you mean 'adult'"):
        tabular(path="adlt")
    with pytest.raises(DataError, match="no table 'my.csv' .looked in"):
        whit.task("tabular(path='my.csv')")
    with pytest.raises(SpecError, match="no option 'traget'"):
        whit.task("tabular(traget='x')")


def test_public_tables_say_where_they_should_be(tmp_path, monkeypatch):
    monkeypatch.setenv("WHIT_DATA", str(tmp_path))
    with pytest.raises(WhitError, match="magic.tsv.gz' is missing; the variable WHIT_DATA"):
        tabular(path="magic")


def test_a_public_table_has_its_own_address(monkeypatch):
    asked = []
    monkeypatch.setattr("whit.tasks.shipped_tables.data_file", lambda *a: asked.append(a))
    shipped_file("krkopt")
    folder, name, digest, address = asked[0]
    assert (folder, name, len(digest)) == ("tabular", "krkopt.tsv.gz", 64)
    assert address.endswith("/datasets/classification/krkopt/")
    assert data_folder.data_file is not None and {len(t.sha256) for t in SHIPPED.values()} == {64}


@pytest.mark.usefixtures("shared")
def test_small_public_tables_never_change() -> None:
    expected = {"phoneme": (3242, 5, 2), "krkopt": (16834, 40, 18), "churn": (3000, 71, 2)}
    for name, found in expected.items():
        data = tabular(path=name).checked_data()
        assert (len(data.train), data.input_shape[0], len(data.class_names)) == found
    assert load_table("churn").data.checksum() == "54c86c23397bea2c"
    assert "phone number" not in load_table("churn").data.feature_names


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_public_table_is_a_task(name: str) -> None:
    task = whit.task(f"tabular(path='{name}')")
    data = task.checked_data()
    assert len(data.train) / (len(data.train) + len(data.valid) + len(data.test)) == pytest.approx(
        0.6, abs=0.01
    )
    assert len(data.feature_names) == data.input_shape[0]
