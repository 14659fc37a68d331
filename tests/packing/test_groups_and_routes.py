"""Groups and routes: the same outputs as torch, and clear words where they cannot be packed."""

import numpy as np
import pytest
import torch
from packing_networks import Function, check, dyadic, kinds, on_grid, randomise, raw, torch_output
from torch import nn

from whit.errors import CannotPack
from whit.packing import pack
from whit.parts.group import Group
from whit.parts.normalise import Normalise
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule, Route
from whit.parts.straight_through import Sign

MEAN_OF_MEMBERS = {
    "softmax": lambda x: x.softmax(-1).mean(0),
    "logits": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "maximum": lambda x: x.amax(0),
    "log": lambda x: x.log_softmax(dim=2).mean(dim=0),
}


def member(width=12, classes=4):
    return randomise(
        nn.Sequential(
            nn.Linear(10, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes)
        )
    )


def vectors(count=50):
    return torch.randn(count, 10)


@pytest.mark.parametrize("way", ["one_by_one", "batched"])
def test_a_group_gives_members_on_a_leading_axis(way):
    x = vectors()
    packed = check(Group([member() for _ in range(3)], way=way), x)
    assert packed.program.leading == 1
    assert packed.program.output_shape == (3, 4)
    assert packed.program(x.numpy()).shape == (3, 50, 4)
    assert [layer.module for layer in packed.layers] == [
        f"members.{k}.{place}" for k in range(3) for place in (0, 3)
    ]


def test_members_of_different_kinds_and_outputs_with_several_axes():
    first = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(1, 3, 5, padding=2, bias=False), nn.BatchNorm2d(3), nn.Tanh())
    packed = check(Group([first, randomise(second)]), torch.randn(6, 1, 8, 8))
    assert packed.program.output_shape == (2, 3, 8, 8)


@pytest.mark.parametrize("way", ["one_by_one", "batched"])
@pytest.mark.parametrize("name", MEAN_OF_MEMBERS)
def test_a_group_inside_of_a_model_is_combined(name, way):
    group = Group([member() for _ in range(3)], way=way)
    model = nn.Sequential(Normalise(0.5, 2.0), group, Function(MEAN_OF_MEMBERS[name]))
    packed = check(model, vectors())
    assert packed.program.leading == 0
    assert [layer.module for layer in packed.layers][0] == "1.members.0.0"


def test_a_group_of_one_and_a_group_of_groups():
    check(Group([member()]), vectors())
    inner = nn.Sequential(Group([member(), member()]), Function(lambda x: x.mean(0)))
    check(Group([inner, member()]), vectors())


def test_a_group_of_sign_networks_is_bit_identical():
    def signs():
        return nn.Sequential(
            on_grid(nn.Linear(10, 8), 1), nn.BatchNorm1d(8), Sign(), on_grid(nn.Linear(8, 3), 0)
        )

    x = torch.randint(-8, 9, (40, 10)).float()
    check(Group([dyadic(signs()) for _ in range(2)], way="batched"), x, exact=True)


RULES = {
    "margin": lambda: (MarginRule(0.3), [(0,), (1,)]),
    "margin_several": lambda: (MarginRule(0.5), [(0,), (0, 1, 2)]),
    "nothing_sent_on": lambda: (MarginRule(0.0), [(0,), (2,)]),
    "all_sent_on": lambda: (MarginRule(1.1), [(0,), (1, 2)]),
    "groups": lambda: (GroupSumRule([[0, 1], [2, 3]], 0.6), [(0,), (0, 1), (2,)]),
    "some_classes_unknown": lambda: (GroupSumRule([[2], [0]], 0.9), [(0,), (2,), (1, 0)]),
    "not_the_first": lambda: (MarginRule(0.3), [(1,), (2, 1)]),
    "a_temperature": lambda: (MarginRule(0.3, temperature=2.5), [(0,), (1, 2)]),
    "groups_and_a_temperature": lambda: (
        GroupSumRule([[0, 1], [2, 3]], 0.6, temperature=0.5),
        [(0,), (0, 1), (2,)],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_route_answers_like_torch(name):
    rule, strategies = RULES[name]()
    x = vectors(200)
    model = nn.Sequential(
        Normalise(0.5, 2.0), Route([member() for _ in range(3)], rule, strategies)
    )
    packed = check(model, x)
    assert kinds(packed)[-1] == "route"
    used = {k for strategy in strategies for k in strategy if k}
    assert kinds(packed).count("member") == len(used)
    assert {layer.module.split(".")[2] for layer in packed.layers} == {"0", *map(str, used)}


def test_a_route_that_is_the_whole_model_has_the_paths_of_its_members():
    rule, strategies = RULES["groups"]()
    packed = check(Route([member() for _ in range(3)], rule, strategies), vectors())
    assert [layer.module for layer in packed.layers][:2] == ["members.0.0", "members.0.3"]


@pytest.mark.parametrize("wrap", [False, True])
def test_a_head_on_the_features_decides(wrap):
    head = nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3))
    rule = FeatureRule(randomise(head), 4, margin=0.1, temperature=0.5)
    x = vectors(200)
    route = Route([member() for _ in range(3)], rule, [(0,), (1,), (0, 2), (2,)])
    situations = route.eval().route(x)
    assert set(situations.tolist()) == {0, 1, 2, 3}
    packed = check(nn.Sequential(Normalise(0.0, 1.0), route) if wrap else route, x)
    before = "1." if wrap else ""
    assert [layer.module for layer in packed.layers][:4] == [
        before + path for path in ("members.0.0", "members.0.3", "rule.head.0", "rule.head.2")
    ]
    # The features are those that member 0 computes for its scores: nothing runs twice.
    assert kinds(packed).count("linear") == 3 * 2 + 2


def test_a_route_behind_features_and_before_more_layers():
    rule, strategies = RULES["groups"]()
    route = Route([member() for _ in range(3)], rule, strategies)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), route, nn.Softmax(dim=1))
    check(model, torch.randn(90, 6))


def test_a_group_inside_of_a_route_and_a_route_inside_of_a_route():
    rule, strategies = RULES["margin"]()
    group = Group([member(), member()], way="batched")
    voting = nn.Sequential(group, Function(lambda x: x.softmax(-1).mean(0).clamp_min(1e-6)))
    inner = Route([member(), member()], MarginRule(0.6), [(0,), (1,)])
    x = vectors(120)
    check(Route([member(), voting], rule, strategies), x)
    check(Route([member(), inner, voting], MarginRule(0.4), [(0,), (1, 2)]), x)
    check(Route([inner, member()], MarginRule(0.4), [(0,), (1,)]), x)


def test_a_route_of_image_networks_with_integers_inside():
    def network(width):
        return nn.Sequential(
            Normalise(128.0, 128.0),
            on_grid(nn.Conv2d(1, width, 3), 1),
            nn.BatchNorm2d(width),
            Sign(),
            nn.Flatten(),
            on_grid(nn.Linear(width * 36, 3), 0, 1 / 32),
        )

    x = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    model = Route([dyadic(network(2)), dyadic(network(5))], MarginRule(0.5), [(0,), (1,)])
    packed = check(model, x, tolerance=1e-6)
    assert packed.program.input.dtype == "uint8"


def test_the_trained_model_and_its_stub_stay_apart():
    model = nn.Sequential(Group([member(), member()]), Function(lambda x: x.mean(0)))
    x = vectors()
    before = torch_output(model, x)
    pack(model, x)
    assert isinstance(model[0], Group)
    np.testing.assert_array_equal(torch_output(model, x), before)
    np.testing.assert_allclose(pack(model, x).program(raw(x)), before, atol=1e-5)


class OwnRule(nn.Module):
    situations = 2

    def forward(self, scores):
        return (scores[:, 0] > 0).long()


def test_a_rule_of_ones_own_is_refused():
    model = nn.Sequential(Route([member(), member()], OwnRule(), [(0,), (1,)]))
    with pytest.raises(CannotPack, match="OwnRule cannot be written; use MarginRule, ") as caught:
        pack(model, vectors())
    assert caught.value.module == "0"


@pytest.mark.parametrize("way", ["one_by_one", "batched"])
def test_own_inputs_are_refused_with_the_way_out(way):
    group = Group([member(), member()], way=way, own_inputs=True)
    with pytest.raises(CannotPack, match=r"group.own_inputs = False"):
        pack(group, torch.randn(2, 5, 10))
    model = nn.Sequential(nn.Linear(10, 10), group)
    with pytest.raises(CannotPack, match=r"group.own_inputs = False") as caught:
        pack(model, vectors())
    assert caught.value.module == "1"
    group.own_inputs = False
    check(model, vectors())


def test_a_group_that_is_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.group = Group([member(), member()])

        def forward(self, x):
            return self.group(x) + self.group(x + 1)

    with pytest.raises(CannotPack, match="called 2 times") as caught:
        pack(Twice(), vectors())
    assert caught.value.module == "group"


def test_a_group_with_two_inputs_is_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.group = Group([Two(), Two()])

        def forward(self, x):
            return self.group(x, x + 1)

    with pytest.raises(CannotPack, match="2 inputs"):
        pack(Model(), vectors())


@pytest.mark.parametrize("wrap", [Group, lambda m: Route(m, MarginRule(0.5), [(0,), (1,)])])
def test_an_error_inside_of_a_member_names_its_place(wrap):
    bad = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Flatten(), nn.Mish(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Identity(), wrap([member(), bad]))
    with pytest.raises(CannotPack, match=r"module '1\.members\.1\.3', operator mish"):
        pack(model, vectors())
    with pytest.raises(CannotPack, match=r"module 'members\.1\.3', operator mish"):
        pack(model[1], vectors())


def test_members_cannot_be_reshaped():
    model = nn.Sequential(Group([member(), member()]), Function(lambda x: x.flatten(1)))
    with pytest.raises(CannotPack, match="members|batch"):
        pack(model, vectors())


def test_members_and_a_single_output_cannot_meet():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.group, self.other = Group([member(), member()]), member()

        def forward(self, x):
            return self.group(x) + self.other(x)

    with pytest.raises(CannotPack, match="members and single outputs meet"):
        pack(Model(), vectors())


def test_a_wrong_example_is_explained():
    with pytest.raises(CannotPack, match="fails on the example"):
        pack(Group([member(), member()]), torch.randn(4, 7))
