import copy
from collections import Counter

import pytest
import torch
from torch import nn

from whit.errors import NotApplicable, SpecError
from whit.parts.modular_network import (
    ModularNetwork,
    cut_into_stages,
    draw_routes,
    share_modules,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chain(seed, normed=True):
    torch.manual_seed(seed)
    norms = [nn.BatchNorm1d(6) if normed else nn.Identity() for _ in range(2)]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(8, 6), norms[0], nn.ReLU(),
        nn.Linear(6, 6), norms[1], nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def stages(modules=2, count=3):
    torch.manual_seed(0)
    return [[nn.Linear(4, 4) for _ in range(modules)] for _ in range(count)]


@pytest.mark.parametrize("sizes, students", [([2, 2, 2], 8), ([3, 1, 2], 4), ([4, 4], 4), ([1], 1)])
def test_routes_are_repeatable_distinct_and_use_every_module(sizes, students):
    for seed in range(30):
        routes = draw_routes(sizes, students, generator(seed))
        assert routes == draw_routes(sizes, students, generator(seed))
        assert len(routes) == students == len(set(routes))
        for stage, size in enumerate(sizes):
            assert {route[stage] for route in routes} == set(range(size))
    assert len({tuple(draw_routes([2, 2, 2], 4, generator(s))) for s in range(20)}) > 10


def test_more_students_than_routes_repeat_some_after_all_are_taken():
    routes = draw_routes([2, 2], 6, generator())
    assert len(set(routes)) == 4 and len(routes) == 6


def test_modules_are_used_about_equally():
    counts = Counter(r[1] for seed in range(300) for r in draw_routes([3] * 4, 6, generator(seed)))
    assert all(abs(counts[m] / 300 - 2) < 0.15 for m in range(3))


def test_more_modules_than_students_are_refused():
    with pytest.raises(SpecError, match="at least as many students"):
        draw_routes([2, 4], 3, generator())


def test_shared_beginnings_are_computed_once_and_change_nothing():
    made = stages()
    routes = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]
    network = ModularNetwork.of_stages(made, routes).eval()
    ran = Counter()
    for row in made:
        for module in row:
            module.register_forward_hook(lambda m, i, o: ran.update([id(m)]))
    x = torch.randn(5, 4)
    together = network(x)
    prefixes = {route[: n + 1] for route in routes for n in range(3)}
    assert sum(ran.values()) == network.calls == len(prefixes) == 9
    for k in range(4):
        assert torch.equal(network.students[k](x), together[k])
    assert ModularNetwork.of_stages(stages(1), [(0, 0, 0)])(x).shape == (1, 5, 4)


def test_one_student_calls_each_stage_once():
    network = ModularNetwork.of_stages(stages(1), [(0, 0, 0)])
    network(torch.randn(2, 4))
    assert network.calls == 3


def test_shared_parameters_count_once_and_unused_ones_not_at_all():
    models = [chain(k) for k in range(4)]
    head = sum(p.numel() for p in models[0][7].parameters())
    body = sum(p.numel() for p in models[0].parameters()) - head
    names = cut_into_stages(models[0], 2)[:-1]
    network = share_modules(models, names, [(0, 0), (1, 1), (0, 1), (1, 0)])
    assert sum(p.numel() for p in network.parameters()) == 2 * body + 4 * head


def test_shared_modules_get_the_gradients_of_all_their_students():
    made = stages()
    network = ModularNetwork.of_stages([made[0][:1], *made[1:]], [(0, 0, 0), (0, 1, 1)])
    network(torch.ones(2, 4)).sum().backward()
    first = network.students[0][0].weight
    found = first.grad.clone()
    apart = torch.zeros_like(found)
    for student in network.students:
        first.grad = None
        student(torch.ones(2, 4)).sum().backward()
        apart += first.grad
    assert torch.allclose(found, apart)


def test_a_chain_is_cut_at_its_weights():
    assert cut_into_stages(chain(0), 2) == [["0", "1", "2", "3"], ["4", "5", "6"], ["7"]]
    assert cut_into_stages(chain(0), 5) == cut_into_stages(chain(0), 2)
    assert cut_into_stages(chain(0), 1) == [["0", "1", "2", "3", "4", "5", "6"], ["7"]]


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize(
    "model, reason",
    [(nn.Linear(2, 2), "Linear"), (Residual(nn.Linear(2, 2)), "Residual"),
     (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "two or more")],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_in_words(model, reason):
    with pytest.raises(NotApplicable, match=reason):
        cut_into_stages(model, 2)


@pytest.mark.parametrize(
    "routes, reason",
    [([(0, 0)], "one number a stage"), ([(0, 0, 2)], "counted from 0"),
     ([(0, 0, 0), (0, 1, 1)], "module 1 of stage 0")],
)  # fmt: skip
def test_routes_that_do_not_fit_are_refused(routes, reason):
    with pytest.raises(SpecError, match=reason):
        ModularNetwork.of_stages(stages(), routes)


def test_no_students_and_no_chains_are_refused():
    for given in ([], [nn.Linear(2, 2)]):
        with pytest.raises(SpecError, match=r"torch\.nn\.Sequential"):
            ModularNetwork(given)


def test_own_norms_share_weights_alone():
    models = [chain(k) for k in range(3)]
    own_norms = [[m[2], m[5]] for m in models]
    names = cut_into_stages(models[0], 2)[:-1]
    network = share_modules(models, names, [(0, 0), (0, 0), (0, 0)], own_norms=True)
    for k, student in enumerate(network.students):
        assert student[1] is network.students[0][1] and student[4] is network.students[0][4]
        assert student[2] is own_norms[k][0] and student[5] is own_norms[k][1]
    network.eval()(torch.randn(4, 8))
    assert network.calls == 2 + 3 * 6, "the common beginning ends at the first norm"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.linear(x))


def test_norms_inside_a_shared_block_are_the_students_own():
    models = [nn.Sequential(Block(), nn.Linear(4, 2)) for _ in range(2)]
    norms = [m[0].norm for m in models]
    network = share_modules(models, [["0"]], [(0,), (0,)], own_norms=True)
    a, b = (student[0] for student in network.students)
    assert a is not b and a.linear.weight is b.linear.weight
    assert a.norm is norms[0] and b.norm is norms[1]
    a.norm.running_mean.fill_(3.0)
    assert float(b.norm.running_mean.sum()) == 0
    again = copy.deepcopy(network)
    assert again.students[0][0].linear.weight is again.students[1][0].linear.weight


def test_only_active_students_run_and_only_while_training():
    network = ModularNetwork.of_stages(stages(), [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
    network.active = (0, 2)
    x = torch.randn(2, 4)
    out = network(x)
    assert out.shape == (2, 2, 4) and torch.equal(out[1], network.students[2](x))
    assert network.eval()(x).shape == (3, 2, 4)


def test_a_student_leaves_as_a_plain_chain_of_its_own():
    network = ModularNetwork.of_stages(stages(), [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
    x = torch.randn(2, 4)
    before = network(x)[2]
    student = network.student(2)
    assert type(student) is nn.Sequential and torch.equal(student(x), before)
    with torch.no_grad():
        student[0].weight.zero_()
    assert torch.equal(network(x)[2], before)
