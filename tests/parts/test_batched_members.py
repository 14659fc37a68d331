import copy

import pytest
import torch
from torch import nn

from whit.parts import batched_members
from whit.parts.group import Group
from whit.parts.masks import add_masks
from whit.parts.normalise import Normalise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seeded(build):
    def member(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    return member


@seeded
def control():
    shift = float(torch.randint(1, 9, ()))
    return nn.Sequential(
        Normalise(shift, 4.0), nn.Flatten(),
        nn.Linear(12, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(inplace=True),
        nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.BatchNorm1d(6, affine=False)),
        nn.Linear(6, 3),
    )  # fmt: skip


@seeded
def features_first():
    return nn.Sequential(
        nn.BatchNorm1d(12), nn.Dropout(0.0), nn.Linear(12, 8), nn.Flatten(), nn.GELU(),
        Normalise(torch.rand(8), torch.rand(8) + 1), nn.Linear(8, 8),
    )  # fmt: skip


@seeded
def without_weights():
    return nn.Sequential(nn.Tanh())


@seeded
def only_linear():
    return nn.Linear(12, 3)


CHAINS = {
    "control": control,
    "features_first": features_first,
    "without_weights": without_weights,
    "only_linear": only_linear,
}


def inputs_for(kind, own):
    shape = (5, 3, 4) if kind == "control" else (5, 12)
    if own:
        shape = (3, *shape)
    return torch.randint(0, 9, shape, generator=generator(), dtype=torch.uint8).to(
        torch.uint8 if kind == "control" else torch.float32
    )


@pytest.fixture
def only_chains(monkeypatch):
    def refuse(*_):
        raise AssertionError("vmap was used")

    monkeypatch.setattr(batched_members, "_run_vmap", refuse)


@pytest.mark.usefixtures("only_chains")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", CHAINS)
def test_a_chain_equals_the_loop(kind, own, training):
    loop = Group([CHAINS[kind](k) for k in range(3)], own_inputs=own).train(training)
    batched = copy.deepcopy(loop)
    batched.way = "batched"
    x = inputs_for(kind, own)
    for _ in range(2):
        wanted, got = loop(x), batched(x)
    assert torch.allclose(wanted, got, atol=1e-5) and wanted.shape == got.shape
    if wanted.requires_grad:
        for output in (wanted, got):
            (output * torch.arange(1.0, output.shape[-1] + 1)).square().sum().backward()
    for (name, p), q in zip(loop.named_parameters(), batched.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-3), name
    for (name, p), q in zip(loop.named_buffers(), batched.buffers(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), name


@pytest.mark.usefixtures("only_chains")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_copies_trained_as_one_batch_equal_copies_trained_alone(own, optimizer):
    alone = [control(k) for k in range(3)]
    group = Group([copy.deepcopy(m) for m in alone], way="batched", own_inputs=own)
    settings = {"lr": 0.05, "fused": True}
    together = optimizer(group.parameters(), **settings)
    each = [optimizer(m.parameters(), **settings) for m in alone]
    draws = generator(3)
    for _ in range(5):
        x = torch.randint(0, 9, (3, 16, 3, 4), generator=draws, dtype=torch.uint8)
        y = torch.randint(0, 3, (3, 16), generator=draws)
        if not own:
            x, y = x[0], y[:1].expand(3, 16)
        together.zero_grad()
        nn.functional.cross_entropy(group(x).flatten(0, 1), y.flatten()).mul(3).backward()
        together.step()
        for k, (model, stepper) in enumerate(zip(alone, each, strict=True)):
            stepper.zero_grad()
            nn.functional.cross_entropy(model(x[k] if own else x), y[k]).backward()
            stepper.step()
    for model, member in zip(alone, group.members, strict=True):
        for (name, a), b in zip(
            model.state_dict().items(), member.state_dict().values(), strict=True
        ):
            assert torch.allclose(a.double(), b.double(), atol=1e-4), name


@pytest.mark.usefixtures("only_chains")
def test_a_chain_draws_dropout_for_each_member():
    member = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 64, bias=False))
    torch.nn.init.eye_(member[1].weight)
    group = Group([member, copy.deepcopy(member)], way="batched").train()
    x = torch.ones(4, 64)
    first, second = group(x)
    assert not torch.equal(first, second) and torch.equal(x, torch.ones(4, 64))
    assert torch.equal(group.eval()(x), torch.ones(2, 4, 64))


@pytest.mark.usefixtures("only_chains")
def test_a_change_of_a_member_is_seen_and_state_is_its_own():
    group = Group([only_linear(k) for k in range(2)], way="batched")
    x = inputs_for("only_linear", False)
    group(x)
    with torch.no_grad():
        group.members[1].weight.copy_(group.members[0].weight)
        group.members[1].bias.copy_(group.members[0].bias)
    assert torch.equal(*group(x))
    group.members[0].load_state_dict(only_linear(7).state_dict())
    assert torch.allclose(group(x)[0], only_linear(7)(x), atol=1e-6)
    exact = copy.deepcopy(group).double()(x.double())
    assert exact.dtype == torch.float64 and torch.allclose(exact.float(), group(x), atol=1e-5)


def test_members_without_weights_and_without_layers():
    x = torch.randn(4, 3)
    for build, members in ((nn.Sequential, 2), (nn.Identity, 2), (nn.Tanh, 2)):
        group = Group([build() for _ in range(members)], way="batched")
        wanted = torch.stack([build()(x) for _ in range(members)])
        assert torch.equal(group(x), wanted) and group(x).data_ptr() != x.data_ptr()


def test_hooks_and_masks_and_sequences_go_through_vmap(monkeypatch):
    used = []
    run = batched_members._run_vmap
    monkeypatch.setattr(
        batched_members, "_run_vmap", lambda *given: (used.append(1), run(*given))[1]
    )
    hooked = [nn.Sequential(only_linear(k)) for k in range(2)]
    for member in hooked:
        member[0].register_forward_hook(lambda module, inputs, output: output + 1)
    masked = [nn.Sequential(only_linear(k)) for k in range(2)]
    for member in masked:
        add_masks(member)
    sequences = [only_linear(k) for k in range(2)]
    averaged = [nn.Sequential(nn.BatchNorm1d(12, momentum=None)) for _ in range(2)]
    for number, members in enumerate((hooked, masked, sequences, averaged), start=1):
        x = inputs_for("only_linear", False)
        if members is sequences:
            x = x.unsqueeze(1).expand(-1, 2, -1)
        group = Group(members, way="batched").train(members is not averaged)
        output = group(x)
        group.way = "one_by_one"
        assert torch.allclose(output, group(x), atol=1e-5) and len(used) == number
