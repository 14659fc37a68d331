import copy
import inspect

import pytest
import torch
from torch import nn

from whit.core.data import Split
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule, Route
from whit.procedures.reflection.answers import answers_of
from whit.procedures.reflection.collaborative_group import CollaborativeGroup
from whit.procedures.reflection.prototypes import prototype_pictures

NAMES = ("a", "b", "c", "d")


def network(seed=0):
    torch.manual_seed(seed)
    found = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        found[3].weight.mul_(6)  # surer of itself than at the start
        centre = found[:3](samples(seed=99).inputs[0]).mean(0)
        found[3].bias.copy_(-(found[3].weight @ centre))
    return found


def samples(count=80, seed=0):
    draws = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 6, 6), generator=draws, dtype=torch.uint8)
    return Split((images.float() / 64,), torch.arange(count) % 4)


def some_route(margin=0.5, strategies=((0,), (0, 1), (2,))):
    members = [network(k) for k in range(3)]
    return Route(members, GroupSumRule([[0, 1], [2, 3]], margin), strategies)


def group_of(route=None):
    return CollaborativeGroup(route or some_route(), samples(), NAMES)


def test_probabilities_sum_to_one_and_agree_with_the_route():
    group, x = group_of(), samples(seed=1).inputs[0]
    proba = group.predict_proba(x)
    assert torch.allclose(proba.sum(1), torch.ones(80), atol=1e-5)
    assert torch.equal(group.predict(x), group.network(x).argmax(-1))
    assert torch.equal(group.route(x), group.network.route(x))
    assert len(set(group.route(x).tolist())) == 3, "all situations come about"


def test_explanations_say_what_the_route_does():
    group, x = group_of(), samples(seed=1).inputs[0]
    told = group.explain(x)
    situations, classes = group.route(x), group.predict(x)
    for i, one in enumerate(told):
        situation = int(situations[i])
        assert one["situation"] == group.names[situation]
        assert one["members"] == group.network.strategies[situation]
        assert one["class"] == NAMES[int(classes[i])]
        assert (one["margin"] >= 0.5) == (situation == 0)
        first, second = one["prototypes"]
        assert first["distance"] <= second["distance"] and first["sample"] != second["sample"]
        assert first["class"] == NAMES[first["sample"] % 4]
    assert group.names[0] == "familiar"
    assert group.names[1] in ("a or b",) and group.names[2] in ("c or d",)


def test_a_prototype_is_nearest_to_itself():
    group = group_of()
    number = group.prototypes(1)[0]
    told = group.explain(group.samples.inputs[0][number : number + 1])[0]
    assert told["prototypes"][0]["sample"] == number
    assert told["prototypes"][0]["distance"] == pytest.approx(0, abs=1e-3)


def test_no_method_that_answers_takes_a_label():
    for name in ("predict_proba", "predict", "route", "explain"):
        parameters = inspect.signature(getattr(CollaborativeGroup, name)).parameters
        assert list(parameters) == ["self", "inputs"]
    with pytest.raises(TypeError):
        group_of().route(samples().inputs[0], target=samples().target)


def test_the_report_is_consistent_and_below_the_oracle():
    # With one member for each situation: a mean may be right where no member is.
    group, held = group_of(some_route(strategies=((0,), (1,), (2,)))), samples(seed=2)
    *rows, total = group.report(held)
    assert sum(row["share"] for row in rows) == pytest.approx(1) == total["share"]
    for key in ("first", "group", "oracle"):
        parts = sum(row["share"] * row[key] for row in rows)
        assert parts == pytest.approx(total[key])
    assert all(max(row["first"], row["group"]) <= row["oracle"] for row in [*rows, total])
    assert total["group"] == pytest.approx(
        float((group.predict(held.inputs[0]) == held.target).double().mean())
    )
    assert rows[0]["first"] == rows[0]["group"]


def test_a_situation_without_samples_has_no_accuracy():
    rows = group_of(some_route(margin=0.0)).report(samples(seed=2))
    assert rows[1] == {"situation": rows[1]["situation"], "share": 0.0, "members": "0 + 1",
                       "first": None, "group": None, "oracle": None}  # fmt: skip


def test_members_run_as_often_as_the_route_implies():
    group, held = group_of(), samples(seed=3)
    counts = [0, 0, 0]
    handles = []
    for k, member in enumerate(group.network.members):

        def count(module, arguments, k=k):
            counts[k] += len(arguments[0])

        handles.append(member.register_forward_pre_hook(count))
    group.network(*held.inputs)
    for handle in handles:
        handle.remove()
    assert [c / len(held) for c in counts] == group.calls_per_input(held)
    assert counts[0] == len(held) and 0 < counts[1] < len(held)


@pytest.mark.parametrize("margin, strategies", [
    (0.0, ((0,), (1,), (2,))), (2.0, ((0,), (0,), (0,))), (0.5, ((0,), (0,), (0,))),
])  # fmt: skip
def test_without_a_say_of_the_others_the_group_is_the_first_network_bit_for_bit(margin, strategies):
    route = some_route(margin, strategies)
    x = samples(seed=4).inputs[0]
    assert torch.equal(route(x), route.members[0](x))


def test_copies_of_the_first_network_give_its_classes():
    first = network()
    members = [first, copy.deepcopy(first), copy.deepcopy(first)]
    rule = GroupSumRule([[0, 1], [2, 3]], 0.5)
    route = Route(members, rule, ((0,), (0, 1, 2), (1, 2)))
    x = samples(seed=5).inputs[0]
    assert torch.equal(route(x).argmax(-1), first(x).argmax(-1))


def test_other_rules_are_told_too():
    members = [network(k) for k in range(2)]
    for rule in (MarginRule(0.4), FeatureRule(nn.Linear(8, 1), 2, 0.4)):
        group = group_of(Route(members, rule, ((0,), (1,))))
        told = group.explain(samples(seed=1).inputs[0][:5])
        assert [t["situation"] for t in told] == [
            group.names[int(s)] for s in group.route(samples(seed=1).inputs[0][:5])
        ]
    names = group.names
    assert names[0] == "familiar" and " or " in names[1]


def test_pictures_of_prototypes_are_bytes_and_of_images_only():
    group = group_of()
    pictures = prototype_pictures(group)
    assert 0 < len(pictures) <= 32
    array, text = pictures[0]
    assert array.shape == (6, 6) and str(array.dtype) == "uint8"
    assert text.startswith("familiar: ")
    images = group.samples.inputs[0]
    shown = images[group.prototypes(0)[0], 0]
    # All pictures have the scale of all samples, so they can be compared.
    scaled = (shown - images.min()) / (images.max() - images.min()) * 255
    assert array.tolist() == scaled.double().round().tolist()
    vectors = Split((samples().inputs[0].flatten(1),), samples().target)
    assert prototype_pictures(CollaborativeGroup(some_route(), vectors, NAMES)) == []


def test_asking_leaves_the_modes_of_a_network_as_they_were():
    first = network().train()
    first[1].eval()
    answers = answers_of(first, samples())
    assert first.training and not first[1].training and first[2].training
    assert answers.features.shape == (80, 8) and answers.scores.shape == (80, 4)
    assert torch.equal(answers.chances(2.0), (answers.scores / 2).softmax(-1))
