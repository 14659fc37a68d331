"""`whit.array_task`: a task from a model factory and arrays, and what can be wrong."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import whit
from whit.core.data import ImageData, SequenceData, VectorData
from whit.core.execution import identity_of
from whit.core.technique import Technique
from whit.errors import DataError, TaskError
from whit.tasks.array_data import array_data


class Net(nn.Module):
    def __init__(self, width: float = 1.0):
        super().__init__()
        self.first = nn.Linear(4, int(8 * width))
        self.second = nn.Linear(int(8 * width), 2)

    def forward(self, x):
        return self.second(F.relu(self.first(torch.flatten(x, 1))))


def points(count=100, dtype="float32", seed=0):
    random = np.random.RandomState(seed)
    inputs = random.randn(count, 4)
    return inputs.astype(dtype), (inputs[:, 0] > 0).astype(np.int64)


def test_arrays_are_split_and_learnt():
    x, y = points(400)
    settings = whit.Settings(epochs=10, batch_size=16, learning_rate=2e-2)
    task = whit.array_task(Net, x, y, settings=settings)
    data = task.checked_data()
    assert isinstance(data, VectorData) and task.name == "Net"
    assert [len(p) for p in (data.train, data.valid, data.test)] == [240, 80, 80]
    rows = torch.cat([p.inputs[0] for p in (data.train, data.valid, data.test)])
    assert {r.numpy().tobytes() for r in rows} == {r.tobytes() for r in x}
    again = whit.array_task(Net, torch.from_numpy(x), torch.from_numpy(y)).load()
    assert again.checksum() == data.checksum()
    result = whit.execute(task)
    assert result.scorecard.valid_score > 0.9 and result.packed is not None
    assert task.settings is settings


def test_the_arrays_stay_the_users_own():
    x, y = points()
    task = whit.array_task(Net, x, y)
    before = task.load().checksum()
    x[:] = 0
    assert task.load().checksum() == before


def test_what_is_given_is_not_split_off():
    x, y = points()
    valid, test = points(30, seed=1), points(20, seed=2)
    data = whit.array_task(Net, x, y, valid=valid, test=test).load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [100, 30, 20]
    assert np.array_equal(data.train.inputs[0].numpy(), x)
    data = whit.array_task(Net, x, y, test=test).load()
    assert [len(p) for p in (data.train, data.valid, data.test)] == [80, 20, 20]
    assert np.array_equal(data.test.inputs[0].numpy(), test[0])


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "stored"),
    [
        ((30, 4), "float64", VectorData, torch.float32),
        ((30, 4), "float16", VectorData, torch.float32),
        ((30, 4), ">f4", VectorData, torch.float32),
        ((30, 4), "bool", VectorData, torch.uint8),
        ((30, 4), "uint16", VectorData, torch.int32),
        ((30, 4), "int8", VectorData, torch.int8),
        ((30, 2, 2), "float32", SequenceData, torch.float32),
        ((30, 1, 2, 2), "uint8", ImageData, torch.uint8),
        ((30, 2, 1, 1, 2), "float32", SequenceData, torch.float32),
    ],
)
def test_kinds_and_types_of_inputs(shape, dtype, kind, stored):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = whit.array_task(Net, x, np.arange(30) % 2).load()
    assert type(data) is kind and data.train.inputs[0].dtype == stored
    assert data.train.batch(torch.arange(2)).inputs[0].dtype == torch.float32


def test_indices_stay_indices():
    def tokens():
        return nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 2))

    x = np.random.RandomState(0).randint(0, 9, (40, 4))
    data = whit.array_task(tokens, x, np.arange(40) % 2).load()
    assert data.train.inputs[0].dtype == torch.int64
    with pytest.raises(TaskError, match=r"failed on 3 samples of shape \[4\].*int64.*nn.Embedding"):
        whit.array_task(Net, x, np.arange(40) % 2)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (np.array(["wet", "dry"] * 15), ("dry", "wet")),
        (["wet", "dry"] * 15, ("dry", "wet")),
        (np.array([True, False] * 15), ("False", "True")),
        (np.array([[0], [1]] * 15, dtype=np.uint8), ("0", "1")),
        (torch.tensor([1, 0] * 15, dtype=torch.int32), ("0", "1")),
    ],
)
def test_kinds_of_classes(target, names):
    x, _ = points(30)
    data = whit.array_task(Net, x, target).load()
    assert data.class_names == names and data.train.target.dtype == torch.int64
    given = array_data(x, target, class_names=names[::-1] if "wet" in names else ("no", "yes"))
    if "wet" in names:
        assert given.class_names == ("wet", "dry")
        assert int(given.train.target.sum()) == len(given.train) - int(data.train.target.sum())
    else:
        assert given.class_names == ("no", "yes")


def test_floats_are_a_regression():
    x, _ = points(60)
    y = x[:, 0] * 2 + 0.5
    task = whit.array_task(lambda: nn.Linear(4, 1), x, y)
    data = task.load()
    assert task.loss is F.mse_loss and task.metric_name == "r_squared" and task.name == "model"
    assert data.train.target.shape == (36, 1) and data.output_size == 1 and not data.class_names
    frames = whit.array_task(lambda: nn.Unflatten(1, (2, 2)), x, x.reshape(60, 2, 2))
    train = frames.load().train
    assert frames.output_axes == 2
    assert frames.score(train.inputs[0].reshape(-1, 2, 2), train.target) == 1


def test_whole_floats_are_numbers_where_a_loss_says_so():
    x, y = points(60)
    with pytest.raises(DataError, match=r"2 whole values \(0, 1\).*astype\('int64'\)"):
        whit.array_task(lambda: nn.Linear(4, 1), x, y.astype("float32"))
    loss = F.binary_cross_entropy_with_logits
    task = whit.array_task(lambda: nn.Linear(4, 1), x, y.astype("float32"), loss=loss)
    assert task.loss is loss and task.load().train.target.shape == (36, 1)


X, Y = points(30)
HOLED = X.copy()
HOLED[7, 2], HOLED[9, 0] = np.nan, np.inf
TEXTS = np.array(["wet", "dry"] * 15)
BAD = {
    "lengths": (X, Y[:-1], {}, "inputs hold 30 samples and the target 29"),
    "negative": (X, Y - 1, {}, "negative class numbers, down to -1"),
    "out of range": (X, Y + 1, {"class_names": ["a", "b"]}, "numbers 1 to 2; expected 0 to 1"),
    "from one": (X, Y + 1, {}, "from 1 to 2, and no sample of class 0"),
    "gap": (X, Y * 2, {}, "from 0 to 2, and no sample of class 1"),
    "float labels": (X, Y * 0.5, {"class_names": ["a", "b"]}, "target holds floats"),
    "nan": (HOLED, Y, {}, r"2 NaN or infinite values, the first in sample 7 at \[2\]"),
    "nan target": (X, np.where(Y > 0, np.nan, X[:, 0]), {}, "training target there are .* NaN"),
    "overflow": (np.where(X > 1, 1e300, 0.0), Y, {}, "infinite in float32"),
    "nan in valid": (X, Y, {"valid": (HOLED, Y)}, "valid inputs there are 2 NaN"),
    "empty": (
        X[:0],
        Y[:0],
        {},
        r"target cannot be empty: the shape is \[0\]|target cannot be empty: shape \[0\]",
    ),
    "empty inputs": (X[:, :0], Y, {}, "inputs cannot be empty"),
    "one class": (X, Y * 0, {}, "one class only, '0'"),
    "one class of two": (X, Y * 0, {"class_names": ["a", "b"]}, "one class only, 'a'"),
    "rare": (X, np.array([2, *Y[1:]]), {}, "fewer samples of a class than the 3 splits: 1 of"),
    "few": (X[:2], np.array([0.5, 1.2]), {}, "2 samples for 3 splits"),
    "same values": (X, np.full(30, 1.5), {}, "All values of the target are the same"),
    "object": (X.astype(object), Y, {}, "inputs have dtype object"),
    "text inputs": (X.astype(str), Y, {}, "inputs have dtype <U"),
    "complex": (X.astype(complex), Y, {}, "dtype complex"),
    "object target": (X, Y.astype(object), {}, "target has dtype object"),
    "ragged": ([[1, 2], [3]], [0, 1], {}, "cannot be made an array"),
    "number": (3, Y, {}, "inputs were given as int"),
    "one axis": (X[:, 0], Y, {}, r"shape \[30\].*inputs\[:, None\]"),
    "uint32": (X.astype("uint32"), Y, {}, "dtype uint32"),
    "one-hot": (X, np.eye(2, dtype=int)[Y], {}, r"shape \[30, 2\].*argmax"),
    "masked": (np.ma.masked_greater(X, 1), Y, {}, "masked array"),
    "sparse": (torch.from_numpy(X).to_sparse(), Y, {}, "sparse tensor"),
    "no pair": (X, Y, {"valid": X}, "'valid' was given as ndarray"),
    "names twice": (X, Y, {"class_names": ["a", "a"]}, "a name twice"),
    "unknown text": (X, TEXTS, {"valid": (X, ["damp"] * 30)}, "valid target holds 'damp'"),
    "text not named": (X, TEXTS, {"class_names": ["wet", "cold"]}, "holds 'dry'"),
    "floats in valid": (X, Y, {"valid": (X, X[:, 0])}, "valid target has dtype float32"),
    "text for numbers": (X, X[:, 0], {"valid": (X, TEXTS)}, "training has floats"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_cannot_be_used(case):
    inputs, target, options, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        whit.array_task(Net, inputs, target, **options)
    assert "\n" not in str(caught.value)


SEALED = {
    "nan": (HOLED, Y),
    "label": (X, Y + 5),
    "text": (X, np.array(["wet", "damp"] * 15)),
    "shape": (X[:, :3], Y),
}


@pytest.mark.parametrize("case", SEALED)
def test_a_bad_test_pair_is_refused_and_not_described(case):
    target = TEXTS if case == "text" else Y
    with pytest.raises(TaskError, match="the test split is not valid") as caught:
        whit.array_task(Net, X, target, test=SEALED[case])
    assert "damp" not in str(caught.value)


def test_valid_classes_must_be_in_training():
    with pytest.raises(TaskError, match=r"valid split holds classes .*: 2 \('c'\)"):
        whit.array_task(
            lambda: nn.Linear(4, 3), X, Y, valid=(X, Y + 1), class_names=["a", "b", "c"]
        )


def with_data(data, *, depth: int = 1):
    layers = [nn.Linear(data.input_shape[0], data.input_shape[0]) for _ in range(depth)]
    return nn.Sequential(*layers, nn.Linear(data.input_shape[0], data.output_size))


def test_choices_are_the_factorys_own():
    task = whit.array_task(Net, X, Y)
    assert task.build_model(task.load(), {"width": 0.5}).first.out_features == 4
    with pytest.raises(TaskError, match="no such choice.*'width'"):
        task.build_model(task.load(), {"widht": 0.5})
    deep = whit.array_task(with_data, X, Y)
    assert deep.name == "with_data" and len(deep.build_model(deep.load(), {"depth": 3})) == 4
    with pytest.raises(TaskError, match="no such choice"):
        deep.build_model(deep.load(), {"width": 0.5})


SHARED_MODEL = nn.Linear(4, 2)


def fails():
    raise KeyError("size")


MODELS = {
    "instance": (Net(), "class Net was given where a factory.*share its weights"),
    "same again": (lambda: SHARED_MODEL, "returned the same model again"),
    "needs": (nn.Linear, "'Linear' needs in_features, out_features.*def model"),
    "nothing": (None, "given as NoneType"),
    "no module": (lambda: 3, "returned int, expected a torch.nn.Module"),
    "fails": (fails, "KeyError: 'size'"),
    "scores": (lambda: nn.Linear(4, 5), "gives 5 scores.*2 class names"),
    "inputs": (lambda: nn.Linear(9, 2), r"samples of shape \[4\].*RuntimeError"),
    "axes": (lambda: nn.Flatten(0), r"shape \[12\], expected \[..., batch=3, _\]"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_do_not_fit(case):
    model, message = MODELS[case]
    with pytest.raises(TaskError, match=message):
        task = whit.array_task(model, X, Y)
        task.build_model(task.load(), {})


def test_a_regression_model_must_give_the_targets_shape():
    with pytest.raises(TaskError, match=r"gives \[2\] a sample, and the target has \[1\]"):
        whit.array_task(lambda: nn.Linear(4, 2), X, X[:, 0])


def test_making_a_task_leaves_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whit.array_task(Net, X, Y)
    assert torch.equal(torch.get_rng_state(), before)


def identity(task):
    return identity_of(
        task, Technique(), task.settings, 0, whit.Device(), task.checked_data().checksum()
    )


def test_identity_sees_the_model_and_the_arrays():
    def small():
        return nn.Linear(4, 2)

    def other():
        return nn.Linear(4, 2, bias=False)

    base = whit.array_task(small, X, Y, name="same")
    assert identity(base) == identity(whit.array_task(small, X, Y, name="same"))
    assert identity(base) != identity(whit.array_task(other, X, Y, name="same"))
    assert identity(base) != identity(whit.array_task(small, X + 1, Y, name="same"))


def test_it_is_not_listed_as_a_built_in_task():
    from whit.spec_strings import list_tasks

    names = {item.name for item in list_tasks()}
    assert "own" in names and "tabular" in names and "array_task" not in names


def test_augmentation_is_handed_on():
    def noise(inputs, generator):
        return inputs

    assert whit.array_task(Net, X, Y, augment=noise).load().augment is noise
