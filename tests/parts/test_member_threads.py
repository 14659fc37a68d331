import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from whit.errors import WhitError
from whit.measure.meter import forward_macs
from whit.methods.low_bit.binarized_network import binarize
from whit.parts.group import Group


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def member(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3),
        )  # fmt: skip


def batch(seed, own=False):
    shape = (3, 6, 1, 4, 4) if own else (6, 1, 4, 4)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("change", [lambda m: m, binarize])
def test_threads_equal_the_loop_bit_for_bit(own, change):
    loop = Group([change(member(k)) for k in range(3)], own_inputs=own).train()
    loop.members[2][5].bias.requires_grad_(False)
    threads = copy.deepcopy(loop)
    threads.way = "threads"
    for group in (loop, threads):
        optimizer = torch.optim.AdamW([p for p in group.parameters() if p.requires_grad])
        for step in range(4):
            optimizer.zero_grad()
            group(batch(step, own)).square().mul(torch.arange(1.0, 4.0)).mean().backward()
            optimizer.step()
    for (name, a), b in zip(loop.state_dict().items(), threads.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(loop.eval()(batch(9, own)), threads.eval()(batch(9, own)))


def test_gradients_reach_the_inputs():
    group = Group([member(k) for k in range(3)], way="threads")
    x, y = batch(0).requires_grad_(), batch(0).requires_grad_()
    group(x).square().sum().backward()
    group.way = "one_by_one"
    group(y).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, rtol=1e-4, atol=1e-5)


class Where(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.threads, self.backward_threads = [], []

    def forward(self, x):
        self.threads.append(threading.current_thread().name)
        self.torch_threads = torch.get_num_threads()
        y = x * self.weight
        if y.requires_grad:
            y.register_hook(
                lambda gradient: self.backward_threads.append(threading.current_thread().name)
            )
        return y


def test_forward_and_backward_run_in_the_pool_only_while_training():
    torch.set_num_threads(2)
    group = Group([Where(), Where()], way="threads")
    group(torch.ones(2, 2)).sum().backward()
    assert torch.get_num_threads() == 2
    here = threading.current_thread().name
    for m in group.members:
        assert m.threads[0].startswith("whit-member") and m.torch_threads == 1
        assert m.backward_threads[0].startswith("whit-member")
    with torch.no_grad():
        group(torch.ones(2, 2))
    group.eval()(torch.ones(2, 2))
    assert all(m.threads[1:] == [here, here] for m in group.members)


def test_a_group_in_a_group_does_not_wait_for_itself():
    inner = [Group([Where() for _ in range(3)], way="threads") for _ in range(4)]
    group = Group(inner, way="threads")
    group(torch.ones(2, 2)).sum().backward()
    assert all(float(w.weight.grad) == 4 for g in inner for w in g.members)


def test_macs_are_those_of_the_loop():
    group = Group([member(k) for k in range(3)])
    expected = forward_macs(group, batch(0))
    group.way = "threads"
    assert forward_macs(group, batch(0)) == expected
    with FlopCounterMode(display=False) as counter:
        group.train()(batch(0))
    assert counter.get_total_flops() == 2 * expected


def test_random_numbers_are_refused_and_the_stream_put_back():
    group = Group([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)) for _ in range(2)])
    group.way = "threads"
    before = torch.get_rng_state()
    with pytest.raises(WhitError, match=r"draws random numbers \(its module '1', it seems\)"):
        group(torch.ones(3, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert group.eval()(torch.ones(3, 2)).shape == (2, 3, 2)


def test_shared_tensors_are_refused():
    shared = nn.Linear(2, 2)
    with pytest.raises(WhitError, match="members 0 and 1 that share '0.weight'"):
        Group([nn.Sequential(shared), nn.Sequential(shared)], way="threads")


class Foreign(nn.Module):
    def __init__(self, other):
        super().__init__()
        self.others = [other]

    def forward(self, x):
        return self.others[0](x)


def test_a_trained_tensor_from_outside_is_refused():
    members = [Foreign(nn.Linear(2, 2)), Foreign(nn.Linear(2, 2))]
    with pytest.raises(WhitError, match=r"uses a trained tensor of shape \[2"):
        Group(members, way="threads")(torch.ones(3, 2))


def test_another_device_is_refused():
    group = Group([nn.Linear(2, 2, device="meta"), nn.Linear(2, 2, device="meta")], way="threads")
    with pytest.raises(WhitError, match="tensors on meta; threads are for the CPU"):
        group(torch.ones(3, 2, device="meta"))


def test_an_error_of_a_member_is_its_own():
    group = Group([nn.Linear(2, 2), nn.Linear(3, 2)], way="threads")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        group(torch.ones(4, 2))
    assert torch.get_num_threads() == 1


def test_gradients_of_gradients_are_refused():
    group = Group([member(0)], way="threads")
    parameters = list(group.parameters())
    found = torch.autograd.grad(group(batch(0)).square().sum(), parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found[0].sum().backward()
