import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.data import Split
from whit.core.execution import Conditions, execute, train
from whit.core.technique import Technique
from whit.errors import SettingsError, TaskError, TestDataSealed, WhitError
from whit.tasks.breast_cancer import breast_cancer
from whit.tasks.toys import toy_classification, toy_regression

TASK = toy_classification()
QUICK = TASK.settings.changed(epochs=2)


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_slots_run_in_the_order_of_the_flow():
    seen = []

    def noted(name):
        def slot(value, *_):
            seen.append(name)
            return value

        return slot

    def procedure(run):
        seen.append("train")
        return run.fit(run.build())

    technique = Technique(
        prepare_data=noted("prepare_data"),
        prepare_model=noted("prepare_model"),
        train=procedure,
        finish_model=noted("finish_model"),
        hooks=(lambda model, plan: seen.append("hook") or __import__("whit").Hook(),),
    )
    train(TASK, technique, QUICK, Conditions())
    assert seen == ["prepare_data", "train", "prepare_model", "hook", "finish_model"]


SLOTS = {
    "prepare_data": lambda data: data.test.target.sum() and data,
    "prepare_model": lambda model, data: len(data.test) and model,
    "finish_model": lambda model, data: data.test.inputs and model,
    "train": lambda run: run.fit(run.build(), data=run.data.test),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_no_slot_can_read_the_test_split(slot):
    with pytest.raises(TestDataSealed):
        execute(TASK, Technique(**{slot: SLOTS[slot]}), QUICK)


def test_what_is_done_to_the_data_is_done_to_the_test_split():
    shifted = Technique(prepare_data=lambda data: data.map(lambda x: x * 0))
    trained = train(TASK, shifted, QUICK, Conditions())
    assert not trained.test.inputs[0].any()
    assert torch.equal(trained.test.target, TASK.load().test.target)
    # All samples look alike, so that one class is answered: its share is the accuracy.
    result = execute(TASK, shifted, QUICK)
    answer = int(result.model(torch.zeros(1, 8)).argmax())
    share = (TASK.load().test.target == answer).double().mean()
    assert result.scorecard.as_dict()["test_accuracy"] == pytest.approx(float(share))


def test_replacing_the_test_split_is_refused():
    def swap(data):
        return replace(data, test=data.valid)

    with pytest.raises(TaskError, match="test split itself"):
        execute(TASK, Technique(prepare_data=swap), QUICK)


def test_permuted_test_labels_change_the_test_score_only():
    data = TASK.load()
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    permuted = replace(data, test=Split(data.test.inputs, data.test.target[order]))
    one, other = (
        execute(TASK, None, QUICK),
        execute(replace(TASK, load=lambda: permuted), None, QUICK),
    )
    assert same(one.model, other.model)
    rows = [r.scorecard.as_dict() for r in (one, other)]
    assert rows[0]["valid_accuracy"] == rows[1]["valid_accuracy"]
    assert rows[0]["test_accuracy"] > rows[1]["test_accuracy"] + 0.1


def test_the_same_seed_gives_the_same_and_another_does_not():
    def made(seed):
        return train(TASK, Technique(), QUICK, Conditions(seed=seed)).model

    assert same(made(4), made(4))
    assert not same(made(4), made(5))


def test_the_random_state_of_the_caller_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(TASK, Technique(), QUICK, Conditions(seed=9))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", [-1, 1.0, True, "0", None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(SettingsError, match="seed"):
        execute(TASK, seed=seed)


def test_a_procedure_must_return_the_module():
    with pytest.raises(TaskError, match="returned NoneType"):
        execute(TASK, Technique(train=lambda run: None, spec="none()"), QUICK)


def test_the_result_is_complete_and_written(tmp_path):
    result = execute(TASK, None, QUICK, seed=2, out=tmp_path / "deep" / "run")
    folder = tmp_path / "deep" / "run"
    names = {p.name for p in folder.iterdir()}
    assert names == {"model.safetensors", "model.whit", "result.json", "test_correct.npy"}
    row = json.loads((folder / "result.json").read_text())
    assert (row["task"], row["spec"], row["seed"]) == ("toy_classification", "plain()", 2)
    assert row["scorecard"]["test_accuracy"] == result.scorecard.as_dict()["test_accuracy"]
    assert result.settings == QUICK and result.choices == {} and not result.model.training
    target = TASK.load().test.target
    answers = result.model(TASK.load().test.inputs[0]).argmax(1)
    assert result.test_correct.tolist() == (answers == target).int().tolist()
    assert float(result.test_correct.mean()) == pytest.approx(row["scorecard"]["test_accuracy"])


def test_a_composed_model_has_no_choices():
    def procedure(run):
        return run.fit(nn.Sequential(run.build()))

    assert train(TASK, Technique(train=procedure), QUICK, Conditions()).choices is None


def test_other_metrics_have_no_right_and_wrong():
    task = toy_regression()
    result = execute(task, None, task.settings.changed(epochs=1))
    assert result.test_correct is None
    assert "test_r_squared" in result.scorecard.as_dict()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WhitError, match="cannot be written"):
        execute(TASK, None, QUICK, out=tmp_path / "file" / "run")


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path):
    class Killed(Exception):
        pass

    def kill(progress):
        if progress.epoch == 2:
            raise Killed

    other = QUICK.changed(learning_rate=0.5)
    with pytest.raises(Killed):
        train(TASK, Technique(), other, Conditions(out=tmp_path, progress=kill))
    assert (tmp_path / "checkpoint-0.pt").exists()
    found = train(TASK, Technique(), QUICK, Conditions(out=tmp_path)).model
    assert same(found, train(TASK, Technique(), QUICK, Conditions()).model)


def test_the_history_is_part_of_the_result(tmp_path):
    result = execute(TASK, None, QUICK, out=tmp_path)
    (curves,) = result.history
    assert (curves["fit"], curves["epochs"], len(curves["loss"])) == (0, 2, 2)
    assert curves["valid"][-1] == result.scorecard.as_dict()["valid_accuracy"]
    assert json.loads((tmp_path / "result.json").read_text())["history"] == result.history


def test_a_kill_between_the_result_and_the_checkpoints_is_harmless(tmp_path, monkeypatch):
    """Each moment at the end: before, within and after the writing of the result."""
    from whit.core import execution

    whole = execute(TASK, None, QUICK)

    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    epochs = []
    for name in ("_measured", "remove_checkpoints"):
        with monkeypatch.context() as patch:
            patch.setattr(execution, name, kill)
            with pytest.raises(Killed):
                execute(TASK, None, QUICK, out=tmp_path, progress=epochs.append)
        assert (tmp_path / "checkpoint-0.pt").exists()
        assert (tmp_path / "result.json").exists() == (name == "remove_checkpoints")
    resumed = execute(TASK, None, QUICK, out=tmp_path, progress=epochs.append)
    assert len(epochs) == 2, "nothing was trained twice"
    assert same(whole.model, resumed.model)
    assert whole.scorecard.train_macs == resumed.scorecard.train_macs
    assert not (tmp_path / "checkpoint-0.pt").exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".checkpoint-0.pt.99999999-abcdefgh").write_bytes(b"half")
    train(TASK, Technique(), QUICK, Conditions(out=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0.pt"]


def test_a_packed_file_names_the_entries_of_a_vector():
    task = breast_cancer()
    result = execute(task, settings=task.settings.changed(epochs=1))
    names = json.loads(result.packed.program.info["features"])
    assert tuple(names) == task.load().feature_names
    assert len(names) == 30
