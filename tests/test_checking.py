import json

import pytest
import torch
from torch import nn

import whit
from whit.checking import check
from whit.comparison import compare
from whit.errors import SpecError, TaskError

OWN = '''
import torch
from torch import nn
from torch.nn import functional
import whit
from whit.core.technique import technique


def _split(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return whit.Split((torch.randn(count, 3, 8, 8, generator=generator),), torch.arange(count) % 4)


def _load():
    data = [_split(64, 0), _split(32, 1), _split(32, 2)]
    return whit.ImageData(*data, class_names=tuple("abcd"))


class Calling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(128, 4)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        return self.head(torch.tanh(self.conv2(x)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.act = nn.LSTM(24, 16, batch_first=True), nn.ReLU()
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.act(self.lstm(x.transpose(1, 2).flatten(2))[0][:, -1]))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, x):
        return self.head(x.flatten(1) * 2 if x.mean() > 9 else x.flatten(1))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(192, 4))

    def forward(self, x):
        return x.flatten(1) @ self.table


def _task(build):
    return whit.Task("own", _load, build, settings=whit.Settings(epochs=3, batch_size=16))


calling = _task(lambda data: Calling())
recurrent = _task(lambda data: Recurrent())
branching = _task(lambda data: Branching())
bare = _task(lambda data: Bare())
mismatched = _task(lambda data: nn.Sequential(nn.Flatten(), nn.Linear(100, 4)))
too_many = _task(lambda data: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
unreadable = whit.Task("own", lambda: open("nowhere.csv"), lambda data: Bare())


@technique
def breaking():
    """Fail."""
    return whit.Technique(finish_model=lambda model, data: model.nowhere)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


def test_estimated_bytes_are_near_those_of_real_runs(tmp_path):
    specs = ["binarized_network()", "one_cycle_pruning(sparsity=0.9)"]
    task = "toy_classification"
    real = compare(specs, task, 1, settings={"epochs": 2}, out=tmp_path)
    found = check(specs, task)
    assert found.rows[1].estimate.bits < 2
    for checked, row in zip(found.rows, real.rows, strict=True):
        assert checked.spec == row.spec
        assert checked.estimate.stored_bytes == pytest.approx(row.means["stored_bytes"], rel=0.1)


@pytest.mark.slow
def test_estimates_of_the_default_techniques_on_digits(tmp_path):
    real = compare(task="digits", seeds=1, out=tmp_path)
    found = check(task="digits")
    assert len(found.rows) == len(real.rows) == 6
    for checked, row in zip(found.rows, real.rows, strict=True):
        assert checked.estimate.stored_bytes == pytest.approx(row.means["stored_bytes"], rel=0.06)
        assert checked.train_macs == row.means["train_macs"]


def test_facts_of_model_data_and_settings():
    found = check(["plain()"], "digits(model='conv4', width=0.5)")
    assert found.model.params == found.model.float32_bytes // 4 > 0
    assert found.model.input_shapes == ((1, 8, 8),)
    assert found.model.output_shape == (10,)
    assert found.model.kinds["Conv2d"] == 2
    assert found.data.samples == {"train": 1077, "valid": 360, "test": 360}
    assert found.data.input_types == ("uint8",)
    assert len(found.data.class_names) == 10
    assert found.settings.epochs == 40
    (control,) = found.rows
    assert control.changed == control.skipped == ()
    # 16 batches of 64 in each of 40 epochs, forwards and two backward products.
    assert control.train_macs == found.model.macs * 16 * 64 * 40 * 3
    assert found.steps == 4
    assert repr(found) == (
        "Check(\"digits(model='conv4', width=0.5)\", 1 rows: plain(); print it for the text)"
    )


def test_a_refusal_stops_nobody_else(own):
    found = check(
        ["nets.py:breaking()", "distillation(student_width=0.5)", "one_cycle_pruning()"],
        "nets.py:calling",
    )
    plain, breaking, distillation, pruning = found.rows
    assert "has no attribute 'nowhere'" in breaking.refused
    assert "'nets.py'" in breaking.refused
    assert "\n" not in breaking.refused
    assert "width" in distillation.refused
    assert found.refused == (breaking, distillation)
    assert {change.path for change in pruning.changed} == {"conv1", "conv2", "head"}
    assert plain.estimate.stored_bytes > pruning.estimate.stored_bytes


def test_calls_in_forward_are_found_and_those_that_stay_are_told(own):
    found = check(["binarized_network()"], "nets.py:calling")
    assert [(c.path, c.kind, c.function, c.count) for c in found.model.calls] == [
        ("", "Calling", "relu", 1),
        ("", "Calling", "tanh", 1),
    ]
    row = found.rows[1]
    swapped = [change.how for change in row.changed if change.kind == "Calling"]
    assert swapped == [("1 call of relu in forward swapped",)]
    assert [(s.kind, s.paths) for s in row.skipped] == [("tanh (called)", ("",))]


def test_what_cannot_be_packed_names_the_module(own):
    found = check(["binarized_network()"], "nets.py:recurrent")
    for row in found.rows:
        assert row.estimate is None
        assert "module 'lstm'" in row.cannot_pack
    assert found.rows[1].changed
    assert [(s.kind, s.paths) for s in found.rows[1].skipped] == [("LSTM", ("lstm",))]


def test_branches_on_values_can_be_checked_but_not_packed(own):
    pruning = check(["one_cycle_pruning()"], "nets.py:branching").rows[1]
    assert "branches on values" in pruning.cannot_pack
    assert [change.path for change in pruning.changed] == ["head"]


def test_a_model_with_nothing_to_change_refuses_them_all(own):
    found = check(["binarized_network()", "magnitude_pruning()"], "nets.py:bare")
    assert len(found.refused) == 2
    assert all("no linear or convolution layer" in row.refused for row in found.refused)
    assert found.control.estimate.weight_bytes >= 4 * 192 * 4 - 3


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("mismatched", r"control model of .* cannot be multiplied"),
        ("too_many", "5 scores .* 4 class names"),
        ("unreadable", "data of .* cannot be loaded: FileNotFoundError"),
    ],
)
def test_errors_of_the_control_are_one_paragraph(own, task, said):
    with pytest.raises(TaskError, match=said) as raised:
        check(["plain()"], f"nets.py:{task}")
    assert "\n" not in str(raised.value)


def test_our_own_errors_are_seen_as_they_are(monkeypatch):
    def broken(*args):
        raise KeyError("ours")

    monkeypatch.setattr("whit.checking.differences", broken)
    with pytest.raises(KeyError, match="ours"):
        check(["plain()"], "toy_classification")


def test_settings_of_an_entry_count_in_the_cost():
    rows = check(["plain() @ epochs=24", "plain()"], "toy_classification").rows
    assert [row.label for row in rows] == ["plain()", "plain() @ epochs=24"]
    assert rows[1].train_ratio == pytest.approx(2.0)  # the toy trains for 12


def test_unknown_specs_are_refused_before_any_work():
    said = []
    with pytest.raises(SpecError, match="binarised"):
        check(["binarised()"], "toy_classification", progress=said.append)
    assert said == []


def test_data_are_loaded_once_and_the_random_state_stays():
    calls = []
    base = whit.task("toy_classification")
    task = whit.Task(
        "counted", lambda: calls.append(1) or base.load(), base.build, settings=base.settings
    )
    before = torch.get_rng_state()
    said = []
    check(["one_cycle_pruning()"], task, progress=said.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert calls == [1]
    assert said == ["plain()", "one_cycle_pruning()"]


def test_plain_values_for_json():
    found = check(["binarized_network()", "distillation()"], "toy_regression").as_dict()
    plain, binarized, refused = json.loads(json.dumps(found))["rows"]
    assert plain["bytes_ratio"] == 1.0
    assert binarized["bytes_ratio"] < 1
    assert binarized["changed"][0]["how"] == ["weight: BinaryWeight", "2 values a channel"]
    assert binarized["refused"] is None
    assert refused["bytes_ratio"] is None
    assert "class scores" in refused["refused"]


def test_shared_modules_and_weights_are_named():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.again, self.act = self.first, nn.ReLU()
            self.tied = nn.Linear(8, 8)
            self.tied.weight = self.first.weight
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.tied(self.again(self.act(self.first(x)))))

    base = whit.task("toy_classification")
    task = whit.Task("shared", base.load, lambda data: Shared(), settings=base.settings)
    assert check(["plain()"], task).model.shared == (
        "'first' and 'again' are one module (Linear)",
        "'tied' and 'first' share their weight",
    )
