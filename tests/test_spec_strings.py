from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.core.technique import Technique, technique
from whit.errors import SettingsError, SpecError, TaskError, WhitError
from whit.spec_strings import find, list_tasks, list_techniques, parse_entry, spec, task

BAD = [
    ("plan()", SpecError, "plain"),
    ("one_cycle_prunning()", SpecError, "one_cycle_pruning"),
    ("one_cycle_pruning(sparcity=0.5)", SpecError, "sparsity"),
    ("one_cycle_pruning(sparsity=2)", SpecError, "sparsity"),
    ("one_cycle_pruning(sparsity=-0.1)", SpecError, "sparsity"),
    ("one_cycle_pruning(sparsity='high')", SpecError, "sparsity"),
    ("binarized_network(scale='chanel')", SpecError, "channel"),
    ("digits()", SpecError, "no technique 'digits'"),
    ("plain() @ epoch=3", SettingsError, "epochs"),
    ("plain() @ epochs=0", SettingsError, "epochs"),
    ("plain() @ learning_rate=-1", SettingsError, "learning_rate"),
    ("plain() @ optimizer='adamm'", SettingsError, "adam"),
    ("os:system()", SpecError, "a technique is expected"),
    ("no_such_package.module:a()", SpecError, "no_such_package"),
    ("nowhere.py:a()", SpecError, "no file 'nowhere.py'"),
    ("own.py:shrnk()", SpecError, "shrink"),
    ("own.py:task()", SpecError, "a technique is expected"),
    ("own.py:undecorated()", SpecError, "decorator"),
    ("own.py:failing()", SpecError, r"KeyError: 'rate' \(line \d+ of 'own.py'\)"),
    ("own.py:shrink(rat=1)", SpecError, "rate"),
]


@pytest.mark.parametrize(("text", "error", "message"), BAD, ids=[text for text, _, _ in BAD])
def test_a_bad_spec_is_said_in_words(own_folder, text, error, message):
    with pytest.raises(error, match=message):
        parse_entry(text)


BAD_TASKS = [
    ("digit", "digits"),
    ("digits(modell='mlp4')", "model"),
    ("digits(width=-1)", "width"),
    ("digits(model='conv5')", "conv4"),
    ("plain", "no task 'plain'"),
    ("own.py:tusk", "task"),
    ("own.py:task(width=2)", "no options"),
    ("own.py:sized(wdth=2)", "width"),
    ("own.py:shrink", "task is expected"),
    ("own.py:broken", "ZeroDivisionError"),
    ("own.py:undecorated", "Technique, and a task is expected"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TASKS, ids=[text for text, _ in BAD_TASKS])
def test_a_bad_task_is_said_in_words(own_folder, text, message):
    with pytest.raises(WhitError, match=message):
        task(text)


def test_unknown_tasks_are_task_errors():
    with pytest.raises(TaskError):
        task("digit")


def test_own_tasks_are_named_by_their_reference(own_folder):
    assert task("own.py:task").name == "own.py:task"
    assert task("own.py:sized(width=0.5)").name == "own.py:sized(width=0.5)"
    assert task(task("own.py:sized(width=0.5)").name).name == "own.py:sized(width=0.5)"


def test_tasks_of_a_package_are_found_from_the_working_folder(own_folder):
    (own_folder / "my_tasks").mkdir()
    (own_folder / "my_tasks" / "__init__.py").write_text("")
    (own_folder / "my_tasks" / "small.py").write_text((own_folder / "own.py").read_text())
    made = task("my_tasks.small:sized(width=0.5)")
    assert made.name == "my_tasks.small:sized(width=0.5)"
    assert task("my_tasks.small:task").load().checksum() == made.load().checksum()


def test_a_model_is_no_task_and_the_way_is_shown(own_folder):
    (own_folder / "net.py").write_text("import torch\nNet = torch.nn.Linear\n")
    with pytest.raises(TaskError, match=r"'net.py:Net' is Linear, .*own\(model='net.py:Net'"):
        task("net.py:Net")


def test_own_techniques_keep_their_reference(own_folder):
    made = spec("own.py:shrink(rate=0.5) + plain()")
    assert made.spec == "own.py:shrink(rate=0.5)"
    assert spec(made.spec).spec == made.spec
    nested = own_folder / "a folder"
    nested.mkdir()
    (nested / "own.py").write_text((own_folder / "own.py").read_text())
    assert spec("a folder/own.py:shrink()").spec == "a folder/own.py:shrink(rate=0.01)"


def test_every_listed_technique_round_trips():
    found = list_techniques()
    assert {"plain", "binarized_network", "one_cycle_pruning"} <= {item.name for item in found}
    for item in found:
        made = find(item.name)()
        assert spec(made.spec).spec == made.spec
        assert item.summary


def test_every_listed_task_is_found():
    names = {item.name for item in list_tasks()}
    assert {"digits", "iris", "mnist"} <= names
    assert task("iris").name == task(task("iris").name).name


def test_an_entry_keeps_what_was_written_beside_the_canonical_text():
    entry = parse_entry("one_cycle_pruning(sparsity=0.5) @ epochs=3")
    assert entry.label == "one_cycle_pruning(sparsity=0.5) @ epochs=3"
    assert entry.settings_changes == {"epochs": 3}
    assert "alpha=14.0" in entry.text
    assert parse_entry(entry.text).text == entry.text
    with pytest.raises(SpecError, match="after '@'"):
        spec("plain() @ epochs=3")


def test_entry_points_are_found(monkeypatch):
    @technique
    def from_elsewhere(*, x=1):
        """Do nothing."""
        return Technique()

    points = {
        "from_elsewhere": SimpleNamespace(load=lambda: from_elsewhere, value="package:name"),
        "wrong": SimpleNamespace(load=lambda: 3, value="package:wrong"),
    }
    monkeypatch.setattr("whit.spec_strings.installed_techniques", lambda: points)
    assert find("from_elsewhere") is from_elsewhere
    with pytest.raises(SpecError, match="entry point 'wrong'"):
        find("wrong")
    with pytest.raises(SpecError, match="from_elsewhere"):
        find("from_elsewher")


@settings(max_examples=50, deadline=None)
@given(
    sparsity=st.floats(0.01, 0.99),
    alpha=st.floats(7, 20),
    scope=st.sampled_from(["global", "layer"]),
    every=st.integers(1, 1000),
)
def test_round_trip_over_option_values(sparsity, alpha, scope, every):
    text = f"one_cycle_pruning({sparsity=}, {alpha=}, {scope=}, {every=}) + binarized_network()"
    made = spec(text)
    assert spec(made.spec).spec == made.spec
    assert repr(sparsity) in made.spec
