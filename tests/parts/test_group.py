import copy

import pytest
import torch
from torch import nn

from whit.core.fit import Surroundings, fit
from whit.core.settings import Settings
from whit.errors import SpecError, WhitError
from whit.measure.meter import Meter, forward_macs
from whit.methods.low_bit.binarized_network import binarize
from whit.parts.group import WAYS, Group
from whit.parts.masks import add_masks, find_masks
from whit.tasks.digits import digits


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
    batched.way = "batched"
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
    batched.way = "batched"
    x = inputs_for("batch_norm", False)
    assert torch.allclose(loop(x), batched(x), atol=1e-6)


def test_batched_dropout_differs_between_members():
    alike = [nn.Sequential(nn.Dropout(0.5)) for _ in range(2)]
    group = Group([nn.Sequential(nn.Linear(64, 64), m) for m in alike], way="batched").train()
    group.members[1].load_state_dict(group.members[0].state_dict())
    first, second = group(torch.ones(4, 64))
    assert not torch.equal(first == 0, second == 0)


def test_members_keep_their_own_parameters():
    members = [member(k) for k in range(2)]
    group = Group(members, way="batched")
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
    assert forward_macs(Group([member(k) for k in range(3)], way="batched"), x) == macs


def test_refusals():
    with pytest.raises(WhitError, match="no members"):
        Group([])
    with pytest.raises(SpecError, match="'fast'; expected one of one_by_one, batched, threads"):
        Group([nn.Linear(2, 2)], way="fast")
    assert len(Group([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])) == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Linear(2, 3), r"Member 1 has '' = Linear\(in_features=2, out_features=3"),
        (nn.Linear(2, 2).double(), r"'weight' of shape \[2, 2\], torch.float64 \(member 0: "),
        (nn.Linear(2, 2, bias=False), "bias=False"),
    ],
)
def test_unlike_members_are_refused_where_alike_ones_are_needed(other, said):
    with pytest.raises(WhitError, match=f"needs alike members.*{said}"):
        Group([nn.Linear(2, 2), other], way="batched")
    group = Group([nn.Linear(2, 2), other])
    with pytest.raises(WhitError, match="needs alike members"):
        group.way = "batched"
    assert group.way == "one_by_one"


def test_settings_without_tensors_must_be_alike_too():
    members = [nn.Sequential(nn.Linear(2, 2), nn.Dropout(p)) for p in (0.1, 0.5)]
    with pytest.raises(WhitError, match=r"'1' = Dropout\(p=0.5"):
        Group(members, way="batched")


def test_members_in_different_modes_are_refused():
    group = Group([member(0), member(1)], way="batched").train()
    group.members[1][1].eval()
    with pytest.raises(WhitError, match="training mode and others in evaluation mode .BatchNorm1d"):
        group(torch.randn(4, 5))


def test_one_sample_and_batch_norm_are_refused():
    group = Group([member(0), member(1)], way="batched").train()
    with pytest.raises(WhitError, match="needs at least 2 samples"):
        group(torch.randn(1, 5))
    assert group.eval()(torch.randn(1, 5)).shape == (2, 1, 3)


def test_inputs_without_an_axis_of_members_are_refused():
    group = Group([member(0), member(1)], own_inputs=True)
    with pytest.raises(WhitError, match=r"expected \[2, batch, ...\]"):
        group(torch.randn(6, 5))


class ReadsValues(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 0 else -x


def test_what_vmap_cannot_run_is_said():
    members = [nn.Sequential(nn.Linear(3, 3), ReadsValues()) for _ in range(2)]
    with pytest.raises(WhitError, match=r"cannot run its members \(Sequential\) by vmap: "):
        Group(members, way="batched")(torch.ones(2, 3))


@pytest.mark.parametrize("own", [False, True])
def test_fit_trains_a_group_alike_whichever_way(own):
    task = digits(model="mlp4", width=0.25)
    data = task.load().sealed()
    start = [task.build(data) for _ in range(3)]
    split = data.train.subset(torch.arange(96))
    settings = Settings(epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.05)
    trained = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for way in WAYS:
        group = Group(copy.deepcopy(start), way=way, own_inputs=own)
        fit(group, split, settings, (), Surroundings(task, torch.device("cpu"), Meter()))
        trained[way] = group.state_dict()
    torch.set_num_threads(threads)
    moved = start[0].state_dict()["linear1.weight"]
    assert not torch.equal(trained["one_by_one"]["members.0.linear1.weight"], moved)
    for name, value in trained["one_by_one"].items():
        assert torch.equal(value, trained["threads"][name]), name
        for way in ("batched", "auto"):
            assert torch.allclose(value, trained[way][name], atol=1e-3), (way, name)
