import math

import pytest
import torch
from torch import nn

from whit.errors import SpecError
from whit.procedures.reflection.calibration import (
    NOTHING_FAMILIAR,
    familiar_margin,
    fit_temperature,
    margins,
)
from whit.procedures.reflection.division import divide
from whit.procedures.reflection.gate import fit_gate
from whit.procedures.reflection.situations import (
    centroid_head,
    cut_classes,
    group_chances,
    situation_name,
    soft_confusion,
)
from whit.procedures.reflection.specialists import specialist_weights
from whit.procedures.reflection.strategies import (
    choose_strategies,
    member_calls,
    oracle_accuracy,
    routed_chances,
    subsets,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parts_are_disjoint_and_hold_every_class_in_proportion():
    target = torch.arange(1200) % 4
    parts = divide(target, (10, 1, 1), draws())
    assert [len(p) for p in parts] == [1000, 100, 100]
    assert torch.cat(parts).sort().values.equal(torch.arange(1200))
    for part in parts:
        assert set(target[part].bincount().tolist()) == {len(part) // 4}
    again, other = divide(target, (10, 1, 1), draws()), divide(target, (10, 1, 1), draws(1))
    assert all(map(torch.equal, parts, again)) and not torch.equal(parts[1], other[1])


def test_a_class_that_would_miss_from_a_part_is_refused():
    target = torch.cat([torch.zeros(100), torch.ones(3)]).long()
    with pytest.raises(SpecError, match="Class 1 has 3 samples"):
        divide(target, (10, 1, 1), draws())
    with pytest.raises(SpecError, match="shares"):
        divide(target, (1, 0), draws())


def test_the_temperature_of_scores_that_are_too_sure_is_found():
    true = torch.randn(20000, 3, generator=draws())
    target = torch.multinomial(true.softmax(-1), 1, generator=draws(1)).squeeze(1)
    assert fit_temperature(3 * true, target) == pytest.approx(3, rel=0.05)
    assert fit_temperature(0.5 * true, target) == pytest.approx(0.5, rel=0.05)


def test_the_familiar_margin_is_the_smallest_that_is_precise_enough():
    margin = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.5, 0.3])
    correct = torch.tensor([True, True, True, True, False, True])
    assert familiar_margin(margin, correct, 1.0) == pytest.approx(0.7)
    low = torch.tensor([0.9, 0.4, 0.1]), torch.tensor([True, True, False])
    assert familiar_margin(*low, 1.0) == pytest.approx(0.4)
    assert familiar_margin(margin, correct, 0.8) == 0, "5 of 6, all of them"
    assert familiar_margin(margin, correct, 0) == 0
    assert familiar_margin(margin, ~correct | correct, 0.999) == 0
    assert familiar_margin(margin, correct & ~correct) == NOTHING_FAMILIAR
    # Equal margins stay together: the right one of the two at 0.5 is not familiar alone.
    tie = torch.tensor([0.5, 0.5]), torch.tensor([True, False])
    assert familiar_margin(*tie, 0.9) == NOTHING_FAMILIAR
    for wrong in (1.5, -1, math.nan):
        with pytest.raises(SpecError, match="precision"):
            familiar_margin(margin, correct, wrong)


def test_soft_confusion_equals_the_sum_written_out():
    chances = torch.rand(40, 3, generator=draws()).double().softmax(-1)
    target = torch.arange(40) % 3
    found = soft_confusion(chances, target)
    for i in range(3):
        for j in range(3):
            expected = chances[target == i, j].sum() + chances[target == j, i].sum()
            assert float(found[i, j]) == pytest.approx(float(expected) if i != j else 0.0)


@pytest.mark.parametrize("method", ["spectral", "linkage"])
def test_a_planted_confusion_is_found_for_any_order_of_the_classes(method):
    planted = torch.zeros(6, 6, dtype=torch.float64)
    for i, j, weight in ((0, 1, 5.0), (2, 3, 4.0), (3, 4, 3.0), (2, 5, 1.0)):
        planted[i, j] = planted[j, i] = weight
    for seed in range(20):
        order = torch.randperm(6, generator=draws(seed))
        found = cut_classes(planted[order][:, order], 2, method)
        assert {frozenset(order[g].tolist()) for g in found} == {
            frozenset({0, 1}), frozenset({2, 3, 4, 5})
        }  # fmt: skip


@pytest.mark.parametrize("method", ["spectral", "linkage"])
@pytest.mark.parametrize("groups", [1, 2, 3, 5])
def test_without_any_confusion_groups_are_still_disjoint_and_not_empty(method, groups):
    found = cut_classes(torch.zeros(5, 5), groups, method)
    assert len(found) == groups and all(found)
    assert sorted(c for g in found for c in g) == list(range(5))


def test_cuts_that_cannot_be_are_refused():
    for groups in (0, 6):
        with pytest.raises(SpecError, match="5 classes"):
            cut_classes(torch.zeros(5, 5), groups)
    with pytest.raises(SpecError, match="linkage"):
        cut_classes(torch.zeros(5, 5), 2, "linkge")


def test_the_head_of_centroids_names_the_nearest():
    features = torch.cat([torch.randn(30, 4, generator=draws(k)) + 8 * k for k in range(3)])
    head = centroid_head(features, 3, seed=0)
    nearest = torch.cdist(features, head.weight).argmin(1)
    assert torch.equal(head(features).argmax(1), nearest)
    assert sorted(nearest.bincount().tolist()) == [30, 30, 30]
    with pytest.raises(SpecError, match="uncertain samples"):
        centroid_head(features[:2], 3, seed=0)


def test_situations_are_named_by_their_strongest_pair():
    confusion = torch.zeros(4, 4)
    confusion[1, 3] = confusion[3, 1] = 2
    confusion[0, 2] = confusion[2, 0] = 5
    names = ("a", "b", "c", "d")
    assert situation_name(confusion, names) == "a or c"
    assert situation_name(confusion, names, [1, 2, 3]) == "b or d"
    assert situation_name(confusion, names, [2]) == "c"


def test_weights_of_a_specialist_are_even_over_the_classes_of_its_group():
    target = torch.tensor([0, 0, 0, 1, 2, 2])
    unsure = torch.tensor([0.9, 0.6, 0.3, 0.4, 0.5, 0.5])
    belongs = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.1, 0.1])
    weights = specialist_weights(unsure, belongs, target, [0, 1], eps=0.1) - 0.1
    assert float(weights[:3].sum()) == pytest.approx(float(weights[3])) == pytest.approx(1.0)
    assert weights[:3].tolist() == pytest.approx([0.5, 1 / 3, 1 / 6])
    assert weights[4:].tolist() == pytest.approx([0.05, 0.05]), "outside nothing is scaled"
    with pytest.raises(SpecError, match="eps"):
        specialist_weights(unsure, belongs, target, [0], eps=-1)
    with pytest.raises(SpecError, match="no sample is unsure"):
        specialist_weights(unsure * 0, belongs, target, [0], eps=0)


def some_chances(members=3, samples=200, classes=4, seed=0):
    return torch.randn(members, samples, classes, generator=draws(seed)).softmax(-1)


def test_chosen_strategies_are_the_best_of_all_subsets_and_never_worse_than_the_first():
    target = torch.randint(4, (200,), generator=draws(5))
    for seed in range(5):
        chances = some_chances(seed=seed)
        situations = torch.randint(3, (200,), generator=draws(9 + seed))
        chosen = choose_strategies(chances, situations, target, 3)
        for situation, strategy in enumerate(chosen):
            here = situations == situation
            right = {
                s: int((chances[list(s)][:, here].mean(0).argmax(-1) == target[here]).sum())
                for s in subsets(3)
            }
            assert right[strategy] == max(right.values())
        routed = routed_chances(chances, situations, chosen)
        right = float((routed.argmax(-1) == target).double().mean())
        assert right >= float((chances[0].argmax(-1) == target).double().mean())


def test_ties_between_strategies_go_to_the_likelier_then_the_smaller():
    target = torch.zeros(10, dtype=torch.int64)
    unsure, sure = torch.tensor([0.6, 0.4]), torch.tensor([0.9, 0.1])
    chances = torch.stack([unsure, sure]).unsqueeze(1).expand(2, 10, 2)
    everywhere = torch.zeros(10, dtype=torch.int64)
    assert choose_strategies(chances, everywhere, target, 2) == ((1,), (0,)), "1 has no samples"
    copies = chances[:1].expand(3, 10, 2)
    assert choose_strategies(copies, everywhere, target, 1) == ((0,),)


def test_the_oracle_is_right_where_any_member_is():
    target = torch.tensor([0, 1, 1])
    outputs = nn.functional.one_hot(torch.tensor([[0, 0, 0], [1, 1, 0]]), 2).float()
    assert oracle_accuracy(outputs, target) == pytest.approx(2 / 3)


def test_calls_are_counted_by_situation():
    situations = torch.tensor([0, 0, 0, 1, 1, 2])
    assert member_calls(situations, ((0,), (0, 2), (1, 2)), 3).tolist() == [6, 1, 3]


def test_subsets_are_limited():
    assert len(subsets(4)) == 15
    with pytest.raises(SpecError, match="11 members"):
        subsets(11)


def test_the_gate_learns_who_is_right():
    features = torch.randn(400, 3, generator=draws()) * 5 + 2
    target = torch.zeros(400, dtype=torch.int64)
    second = (features[:, 1] > 2)[:, None]
    good, bad = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
    chances = torch.stack([torch.where(second, bad, good), torch.where(second, good, bad)])
    gate = fit_gate(features, chances, target)
    agreement = (gate(features).argmax(1) == second.squeeze(1).long()).double().mean()
    assert float(agreement) > 0.97
    assert torch.equal(gate.weight, fit_gate(features, chances, target).weight)


def test_margins_and_group_chances():
    chances = torch.tensor([[0.5, 0.3, 0.2]])
    assert float(margins(chances)) == pytest.approx(0.2)
    assert group_chances(chances, [[1, 2], [0]])[0].tolist() == pytest.approx([0.5, 0.5])


def test_a_gate_with_a_hidden_layer_learns_what_a_linear_one_cannot():
    features = torch.randn(400, 3, generator=draws()) * 5 + 2
    target = torch.zeros(400, dtype=torch.int64)
    second = ((features[:, 1] - 2).abs() < 3)[:, None]
    good, bad = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
    chances = torch.stack([torch.where(second, bad, good), torch.where(second, good, bad)])
    straight, bent = (fit_gate(features, chances, target, hidden=h) for h in (0, 8))
    agreements = [
        float((gate(features).argmax(1) == second.squeeze(1).long()).double().mean())
        for gate in (straight, bent)
    ]
    assert agreements[0] < 0.7 and agreements[1] > 0.9
    one, again, other = (
        fit_gate(features, chances, target, steps=2, hidden=8, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one(features), again(features))
    assert not torch.equal(one(features), other(features))
    with pytest.raises(SpecError, match="hidden"):
        fit_gate(features, chances, target, hidden=-1)


def test_drawing_a_gate_leaves_the_streams_of_torch_alone():
    features, target = torch.randn(20, 3, generator=draws()), torch.zeros(20, dtype=torch.int64)
    chances = some_chances(2, 20, 2)
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    fit_gate(features, chances, target, steps=2, hidden=4)
    assert torch.equal(torch.rand(2), expected)
