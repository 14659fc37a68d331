import copy

import pytest
import torch
from torch import nn

from whit.errors import WhitError
from whit.measure.meter import forward_macs
from whit.methods.low_bit.binarized_network import binarize
from whit.parts.group import Group
from whit.parts.masks import add_masks, find_masks


def member(seed, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(5, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(8, 3),
        )


def masked(seed):
    model = binarize(member(seed))
    add_masks(model)
    for _, mask in find_masks(model).values():
        mask.mask.copy_(torch.rand(mask.mask.shape, generator=_generator(seed)) > 0.5)
    return model


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def conv_member(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(64, 3),
        )  # fmt: skip


KINDS = {
    "batch_norm": member,
    "binarised": lambda seed: binarize(member(seed)),
    "binarised_none": lambda seed: binarize(member(seed), scale="none"),
    "binarised_and_masked": masked,
    "convolution": conv_member,
}


def inputs_for(kind, own):
    shape = (6, 1, 4, 4) if kind == "convolution" else (6, 5)
    return torch.randn(3, *shape, generator=_generator(9)) if own else torch.randn(
        *shape, generator=_generator(9)
    )  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_the_loop(kind, training, own):
    loop = Group([KINDS[kind](k) for k in range(3)], own_inputs=own).train(training)
    batched = copy.deepcopy(loop)
    batched.batched = True
    x = inputs_for(kind, own)
    outputs = []
    for group in (loop, batched):
        for _ in range(2):  # twice: running statistics of the first call must have arrived
            output = group(x)
        (output * torch.arange(1.0, 4.0)).square().sum().backward()
        outputs.append(output)
    assert torch.allclose(*outputs, atol=1e-5)
    for (name, p), q in zip(loop.named_parameters(), batched.parameters(), strict=True):
        assert p.grad is not None and torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-3), name
    for (name, a), b in zip(loop.named_buffers(), batched.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    counts = [b for n, b in batched.named_buffers() if "num_batches" in n]
    assert all(int(c) == 2 * training for c in counts)


def test_batched_dropout_in_evaluation_equals_the_loop():
    loop = Group([member(k, dropout=0.5) for k in range(3)]).eval()
    batched = copy.deepcopy(loop)
    batched.batched = True
    x = inputs_for("batch_norm", False)
    assert torch.allclose(loop(x), batched(x), atol=1e-6)


def test_batched_dropout_differs_between_members():
    alike = [nn.Sequential(nn.Dropout(0.5)) for _ in range(2)]
    group = Group([nn.Sequential(nn.Linear(64, 64), m) for m in alike], batched=True).train()
    group.members[1].load_state_dict(group.members[0].state_dict())
    first, second = group(torch.ones(4, 64))
    assert not torch.equal(first == 0, second == 0)


def test_members_keep_their_own_parameters():
    members = [member(k) for k in range(2)]
    group = Group(members, batched=True)
    assert len(group) == 2 and set(group.parameters()) == {
        p for m in members for p in m.parameters()
    }
    group(inputs_for("batch_norm", False))[0].sum().backward()
    assert float(members[0][4].weight.grad.abs().sum()) > 0
    assert float(members[1][4].weight.grad.abs().sum()) == 0


def test_own_inputs_reach_their_member():
    group = Group([nn.Identity(), nn.Identity()], own_inputs=True)
    x = torch.arange(4.0).reshape(2, 2)
    assert torch.equal(group(x), x)
    assert torch.equal(Group([nn.Identity(), nn.Identity()])(x), torch.stack([x, x]))


def test_batched_members_cost_what_the_loop_costs():
    x = inputs_for("batch_norm", False)
    macs = 3 * 6 * (5 * 8 + 8 * 3)
    assert forward_macs(Group([member(k) for k in range(3)]), x) == macs
    assert forward_macs(Group([member(k) for k in range(3)], batched=True), x) == macs


def test_refusals():
    with pytest.raises(WhitError, match="no members"):
        Group([])
    with pytest.raises(WhitError, match="same shapes"):
        Group([nn.Linear(2, 2), nn.Linear(2, 3)], batched=True)
    assert len(Group([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])) == 2
