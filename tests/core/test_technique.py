import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.procedure import AfterTraining, WeightUse, WithoutSteps, train_once
from whit.core.technique import Technique, is_technique, keep, reference_of, technique
from whit.errors import SpecError
from whit.methods.plain import plain
from whit.methods.sparse.one_cycle_pruning import one_cycle_pruning


@technique
def sample(*, rate: float = 0.5, names: tuple = ("a",), deep: object = None) -> Technique:
    """A technique of a user's own."""
    return Technique(hooks=(lambda model, plan: None,))


def ours(text):
    return f"{__name__}:{text}"


def test_the_spec_has_the_defaults_filled_in():
    assert sample().spec == ours("sample(rate=0.5, names=('a',), deep=None)")
    made = sample(deep={"x": [1, -2.5, True]}, rate=1e-3)
    assert made.spec == ours("sample(rate=0.001, names=('a',), deep={'x': [1, -2.5, True]})")
    assert one_cycle_pruning(sparsity=0.5).spec.startswith("one_cycle_pruning(sparsity=0.5, alpha=")


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), nn.Linear(1, 1), lambda: 0, math.nan, math.inf, object(), [torch.ones(1)]],
    ids=lambda v: type(v).__name__,
)
def test_options_that_are_no_literals_are_refused(value):
    with pytest.raises(SpecError, match="'rate' of 'sample'.*literals"):
        sample(rate=value)


def test_a_mistyped_option_names_the_nearest():
    with pytest.raises(SpecError, match="no option 'rat'.*'rate'"):
        sample(rat=1)
    with pytest.raises(SpecError, match=r"sample\(rate=0.5"):
        sample(0.5)


def test_it_is_marked_for_discovery_and_stays_itself():
    assert is_technique(sample) and not is_technique(Technique()) and not is_technique(keep)
    assert sample.__name__ == "sample" and "user's own" in sample.__doc__


def test_references():
    assert reference_of(plain) == "plain"
    assert reference_of(sample) == ours("sample")


def test_an_own_file_is_named_by_its_path(own_folder):
    from whit.spec_strings import spec

    made = spec("own.py:shrink(rate=0.5)")
    assert made.spec.endswith("own.py:shrink(rate=0.5)")
    assert spec(made.spec).spec == made.spec


def test_every_slot_leaves_things_alone_by_default():
    value = object()
    empty = Technique()
    assert empty.prepare_data(value) is value
    assert empty.prepare_model(value, None) is value
    assert empty.finish_model(value, None) is value
    assert empty.hooks == () and empty.train is train_once and empty.spec == "plain()"


def noting(name, seen):
    def note(value, *_):
        seen.append(name)
        return value

    return Technique(
        prepare_data=note, prepare_model=note, finish_model=note, hooks=(name,), spec=f"{name}()"
    )


def test_sums_run_in_the_order_written():
    seen = []
    total = noting("a", seen) + noting("b", seen) + noting("c", seen)
    for slot in (
        total.prepare_data,
        lambda v: total.prepare_model(v, 0),
        lambda v: total.finish_model(v, 0),
    ):
        seen.clear()
        slot(1)
        assert seen == ["a", "b", "c"]
    assert total.hooks == ("a", "b", "c")
    assert total.spec == "a() + b() + c()"


def test_a_slot_gets_what_the_one_before_returned():
    double = Technique(prepare_data=lambda d: d * 2, prepare_model=lambda m, d: m + [d])
    plus = Technique(prepare_data=lambda d: d + 1, prepare_model=lambda m, d: m + [-d])
    assert (double + plus).prepare_data(10) == 21
    assert (plus + double).prepare_data(10) == 22
    assert (double + plus).prepare_model([], 3) == [3, -3]


def test_adding_nothing_changes_nothing():
    made = sample()
    assert made + Technique() == made and Technique() + made == made
    assert (made + plain()).spec == made.spec


def test_the_procedure_of_either_side_is_kept():
    def own(run):
        return None

    procedure = Technique(train=own, spec="own()")
    assert (procedure + sample()).train is own and (sample() + procedure).train is own


def test_two_procedures_are_refused():
    one = Technique(train=lambda run: None, brief="one()")
    two = Technique(train=lambda run: None, brief="two()")
    with pytest.raises(SpecError, match=r"'one\(\)' and 'two\(\)'"):
        one + two


def numbered(name):
    """A refinement that notes its name in the model, a list here."""
    return Technique(train=AfterTraining(lambda run, model: [*model, name]), spec=f"{name}()")


def test_refinements_go_on_from_whatever_trained_before_them():
    own = Technique(train=lambda run: ["own"], spec="own()")
    ordinary = Technique(prepare_data=lambda d: d, spec="c()")
    assert (own + numbered("a") + ordinary + numbered("b")).train(None) == ["own", "a", "b"]
    assert (own + (numbered("a") + numbered("b"))).train(None) == ["own", "a", "b"]
    assert (numbered("a") + Technique()).train.first is train_once


def test_a_procedure_behind_a_refinement_is_refused_with_the_right_order():
    own = Technique(train=lambda run: None, spec="own()", brief="own()")
    with pytest.raises(SpecError, match=r"other way round: 'own\(\) \+ a\(\)'"):
        replace(numbered("a"), brief="a()") + own


def test_two_that_choose_all_values_are_refused():
    with pytest.raises(SpecError, match=r"'a\(\) \+ b\(\)' and 'c\(\)' both choose"):
        replace(choosing("a") + numbered("b"), brief="a() + b()") + choosing("c")
    assert isinstance((choosing("a") + numbered("b")).train, AfterTraining)


def choosing(name, keeps=False):
    """A refinement that chooses the values of all weights."""
    after = AfterTraining(lambda run, model: model, chooses_values=True, keeps_values=keeps)
    return Technique(train=after, spec=f"{name}()", brief=f"{name}()")


def test_one_that_keeps_the_values_chosen_before_it_goes_last():
    kept = choosing("a") + choosing("b", keeps=True) + choosing("c", keeps=True)
    assert isinstance(kept.train, AfterTraining)
    with pytest.raises(SpecError, match=r"the other way round: 'a\(\) \+ b\(\)'"):
        choosing("b", keeps=True) + choosing("a")
    inside = choosing("b", keeps=True) + numbered("d")
    with pytest.raises(SpecError, match="the second would undo"):
        inside + (numbered("e") + choosing("a"))


def stepless():
    return Technique(train=WithoutSteps(lambda run: None, "s(after=True)"), brief="s()")


def test_what_acts_at_each_step_is_refused_beside_a_procedure_without_steps():
    hooked = Technique(hooks=(lambda model, plan: None,), brief="h()")
    for terms in ((hooked, stepless()), (stepless(), hooked)):
        with pytest.raises(SpecError, match=r"go on from .* model: 'h\(\) \+ s\(after=True\)'"):
            terms[0] + terms[1]
    assert isinstance((Technique(prepare_data=lambda d: d) + stepless()).train, WithoutSteps)
    with pytest.raises(SpecError, match=r"undo .*: 'a\(\) \+ s\(after=True\)'"):
        stepless() + choosing("a")


def test_nothing_is_drawn_from_weights_that_another_one_fixes():
    drawing = Technique(weights=WeightUse(draws=True), brief="d()")
    for fixed in (choosing("a"), choosing("b", keeps=True), stepless()):
        for terms in ((drawing, fixed), (fixed, drawing)):
            with pytest.raises(SpecError, match=r"nothing is left from which 'd\(\)'"):
                terms[0] + terms[1]
    assert (drawing + Technique(prepare_data=lambda d: d)).weights.draws
    assert (drawing + numbered("a")).train.first is train_once


def test_refining_what_takes_too_few_values_is_refused_where_that_is_certain():
    few = Technique(weights=WeightUse(levels=4), brief="f()")
    model = Technique(prepare_model=lambda model, data: model, brief="m()")

    def idle(unchanged):
        after = AfterTraining(lambda run, model: model, unchanged=unchanged)
        return Technique(train=after, brief="i()")

    assert (few + idle(3)).weights.levels == 4
    for terms in ((few, idle(4)), (idle(4), few)):
        with pytest.raises(SpecError, match=r"'i\(\)' would change nothing: with 'f\(\)'"):
            terms[0] + terms[1]
    # Another term may bring real layers of its own.
    assert (few + model).weights.levels is None
    assert isinstance((few + model + idle(4)).train, AfterTraining)


def test_only_techniques_add():
    with pytest.raises(TypeError):
        Technique() + "plain()"
