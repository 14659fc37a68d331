import torch

from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.methods.plain import plain
from whit.spec_strings import spec
from whit.tasks.toys import toy_classification


def test_it_is_the_empty_technique():
    assert plain() == Technique()
    assert plain().spec == "plain()" and spec("plain()") == plain()


def test_it_adds_nothing():
    other = Technique(finish_model=lambda model, data: model, spec="other()")
    assert plain() + other == other and other + plain() == other
    assert (plain() + plain()).spec == "plain()"


def test_it_trains_as_no_technique_does():
    task = toy_classification()
    settings = task.settings.changed(epochs=2)
    one, other = (train(task, t, settings, Conditions()).model for t in (plain(), Technique()))
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
