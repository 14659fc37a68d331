"""Digits, iris and breast cancer, the sets that ship with scikit-learn."""

import sys

import pytest
import torch

from whit.core.data import Data, ImageData, VectorData
from whit.core.fit import Surroundings, fit, predict
from whit.core.task import Task
from whit.errors import MissingExtra
from whit.measure.meter import Meter
from whit.tasks.breast_cancer import breast_cancer
from whit.tasks.digits import digits
from whit.tasks.iris import iris
from whit.tasks.sklearn_sets import load_bundled

CPU = torch.device("cpu")


def rows(data: Data) -> list[torch.Tensor]:
    return [part.inputs[0].flatten(1).double() for part in (data.train, data.valid, data.test)]


def valid_score(task: Task) -> float:
    data = task.load().sealed()
    torch.manual_seed(0)
    model = task.build(data)
    fit(model, data.train, task.settings, (), Surroundings(task, CPU, Meter()))
    return task.metric(predict(model, data.valid, task, CPU), data.valid.target)


def test_digits_stay_raw() -> None:
    data = digits().load()
    assert isinstance(data, ImageData)
    assert [len(p) for p in (data.train, data.valid, data.test)] == [1077, 360, 360]
    images = data.train.inputs[0]
    assert images.dtype == torch.uint8 and images.shape[1:] == (1, 8, 8)
    assert (int(images.min()), int(images.max())) == (0, 16)
    assert data.class_names == tuple("0123456789") and data.input_range == (0.0, 16.0)


def test_digits_parts_share_no_image_and_are_stratified() -> None:
    data = digits().load()
    seen = [{row.numpy().tobytes() for row in part} for part in rows(data)]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    for part in (data.train, data.valid, data.test):
        counts = part.target.bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= len(part) // 50


def test_iris_parts_are_balanced() -> None:
    data = iris().load()
    assert isinstance(data, VectorData)
    assert data.class_names == ("setosa", "versicolor", "virginica")
    assert data.train.target.bincount().tolist() == [30, 30, 30]
    assert data.valid.target.bincount().tolist() == [10, 10, 10]
    assert sum(len(part) for part in rows(data)) == 150


def test_breast_cancer_is_named_and_stratified() -> None:
    data = breast_cancer().load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [341, 114, 114]
    assert data.class_names == ("malignant", "benign") and len(data.feature_names) == 30
    assert data.feature_names[0] == "mean radius"
    shares = [p.target.double().mean() for p in (data.train, data.valid, data.test)]
    assert max(shares) - min(shares) < 0.01
    model = breast_cancer(width=0.5).build(data)
    assert torch.allclose(model.normalise.shift, data.train.inputs[0].mean(0))


def test_the_splits_never_change() -> None:
    # Results are compared over years: if the data or the split changed, old rows lie.
    assert digits().load().checksum() == "8bd6ae9e38858e0d"
    assert iris().load().checksum() == "23036310b40b0d3d"
    assert breast_cancer().load().checksum() == "5efe10181bd9a448"


def test_data_are_loaded_once_and_normalised_by_train_alone() -> None:
    data = iris().load()
    assert data is iris(width=2.0).load()
    model = iris().build(data)
    assert torch.allclose(model.normalise.shift, data.train.inputs[0].mean(0))


def test_controls_learn() -> None:
    assert valid_score(digits()) >= 0.97
    assert valid_score(iris()) >= 0.9
    assert valid_score(breast_cancer()) >= 0.95


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"whit\[train\]"):
        load_bundled("digits")
