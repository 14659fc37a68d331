import copy
import dataclasses
from dataclasses import replace

import pytest
import torch

from whit.core.data import GraphData, ImageData, SealedSplit, Split, VectorData
from whit.errors import DataError, TestDataSealed


def split(start, count=4, dtype=torch.float32):
    return Split(
        (torch.arange(start, start + count * 2).reshape(count, 2).to(dtype),),
        torch.arange(start, start + count),
    )


def data(**options):
    return VectorData(split(0), split(10), split(20), class_names=("a", "b"), **options)


ACCESSES = {
    "inputs": lambda test: test.inputs,
    "target": lambda test: test.target,
    "shared": lambda test: test.shared,
    "batch": lambda test: test.batch(torch.arange(1)),
    "map": lambda test: test.map(lambda x: x),
    "subset": lambda test: test.subset(torch.arange(1)),
    "to": lambda test: test.to(torch.device("cpu")),
    "len": len,
    "bool": bool,
    "iterate": lambda test: list(test),
    "index": lambda test: test[0],
}


@pytest.mark.parametrize("access", ACCESSES)
def test_every_access_to_a_sealed_split_is_refused(access):
    with pytest.raises(TestDataSealed, match="sealed"):
        ACCESSES[access](data().sealed().test)


def test_sealing_leaves_the_rest_and_the_original():
    whole = data()
    sealed = whole.sealed()
    assert isinstance(sealed.test, SealedSplit) and isinstance(whole.test, Split)
    assert sealed.train is whole.train and sealed.valid is whole.valid
    assert type(sealed) is VectorData and sealed.class_names == ("a", "b")
    opened = copy.deepcopy(sealed).test.opened(whole.test)
    assert torch.equal(opened.inputs[0], whole.test.inputs[0])
    assert torch.equal(opened.target, whole.test.target)


def test_what_is_mapped_is_applied_to_the_test_split_later_in_order():
    whole = data()
    mapped = whole.sealed().map(lambda x: x + 1).map(lambda x: x * 2)
    assert torch.equal(mapped.train.inputs[0], (whole.train.inputs[0] + 1) * 2)
    opened = mapped.test.opened(whole.test)
    assert torch.equal(opened.inputs[0], (whole.test.inputs[0] + 1) * 2)
    assert torch.equal(opened.target, whole.test.target)
    directly = whole.map(lambda x: x + 1).map(lambda x: x * 2)
    assert torch.equal(directly.test.inputs[0], opened.inputs[0])


def test_whole_splits_can_be_mapped():
    whole = data()
    moved = whole.sealed().map_splits(lambda s: s.map(lambda x: x[:, :1]))
    assert moved.valid.inputs[0].shape[1] == 1
    assert moved.test.opened(whole.test).inputs[0].shape[1] == 1


def test_a_transform_cannot_choose_test_samples_nor_see_or_change_their_targets():
    whole = data()
    fewer = whole.sealed().map_splits(lambda s: s.subset(torch.tensor([2, 0])))
    assert fewer.valid.target.tolist() == [12, 10]
    with pytest.raises(DataError, match="2 of 4 test samples"):
        fewer.test.opened(whole.test)
    seen = []

    def peek(split):
        seen.append(split.target.tolist())
        return dataclasses.replace(split, target=split.target + 1)

    opened = whole.sealed().map_splits(peek).test.opened(whole.test)
    assert seen[-1] == [0, 0, 0, 0]
    assert opened.target.tolist() == whole.test.target.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.float64])
def test_batches_are_float_and_the_data_stay_as_they_came(dtype):
    made = split(0, dtype=dtype)
    batch = made.batch(torch.tensor([2, 0]))
    assert batch.inputs[0].dtype == torch.float32
    assert batch.inputs[0].tolist() == [[4, 5], [0, 1]]
    assert batch.target.tolist() == [2, 0] and batch.index.tolist() == [2, 0]
    assert made.inputs[0].dtype == dtype


def test_indices_stay_int64():
    assert split(0, dtype=torch.int64).batch(torch.arange(2)).inputs[0].dtype == torch.int64


def test_members_may_have_their_own_samples():
    index = torch.tensor([[0, 1], [3, 3]])
    batch = split(0).batch(index)
    assert batch.inputs[0].shape == (2, 2, 2)
    assert batch.target.tolist() == [[0, 1], [3, 3]]
    assert batch.inputs[0][1].tolist() == [[6, 7], [6, 7]]


def test_shared_tensors_come_whole_and_last():
    shared = (torch.ones(9, 3), torch.zeros(2, 5, dtype=torch.int64))
    graph = Split((torch.arange(4),), torch.arange(4), shared)
    batch = graph.batch(torch.tensor([1]))
    assert len(batch.inputs) == 3
    assert batch.inputs[1] is shared[0] and batch.inputs[2] is shared[1]
    part = Split((torch.arange(4),), torch.arange(4), shared)
    assert GraphData(part, part, part, class_names=("a",)).sealed().train.shared == shared


@pytest.mark.parametrize(
    ("inputs", "target"),
    [
        ((torch.ones(3, 1),), torch.ones(2)),
        ((), torch.ones(2)),
        ((torch.ones(2, 1), torch.ones(3, 1)), torch.ones(2)),
        ((torch.ones(0, 1),), torch.ones(0)),
    ],
)
def test_splits_that_do_not_fit_are_refused(inputs, target):
    with pytest.raises(DataError, match="same samples"):
        Split(inputs, target)


def test_output_size():
    assert data().output_size == 2
    assert VectorData(split(0), split(1), split(2), output_size=7).output_size == 7
    with pytest.raises(DataError, match="class names"):
        VectorData(split(0), split(1), split(2))


def test_input_shape():
    images = Split((torch.zeros(2, 1, 8, 9, dtype=torch.uint8),), torch.zeros(2))
    assert ImageData(images, images, images, output_size=1).input_shape == (1, 8, 9)


def test_the_checksum_sees_every_value():
    base = data()
    assert base.checksum() == data().checksum()
    changed = split(0)
    changed.target[3] = 99
    assert replace(base, train=changed).checksum() != base.checksum()
    assert replace(base, train=split(0, dtype=torch.float64)).checksum() != base.checksum()
    assert base.sealed().checksum() != base.checksum()


def test_feature_names_stay_as_long_as_the_features_do():
    named = data(feature_names=("width", "height"))
    assert named.sealed().map(lambda x: x * 2).feature_names == ("width", "height")
    assert named.map(lambda x: x[:, :1]).feature_names == ()
    assert data().feature_names == ()
