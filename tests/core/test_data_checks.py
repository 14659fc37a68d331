"""What is wrong in the data of a task is said before training; of the test split, only that."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Split, VectorData
from whit.core.data_checks import not_finite
from whit.core.task import Task, r_squared
from whit.errors import TaskError


def split(*classes):
    return Split((torch.arange(2.0 * len(classes)).reshape(-1, 2),), torch.tensor(classes))


def data(**options):
    parts = {name: options.pop(name, split(0, 1, 2, 0)) for name in ("train", "valid", "test")}
    return VectorData(**parts, class_names=("red", "green", "blue"), **options)


def checked(made, **options):
    return Task("small", lambda: made, lambda data: nn.Linear(2, 3), **options).checked_data()


def with_value(value, row=2):
    made = split(0, 1, 2, 0)
    made.inputs[0][row, 1] = value
    return made


def test_good_data_pass_and_are_a_copy():
    made = data()
    found = checked(made)
    assert found.checksum() == made.checksum()
    assert found.train.inputs[0] is not made.train.inputs[0]


BAD = {
    "no data": (3, "load returned int"),
    "nan in train": (data(train=with_value(torch.nan)), "train inputs hold .*: 1, .* sample 2 "),
    "inf in valid": (data(valid=with_value(-torch.inf, 3)), "valid inputs hold .*: 1, .*sample 3 "),
    "label too high": (
        data(train=split(0, 1, 3, 0)),
        "class numbers 0 to 3, and there are 3 .*0 to 2.*sample 2 ",
    ),
    "label negative": (data(valid=split(0, -1, 2)), "valid target holds class numbers -1 to 2"),
    "one class": (data(train=split(1, 1)), r"one class only, 1 \('green'\)"),
    "unseen class": (
        data(train=split(0, 1, 0), valid=split(0, 2)),
        r"classes that the train split lacks: 2 \('blue'\)",
    ),
    "float target": (
        data(train=Split((torch.ones(2, 2),), torch.tensor([0.0, 1.0]))),
        "train target has dtype torch.float32.*target.long",
    ),
    "other shape": (
        data(valid=Split((torch.ones(2, 5),), torch.tensor([0, 1]))),
        r"valid split .*\[5\].*train split.*\[2\]",
    ),
    "other type": (
        data(valid=Split((torch.ones(2, 2).byte(),), torch.tensor([0, 1]))),
        "torch.uint8.*torch.float32",
    ),
    "names": (data(feature_names=("a",)), "1 feature names for 2 features"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case):
    made, message = BAD[case]
    with pytest.raises(TaskError, match=message):
        checked(made)


def test_many_unseen_classes_are_cut_short():
    names = tuple("abcdefgh")
    made = VectorData(split(0, 1), split(*range(8)), split(0), class_names=names)
    with pytest.raises(TaskError, match=r"2 \('c'\), .*6 \('g'\) and 1 more"):
        checked(made)


BAD_TESTS = {
    "nan": with_value(torch.nan),
    "label too high": split(0, 7),
    "negative label": split(0, -5),
    "float labels": Split((torch.ones(2, 2),), torch.tensor([0.5, 1.0])),
    "other shape": Split((torch.ones(2, 3),), torch.tensor([0, 1])),
    "other type": Split((torch.ones(2, 2).double(),), torch.tensor([0, 1])),
}


@pytest.mark.parametrize("case", BAD_TESTS)
def test_a_bad_test_split_is_refused_without_a_word_about_its_contents(case):
    messages = set()
    with pytest.raises(TaskError, match="the test split is not valid") as caught:
        checked(data(test=BAD_TESTS[case]))
    messages.add(str(caught.value))
    with pytest.raises(TaskError) as other:
        checked(data(test=split(0, 99)))
    messages.add(str(other.value))
    assert len(messages) == 1, "the error tells cases apart"


def test_what_is_judged_in_train_and_valid_is_no_matter_in_the_test_split():
    assert len(checked(data(test=split(1, 1))).test) == 2
    assert len(checked(data(train=split(0, 1), valid=split(1), test=split(2))).test) == 1


def test_permuted_test_labels_change_nothing_of_the_answer():
    made = data()
    permuted = replace(made, test=replace(made.test, target=made.test.target.flip(0)))
    assert torch.equal(checked(permuted).train.target, checked(made).train.target)


def test_a_regression_has_no_classes():
    part = Split((torch.ones(3, 2),), torch.tensor([[1.0], [2.0], [3.0]]))
    made = VectorData(part, part, part, output_size=1)
    assert len(checked(made, loss=functional.mse_loss, metric=r_squared).train) == 3
    part.target[1] = torch.nan
    with pytest.raises(TaskError, match="train target hold NaN .*: 1, the first in sample 1 "):
        checked(made, loss=functional.mse_loss)


def test_class_numbers_without_names_are_held_against_the_output_size():
    part = split(0, 4)
    with pytest.raises(TaskError, match="0 to 2"):
        checked(VectorData(part, part, part, output_size=3))


def test_not_finite_counts_and_finds_the_first():
    values = torch.zeros(4, 3)
    assert not_finite(values) is None
    values[3, 0], values[2, 1], values[2, 2] = torch.inf, torch.nan, -torch.inf
    assert not_finite(values) == (3, 2)
    assert not_finite(torch.tensor([0.0, torch.nan])) == (1, 1)
    assert not_finite(torch.arange(3)) is None
