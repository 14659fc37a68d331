"""The battery must fail on techniques that are bad in one way each."""

import pytest

from whit.core.references import load_reference
from whit.errors import SpecError, TestDataSealed, WhitError
from whit.tasks.toys import toy_classification
from whit.testing import check_technique
from whit.testing.conformance import ConformanceError, same_state

TECHNIQUES = '''
import itertools

import torch
from torch import nn
from torch.nn import functional

import whit
from whit import Hook, Technique, technique
from whit.errors import NoEffect, NotApplicable
from whit.parts.surgery import swap_modules

count = itertools.count()


class Noise(Hook):
    """Adds drawn numbers, fewer with each step."""

    def __init__(self, model, plan):
        self.model, self.plan, self.steps = model, plan, 0

    @torch.no_grad()
    def after_step(self):
        self.steps += 1
        for p in self.model.parameters():
            drawn = torch.randn(p.shape, generator=self.plan.generator)
            p.add_(drawn * 0.001 / self.steps)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Forgets(Noise):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def tanh(model, data):
    if not swap_modules(model, lambda m: isinstance(m, nn.ReLU), lambda _: nn.Tanh()):
        raise NoEffect("There is no ReLU to swap.")
    return model


@technique
def good(*, rate: float = 0.5) -> Technique:
    """Swap ReLU for Tanh and add noise."""
    return Technique(prepare_model=tanh, hooks=(Noise,))


@technique
def packs() -> Technique:
    """Add noise to weights that can be packed."""
    return Technique(hooks=(Noise,))


@technique
def reads_test() -> Technique:
    """Peek."""
    return Technique(prepare_data=lambda data: data.test.target.sum() and data)


@technique
def loads_test() -> Technique:
    """Peek through the task."""

    def train(run):
        model = run.fit(run.build())
        with torch.no_grad():
            next(model.parameters()).add_(run.task.load().test.target.reshape(-1)[0].item())
        return model

    return Technique(train=train)


@technique
def idle() -> Technique:
    """Watch, and do nothing."""
    return Technique(hooks=(lambda model, plan: Hook(),))


@technique
def unsaved() -> Technique:
    """Keep what changes out of the state."""
    return Technique(hooks=(Forgets,))


def descend(run, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = run.data.train.batch(torch.arange(len(run.data.train)))
    for _ in range(3):
        optimizer.zero_grad()
        run.task.mean_loss(model(*batch.inputs), batch.target).backward()
        optimizer.step()
    return model


@technique
def uncharged() -> Technique:
    """Train in a loop of its own, for free."""
    return Technique(train=lambda run: descend(run, run.build()))


@technique
def charged() -> Technique:
    """Train in a loop of its own, and pay."""

    def train(run):
        model = run.build()
        with run.meter.training(model):
            return descend(run, model)

    return Technique(train=train)


@technique
def accepts_anything() -> Technique:
    """Find nothing to change, silently."""

    def prepare(model, data):
        swap_modules(model, lambda m: isinstance(m, nn.GELU), lambda _: nn.Tanh())
        return model

    return Technique(prepare_model=prepare)


@technique
def reshapes() -> Technique:
    """Answer in another shape."""
    return Technique(
        finish_model=lambda model, data: nn.Sequential(model, nn.ZeroPad1d((0, 1)))
    )


@technique
def not_literal(*, make: object = nn.ReLU) -> Technique:
    """Have a default that no spec can hold."""
    return Technique()


@technique
def varies() -> Technique:
    """Start differently each time."""

    def prepare(model, data):
        number = next(count)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01 * number)
        return model

    return Technique(prepare_model=prepare)


@technique
def never() -> Technique:
    """Fit nothing."""

    def refuse(data):
        raise NotApplicable("It is never the right weather.")

    return Technique(prepare_data=refuse)


@technique
def curt() -> Technique:
    """Refuse without a reason."""

    def refuse(data):
        raise NotApplicable("")

    return Technique(prepare_data=refuse)


@technique
def breaks_copies() -> Technique:
    """Keep a weight where neither copies nor states find it."""

    class Outside(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.asked = inner, 0

        def __deepcopy__(self, memo):
            twin = Outside(self.inner)
            twin.asked = 1
            return twin

        def forward(self, *x):
            return self.inner(*x) + self.asked

    return Technique(finish_model=lambda model, data: Outside(model))


def undecorated():
    return Technique()
'''


@pytest.fixture(scope="module")
def techniques(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "bad.py"
    file.write_text(TECHNIQUES)
    return load_reference(str(file))


@pytest.fixture
def one_toy(monkeypatch):
    """A technique that is bad on one toy task is bad: the others would only take time."""
    monkeypatch.setattr("whit.testing.conformance.TOYS", (toy_classification,))


@pytest.mark.parametrize("name", ["packs", "good"])
def test_a_good_technique_passes_every_check(techniques, name):
    """Also `good`, whose Tanh has no packed operator: the scorecard then says so."""
    found = check_technique(getattr(techniques, name), card=False)
    assert found.passed == [
        "spec_parses_back", "plain_adds_nothing", "defaults_run", "output_shape_is_kept",
        "same_seed_gives_the_same", "test_labels_change_nothing", "training_is_charged",
        "model_copies", "killed_run_resumes", "scorecard_is_complete", "no_effect_is_an_error",
        "something_changes", "sums_work_or_refuse",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("idle", "changes nothing"),
        ("unsaved", "killed and resumed.*state_dict"),
        ("uncharged", "without charging the meter"),
        ("accepts_anything", "nothing to change"),
        ("reshapes", r"shape \[128, 5\], the control \[128, 4\]"),
        ("varies", "same seed gives other weights"),
        ("never", "none of the toy tasks.*weather"),
        ("curt", "without a reason"),
        ("breaks_copies", "deep copy"),
    ],
)
def test_a_bad_technique_is_refused(techniques, one_toy, name, words):
    with pytest.raises(ConformanceError, match=words) as caught:
        check_technique(getattr(techniques, name), card=False)
    assert f":{name}()" in str(caught.value), "the message names the technique"


def test_reading_the_test_split_is_refused(techniques):
    for name in ("reads_test", "loads_test"):
        with pytest.raises(TestDataSealed, match="sealed"):
            check_technique(getattr(techniques, name), card=False)


def test_defaults_must_be_literals(techniques):
    with pytest.raises(SpecError, match="'make' of 'not_literal'.*literals"):
        check_technique(techniques.not_literal, card=False)


def test_an_own_loop_that_pays_is_accepted(techniques, one_toy):
    found = check_technique(techniques.charged, card=False)
    assert "training_is_charged" in found.passed


def test_a_card_is_asked_for(techniques, one_toy):
    with pytest.raises(WhitError, match="bad.md"):
        check_technique(techniques.packs)


@pytest.mark.parametrize("name", ["undecorated", "Noise"])
def test_other_things_are_no_techniques(techniques, name):
    with pytest.raises(ConformanceError, match="@whit.technique"):
        check_technique(getattr(techniques, name))


def test_same_state():
    from torch import nn

    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert same_state(one, one) and not same_state(one, other)
    assert not same_state(one, nn.Linear(2, 2, bias=False))
    other.load_state_dict(one.state_dict())
    assert same_state(one, other)
