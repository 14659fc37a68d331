from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Split
from whit.core.fit import Progress, Surroundings, fit, predict
from whit.core.history import FitRecord
from whit.core.hook import Hook
from whit.core.optimizers import make_optimizer
from whit.core.settings import OPTIMIZERS, SCHEDULES, Settings
from whit.core.task import Task
from whit.errors import SettingsError, SpecError, TaskError
from whit.measure.meter import Meter
from whit.parts.group import Group
from whit.tasks import toys

CPU = torch.device("cpu")
TASK = Task("small", lambda: None, lambda data: None)
SETTINGS = Settings(epochs=3, batch_size=16, learning_rate=0.01)


def samples(count=50):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 6, generator=generator)
    return Split((inputs,), (inputs[:, 0] > 0).long())


def network(seed=0, dropout=0.5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 2)
        )


def around(task=TASK, **options):
    return Surroundings(task, CPU, options.pop("meter", None) or Meter(), **options)


def trained(model=None, settings=SETTINGS, hooks=(), split=None, task=TASK, rest=None, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return fit(
            model or network(), split or samples(), settings, hooks, around(task, **options),
            **(rest or {}),
        )  # fmt: skip


def same(a, b):
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Recorder(Hook):
    """Notes each batch and each moment."""

    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log
        self.index, self.rates, self.inputs, self.plan = [], [], [], None

    def __call__(self, model, plan):
        self.model, self.plan = model, plan
        return self

    def note(self, moment):
        self.log.append(self.name + moment)

    def loss(self, loss, output, batch):
        self.index.append(batch.index.clone())
        self.inputs.append(batch.inputs[0].clone())
        self.output = output
        self.rates.append(self.plan.optimizer.param_groups[0]["lr"])
        self.note("loss")
        return loss

    def before_step(self):
        assert all(p.grad is not None for p in self.model.parameters())
        self.note("before")

    def after_step(self):
        self.note("after")

    def after_epoch(self):
        self.note("epoch")

    def close(self):
        self.note("close")


def test_hooks_are_called_in_order():
    log = []
    hooks = (Recorder("1", log), Recorder("2", log))
    trained(hooks=hooks, settings=SETTINGS.changed(epochs=2))
    step = ["1loss", "2loss", "1before", "2before", "1after", "2after"]
    assert log == (step * 3 + ["1epoch", "2epoch"]) * 2 + ["1close", "2close"]


def test_the_plan_has_the_true_numbers():
    hook = Recorder()
    model = network()
    trained(model, hooks=(hook,))
    assert (hook.plan.total_steps, hook.plan.steps_per_epoch) == (9, 3)
    assert hook.plan.device == CPU and hook.model is model
    held = {p for g in hook.plan.optimizer.param_groups for p in g["params"]}
    assert held == set(model.parameters())
    assert len(hook.index) == hook.plan.total_steps


def test_each_sample_is_seen_at_most_once_an_epoch():
    hook = Recorder()
    trained(hooks=(hook,))
    epochs = [torch.cat(hook.index[i : i + 3]) for i in (0, 3, 6)]
    assert all(len(e) == len(e.unique()) == 48 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_larger_than_the_data_is_all_of_it():
    hook = Recorder()
    trained(hooks=(hook,), settings=SETTINGS.changed(batch_size=1000))
    assert [len(i) for i in hook.index] == [50, 50, 50]


def test_a_hook_can_change_the_loss():
    class Nothing(Hook):
        def loss(self, loss, output, batch):
            return 0 * loss

    model = network(dropout=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    trained(model, hooks=(lambda m, p: Nothing(),))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_hooks_are_closed_when_training_fails():
    log = []

    class Failing(Recorder):
        def after_step(self):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        trained(hooks=(Recorder("1", log), Failing("2", log)))
    assert log[-2:] == ["1close", "2close"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_follows_the_schedule(schedule):
    from whit.parts.schedules import LEARNING_RATES

    hook = Recorder()
    trained(hooks=(hook,), settings=SETTINGS.changed(schedule=schedule))
    expected = [0.01 * LEARNING_RATES[schedule](t / 9) for t in range(9)]
    assert hook.rates == pytest.approx(expected)


def test_one_step_of_sgd_by_hand():
    split = Split((torch.tensor([[1.0, 2.0]]),), torch.tensor([[3.0]]))
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    settings = Settings(epochs=1, learning_rate=0.1, optimizer="sgd", schedule="constant")
    trained(model, settings, split=split, task=replace(TASK, loss=functional.mse_loss))
    # gradient 2 (w x - y) x = -6 x; Nesterov's first step is (1 + 0.9) times it
    assert torch.allclose(model.weight, 0.1 * 1.9 * 6 * torch.tensor([[1.0, 2.0]]))


def test_the_same_seed_gives_the_same_weights():
    assert same(trained(seed=3), trained(seed=3))
    assert not same(trained(seed=3), trained(seed=4))


def test_weight_zero_is_never_drawn():
    weights = torch.zeros(50)
    weights[10:20] = 1.0
    weights[20] = 9.0
    hook = Recorder()
    trained(hooks=(hook,), settings=SETTINGS.changed(epochs=40), rest={"sample_weights": weights})
    drawn = torch.cat(hook.index)
    assert set(drawn.tolist()) == set(range(10, 21))
    share = float((drawn == 20).double().mean())
    assert share == pytest.approx(9 / 19, abs=0.05), "drawn in proportion"


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(49),
        torch.zeros(50),
        -torch.ones(50),
        torch.ones(50, 1),
        torch.full((50,), torch.nan),
    ],
)
def test_bad_weights_are_refused(weights):
    with pytest.raises(TaskError, match="sample_weights"):
        trained(rest={"sample_weights": weights})


def test_augmentation_changes_training_inputs_only():
    hook = Recorder()
    split = samples()
    trained(hooks=(hook,), split=split, rest={"augment": lambda x, g: x + 100})
    assert all(i.min() > 50 for i in hook.inputs)
    assert split.inputs[0].max() < 50


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    moved = model[4].weight.detach().clone()
    trained(model)
    assert torch.equal(model[0].weight, before) and not torch.equal(model[4].weight, moved)


def test_nothing_to_train_is_an_error():
    with pytest.raises(TaskError, match="no trainable parameter"):
        trained(network().requires_grad_(False))
    with pytest.raises(TaskError, match="no trainable parameter"):
        trained(nn.Flatten())


def test_an_output_of_the_wrong_shape_is_described():
    with pytest.raises(TaskError, match=r"returned shape \[16, 2\].*output_axes"):
        trained(task=replace(TASK, output_axes=2))
    with pytest.raises(TaskError, match="returned tuple"):
        trained(nn.LSTM(6, 2))


def test_divergence_is_an_error():
    task = replace(TASK, loss=functional.mse_loss)
    split = Split(samples().inputs, samples().inputs[0][:, :1])
    settings = Settings(epochs=3, learning_rate=1e30, optimizer="sgd", schedule="constant")
    with pytest.raises(SettingsError, match=r"diverged.*1e\+30"):
        trained(nn.Linear(6, 1), settings.changed(batch_size=8), split=split, task=task)


def test_divergence_stops_in_the_step_and_keeps_the_last_good_epoch(tmp_path):
    """A loss that is not a number from its eighth batch on: epoch 3, step 2 of 3."""
    seen, good, file = [], [], tmp_path / "c.pt"

    class Spoilt(Hook):
        steps = 0

        def loss(self, loss, output, batch):
            self.steps += 1
            return loss * torch.nan if self.steps == 8 else loss

    def progress(told):
        seen.append(told.epoch)
        good.append({k: v.clone() for k, v in model.state_dict().items()})

    model = network()
    with pytest.raises(SettingsError) as error:
        trained(model, hooks=(lambda m, p: Spoilt(),), checkpoint=file, progress=progress)
    text = str(error.value)
    assert "diverged in epoch 3, step 2 of 3" in text and "the loss itself" in text
    assert f"the last good epoch, 2, are in the model again and in '{file}'" in text
    assert seen == [1, 2]
    assert all(torch.equal(good[-1][k], v) for k, v in model.state_dict().items())
    assert torch.load(file, weights_only=True)["epoch"] == 2


def test_a_gradient_that_spoils_the_last_step_is_found():
    class Spoilt(Hook):
        def __init__(self, model, plan):
            self.model, self.left = model, plan.total_steps

        def before_step(self):
            self.left -= 1
            if self.left == 0:
                self.model[4].weight.grad[0, 0] = torch.nan

    with pytest.raises(SettingsError, match=r"epoch 3, step 3 of 3.*the gradient of '4.weight'"):
        trained(hooks=(Spoilt,))


def test_a_module_that_is_not_finite_is_named_without_a_checkpoint():
    class Logarithm(nn.Module):
        def forward(self, x):
            return x.log()

    model = nn.Sequential(nn.Linear(6, 2), Logarithm())
    with pytest.raises(SettingsError, match=r"step 1 of 3.*module '1' \(Logarithm\)") as error:
        trained(model)
    assert "last good epoch" not in str(error.value)


def test_curves_are_told_and_recorded():
    seen, record = [], FitRecord()
    valid = samples(40)
    model = trained(progress=seen.append, valid=valid, record=record, number=2)
    assert [p.loss for p in seen] == record.loss and [p.valid for p in seen] == record.valid
    assert (record.fit, record.epochs, len(record.seconds)) == (2, 3, 3)
    score = TASK.score(predict(model, valid, TASK, CPU), valid.target)
    assert seen[-1].valid == score and seen[-1].metric == "accuracy"
    assert seen[0].seconds_left == pytest.approx(2 * record.seconds[0])
    assert seen[-1].seconds_left == 0


class Noisy(nn.Module):
    """Draws numbers and counts its calls in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + torch.rand(()) * self.calls


def test_validation_leaves_no_trace():
    def made():
        return nn.Sequential(network(), Noisy())

    meters, models = [], []
    for valid in (None, samples(40)):
        meters.append(Meter())
        models.append(trained(made(), meter=meters[-1], valid=valid))
    assert same(*models)
    assert models[1][1].calls == 9
    assert meters[0].charge().train_macs == meters[1].charge().train_macs


def test_a_model_that_draws_while_it_is_looked_at_resumes(tmp_path):
    def made():
        return nn.Sequential(network(), Noisy())

    options = {"valid": samples(40), "identity": "run"}
    with pytest.raises(Killed):
        trained(made(), checkpoint=tmp_path / "c.pt", progress=kill_at(2), **options)
    resumed = trained(made(), checkpoint=tmp_path / "c.pt", **options)
    assert same(trained(made(), **options), resumed)


def test_validation_that_cannot_be_had_is_said_once():
    seen, record = [], FitRecord()
    inputs = torch.zeros(40, 5)
    other = Split((inputs,), torch.zeros(40, dtype=torch.int64))
    model = trained(progress=seen.append, valid=other, record=record)
    assert same(model, trained())
    assert record.valid == [None] * 3 and [p.valid for p in seen] == [None] * 3
    (sentence,) = record.warnings
    assert "validation metric is unknown" in sentence and "RuntimeError" in sentence
    assert [len(p.warnings) for p in seen] == [1, 0, 0]


def test_a_metric_that_is_no_number_is_said():
    def odd(output, target):
        return float("nan")

    record = FitRecord()
    trained(task=replace(TASK, metric=odd), valid=samples(40), record=record)
    assert record.valid == [None] * 3
    assert record.warnings == ["The validation metric 'odd' is nan."]


def test_dead_units_are_told_while_training():
    seen, record = [], FitRecord()
    model = network(dropout=0.0)
    model[1].weight.requires_grad_(False).zero_()
    model[1].bias.requires_grad_(False).fill_(-1)
    trained(model, valid=samples(40), record=record, progress=seen.append)
    assert record.warnings[0].startswith("12 of 12 units of '2'")
    assert seen[0].warnings == tuple(record.warnings)


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_a_resumed_record_has_no_doubles_and_no_gaps(killed, tmp_path):
    options = {"identity": "run", "valid": samples(40)}
    whole, resumed = FitRecord(), FitRecord()
    trained(record=whole, **options)
    file = tmp_path / "c.pt"
    with pytest.raises(Killed):
        trained(checkpoint=file, progress=kill_at(killed), record=FitRecord(), **options)
    trained(checkpoint=file, record=resumed, **options)
    assert (resumed.loss, resumed.valid) == (whole.loss, whole.valid)
    assert len(resumed.seconds) == 3


class Hidden(nn.Module):
    """Its state is in a buffer that the state dict leaves out."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.scale += 0.1
        return x * self.scale


class Freeze(Hook):
    """Freezes a layer after the first epoch and does not say so in its state."""

    def __init__(self, model, plan):
        self.model = model

    def after_epoch(self):
        self.model[0][0].requires_grad_(False)


def test_hidden_buffers_and_frozen_layers_resume(tmp_path):
    def made():
        return nn.Sequential(network(), Hidden())

    options = {"identity": "run", "hooks": (Freeze,)}
    with pytest.raises(Killed):
        trained(made(), checkpoint=tmp_path / "c.pt", progress=kill_at(2), **options)
    resumed = trained(made(), checkpoint=tmp_path / "c.pt", **options)
    whole = trained(made(), **options)
    assert same(whole, resumed) and torch.equal(whole[1].scale, resumed[1].scale)
    assert not resumed[0][0].weight.requires_grad


def test_hooks_are_closed_when_the_model_cannot_be_called():
    log = []
    with pytest.raises(RuntimeError):
        trained(nn.Linear(7, 2), hooks=(Recorder("1", log),))
    assert log == ["1close"]


def test_another_number_of_scores_than_classes_is_refused():
    with pytest.raises(TaskError, match="2 scores"):
        trained(classes=3)


def test_leading_axes_train_as_members_do_alone():
    """The loss is the mean over K members: SGD at K times the rate is what training alone gives."""
    settings = SETTINGS.changed(optimizer="sgd", learning_rate=0.02)
    group = Group([network(k, dropout=0.0) for k in range(2)])
    trained(group, settings)
    for k in range(2):
        alone = trained(network(k, dropout=0.0), settings.changed(learning_rate=0.01))
        for a, b in zip(group.members[k].parameters(), alone.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("way", ["one_by_one", "batched", "threads", "auto"])
def test_members_with_own_inputs_get_their_own_order(way):
    hook = Recorder()
    group = Group([network(k, dropout=0.0) for k in range(3)], own_inputs=True, way=way)
    trained(group, hooks=(hook,))
    assert hook.index[0].shape == (3, 16) and hook.inputs[0].shape == (3, 16, 6)
    epoch = torch.cat(hook.index[:3], 1)
    assert all(len(row.unique()) == 48 for row in epoch)
    assert not torch.equal(epoch[0], epoch[1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_vectors_are_not_decayed(optimizer):
    model = network()
    made = make_optimizer(model, SETTINGS.changed(optimizer=optimizer, weight_decay=0.1))
    decay = {p: g["weight_decay"] for g in made.param_groups for p in g["params"]}
    assert {p.dim(): d for p, d in decay.items()} == {2: 0.1, 1: 0.0}
    assert set(decay) == set(model.parameters())


def test_convolutions_run_channels_last():
    split = Split((torch.randn(16, 3, 6, 6),), torch.zeros(16, dtype=torch.int64))
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    model[0].register_forward_pre_hook(lambda m, x: seen.append(x[0]) if m.training else None)
    trained(model, split=split)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen) and seen


def test_training_costs_three_forwards_of_each_sample():
    meter = Meter()
    trained(meter=meter)
    assert meter.charge().train_macs == 3 * (6 * 12 + 12 * 2) * 16 * 3 * 3
    assert meter.charge().train_seconds > 0


class Killed(Exception):
    pass


def kill_at(epoch):
    def progress(seen):
        if seen.epoch == epoch:
            raise Killed

    return progress


class Counter(Hook):
    """Its numbers must come back: it scales the loss by a drawn number and its own count."""

    def __init__(self, model, plan):
        self.plan, self.steps = plan, 0

    def loss(self, loss, output, batch):
        return loss * (1 + torch.rand((), generator=self.plan.generator)) + self.steps * 1e-3 * (
            output.square().mean()
        )

    def after_step(self):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@pytest.mark.parametrize("killed", [1, 2, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_killed_run_resumes_to_the_same_weights(optimizer, killed, tmp_path):
    settings = SETTINGS.changed(optimizer=optimizer, weight_decay=0.01)
    options = {
        "settings": settings, "hooks": (Counter,), "identity": "run",
        "rest": {"augment": lambda x, g: x + torch.randn(x.shape, generator=g)},
    }  # fmt: skip
    whole = trained(**options)
    file = tmp_path / "checkpoint-0.pt"
    meter, seen = Meter(), []
    with pytest.raises(Killed):
        trained(checkpoint=file, progress=kill_at(killed), **options)
    resumed = trained(checkpoint=file, progress=seen.append, meter=meter, **options)
    assert [p.epoch for p in seen] == list(range(killed, 4))
    assert same(whole, resumed)
    again = Meter()
    trained(meter=again, **options)
    assert meter.charge().train_macs == again.charge().train_macs
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-0.pt"]


def test_a_finished_fit_is_not_repeated_and_leaves_the_random_state(tmp_path):
    file, seen = tmp_path / "c.pt", []
    states = []
    for progress in (None, seen.append):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = fit(
                network(), samples(), SETTINGS, (), around(checkpoint=file, progress=progress)
            )
            states.append((model, torch.rand(3)))
    assert seen == [] and same(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])


def test_a_stale_checkpoint_is_ignored(tmp_path):
    file, seen = tmp_path / "c.pt", []
    trained(checkpoint=file, identity="old", seed=9)
    found = trained(checkpoint=file, identity="new", progress=seen.append)
    assert [p.epoch for p in seen] == [1, 2, 3]
    assert same(found, trained())


def test_a_torn_checkpoint_is_told(tmp_path):
    file, seen, record = tmp_path / "c.pt", [], FitRecord()
    file.write_bytes(b"PK half a file")
    trained(checkpoint=file, progress=seen.append, record=record)
    (sentence,) = seen[0].warnings
    assert f"The checkpoint '{file}' is damaged" in sentence and "began again" in sentence
    assert record.warnings == [sentence]


def test_a_hook_whose_state_cannot_be_read_back_is_refused_and_leaves_no_file(tmp_path):
    class Opaque(Hook):
        def state_dict(self):
            return {"function": print}

    with pytest.raises(SpecError, match="state_dict holds something else"):
        trained(hooks=(lambda m, p: Opaque(),), checkpoint=tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("torn", [b"", b"PK\x03\x04 half a file", None])
def test_a_torn_checkpoint_is_ignored(torn, tmp_path):
    file, seen = tmp_path / "c.pt", []
    trained(checkpoint=file)
    file.write_bytes(file.read_bytes()[:2000] if torn is None else torn)
    found = trained(checkpoint=file, progress=seen.append)
    assert [p.epoch for p in seen] == [1, 2, 3]
    assert same(found, trained())


def test_a_checkpoint_runs_no_code(tmp_path):
    """A checkpoint with a pickled function is not loaded; it is treated as a torn one."""
    file = tmp_path / "c.pt"
    torch.save({"identity": "", "epoch": 99, "evil": print}, file)
    assert same(trained(checkpoint=file), trained())


def test_progress_tells_the_mean_loss():
    seen = []
    trained(progress=seen.append, number=4)
    assert [(p.fit, p.epoch, p.epochs) for p in seen] == [(4, 1, 3), (4, 2, 3), (4, 3, 3)]
    assert all(isinstance(p, Progress) and 0 < p.loss < 5 for p in seen)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    trained()
    assert torch.get_num_threads() == before


def test_predict_covers_all_samples_in_order_and_restores_the_mode():
    split = samples(2500)
    model = network().train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    found = predict(model, split, TASK, CPU)
    assert [m.training for m in model.modules()] == modes
    assert torch.allclose(found, model.eval()(split.inputs[0]), atol=1e-5)
    assert not found.requires_grad
    group = Group([network(0), network(1)]).eval()
    mean = group(split.inputs[0]).softmax(-1).mean(0)
    assert torch.allclose(predict(group, split, TASK, CPU).exp(), mean, atol=1e-5)


@pytest.mark.parametrize(
    ("toy", "epochs"),
    [
        (toys.toy_classification, 6),
        (toys.toy_regression, 6),
        (toys.toy_tagging, 6),
        (toys.toy_frames, 5),
        (toys.toy_nodes, 8),
    ],
)
def test_training_improves_every_toy(toy, epochs):
    task = toy()
    data = task.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = task.build(data)
        before = task.metric(predict(model, data.valid, task, CPU), data.valid.target)
        model = fit(model, data.train, task.settings.changed(epochs=epochs), (), around(task))
    after = task.metric(predict(model, data.valid, task, CPU), data.valid.target)
    assert after > before + 0.2
    assert not model.training
