import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.divergence import watchable_modules
from whit.errors import WhitError
from whit.parts import group as group_module
from whit.parts.group import Group
from whit.parts.group_timing import fastest_way


def members(dropout=0.0):
    return [
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout))
        for _ in range(2)
    ]


def test_auto_measures_on_the_first_training_batch_and_keeps_the_fastest():
    group = Group(members(), way="auto")
    group.eval()(torch.randn(8, 4))
    with torch.no_grad():
        group.train()(torch.randn(8, 4))
    assert group.chosen is None
    group(torch.randn(8, 4))
    chosen = group.chosen
    assert set(chosen.milliseconds) == {"one_by_one", "batched", "threads"} and not chosen.refused
    assert all(took > 0 for took in chosen.milliseconds.values())
    assert chosen.milliseconds[chosen.way] == min(chosen.milliseconds.values())
    assert chosen.inputs == ((8, 4),) and chosen.threads == torch.get_num_threads()
    group(torch.randn(8, 4))
    assert group.chosen is chosen
    assert f"chosen='{chosen.way}'" in repr(group)
    group.way = "auto"
    assert group.chosen is None


def test_measuring_changes_nothing():
    seen = []
    group = Group(members(dropout=0.5), way="auto")
    for m in group.members:
        m[0].register_forward_hook(lambda *_: seen.append(1))
    alike = copy.deepcopy(group)
    alike.way = "one_by_one"
    x = torch.randn(8, 4)
    state = torch.get_rng_state()
    measured = group._measured((x,))
    assert torch.equal(state, torch.get_rng_state()) and not seen
    assert "random numbers" in measured.refused["threads"]
    assert all(p.grad is None for p in group.parameters())
    for (name, a), b in zip(group.state_dict().items(), alike.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    group.chosen = replace(measured, way="one_by_one")
    first = group(x)
    torch.set_rng_state(state)
    assert torch.equal(first, alike(x))


def test_unlike_members_run_one_by_one_or_in_threads():
    group = Group([nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.ReLU())], way="auto")
    group(torch.randn(8, 4))
    assert "alike members" in group.chosen.refused["batched"]
    assert set(group.chosen.milliseconds) == {"one_by_one", "threads"}


@pytest.mark.parametrize("fast", ["one_by_one", "batched", "threads"])
def test_what_was_chosen_is_what_runs(monkeypatch, fast):
    def choose(of, inputs, ways):
        return replace(fastest_way(of, inputs, ways), way=fast)

    monkeypatch.setattr(group_module, "fastest_way", choose)
    group = Group(members(), way="auto")
    loop = copy.deepcopy(group)
    loop.way = "one_by_one"
    ran = []
    for name in ("run_batched", "run_in_threads"):
        real = getattr(group_module, name)
        monkeypatch.setattr(
            group_module, name, lambda *a, real=real, name=name: (ran.append(name), real(*a))[1]
        )
    x = torch.randn(8, 4)
    group(x)
    ran.clear()
    loop(x)
    assert torch.allclose(group(x), loop(x), atol=1e-5)
    assert (
        ran == {"one_by_one": [], "batched": ["run_batched"], "threads": ["run_in_threads"]}[fast]
    )
    ran.clear()
    group.eval()(x)
    assert not ran and "members.0.0" in [path for path, _ in watchable_modules(group)]


def test_an_error_of_the_members_themselves_is_raised():
    group = Group(members(), way="auto")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        group(torch.randn(1, 4))
    with pytest.raises(WhitError, match="no way"):
        fastest_way(group.members, (torch.randn(4, 4),), {"loop": _refuse})


def _refuse(*_):
    raise WhitError("no way")
