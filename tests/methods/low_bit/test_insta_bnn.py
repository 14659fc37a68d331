import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.binarized_network import binarize
from whit.methods.low_bit.binary_densenet import binary_densenet
from whit.methods.low_bit.insta_bnn import Instance, insta_bnn, instance_binarize
from whit.methods.sparse.one_cycle_pruning import one_cycle_pruning
from whit.packing import pack
from whit.parts.binary_layers import binary_layers
from whit.parts.instance_thresholds import InstancePReLU, InstanceThreshold
from whit.parts.straight_through import Sign
from whit.tasks.toys import toy_classification, toy_frames, toy_tagging


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(4), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def made(how=None, **options):
    return instance_binarize(convolutions(), X, how=how or Instance(), **options)


def test_only_large_maps_get_thresholds_of_their_own():
    model = made()
    assert isinstance(model[2], InstanceThreshold) and isinstance(model[6], Sign)
    assert isinstance(model[10], Sign), "a vector has no map"
    assert len(binary_layers(model)) == 4
    model = made(Instance(smallest_map=4))
    assert isinstance(model[2], InstanceThreshold) and isinstance(model[6], InstanceThreshold)
    assert model[6].term.slope.shape == (1, 6)
    assert model(X).shape == (4, 3)
    assert model[3].pad.value == -1.0, "padding is binary"


def test_options_reach_the_modules():
    how = Instance("mean_variance", plus=True, detach=True, window=0.5, gradient="approxsign")
    threshold = made(how)[2]
    assert threshold.term.statistic == "mean_variance" and threshold.term.slope.shape == (2, 4)
    assert threshold.term.detach and threshold.term.expand is not None
    assert (threshold.window, threshold.gradient) == (0.5, "approxsign")
    both = made(Instance(prelu=True))[2]
    assert isinstance(both[0], InstancePReLU) and isinstance(both[1], InstanceThreshold)


def test_it_starts_with_the_answers_of_a_plain_binary_network():
    plain, instance = binarize(convolutions()).eval(), made().eval()
    assert torch.equal(instance(X), plain(X))


def test_chosen_activations():
    model = made(Instance(activations=("6",), smallest_map=2))
    assert isinstance(model[2], Sign) and isinstance(model[6], InstanceThreshold)
    with pytest.raises(NotApplicable, match="'10' works on vectors"):
        made(Instance(activations=("2", "10")))
    with pytest.raises(NotApplicable, match="'6' works on maps of 4 values, below 9"):
        made(Instance(activations=("6",)))
    with pytest.raises(NotApplicable, match="or a smaller smallest_map"):
        made(Instance(smallest_map=1000))
    with pytest.raises(SpecError, match="names '3'"):
        made(Instance(activations=("3",)))


def test_maps_of_modules_that_cannot_be_told_are_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3)
            self.relu, self.never = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.relu(self.second(self.relu(self.first(x))))

    with pytest.raises(NotApplicable, match="own module"):
        instance_binarize(Twice(), X)


@pytest.mark.parametrize(
    ("task", "words"),
    [(toy_classification(), "works on vectors"), (toy_tagging(), "vectors of a sequence")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_vectors_are_refused_in_words(task, words):
    data = task.load()
    with pytest.raises(NotApplicable, match=words) as caught:
        insta_bnn().prepare_model(task.build(data), data)
    assert "smallest_map" not in str(caught.value), "no map size would help"


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.relu, self.last = nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.last(self.relu(self.a(x) + self.b(x)))


def test_a_second_layer_that_reads_the_input_keeps_its_zeros():
    model = instance_binarize(Parallel(), X)
    assert model.a.padding == model.b.padding == (1, 1)
    assert model.last.pad.value == -1.0


def test_layers_of_few_bits_are_not_made_binary_again():
    task = toy_frames()
    with pytest.raises(SpecError, match="quantised already.*insta_bnn or that one, not both"):
        train(
            task, binary_densenet(layers=[1], growth=4) + insta_bnn(), task.settings, Conditions()
        )


def test_many_refused_activations_are_counted():
    layers = [layer for _ in range(6) for layer in (nn.Linear(4, 4), nn.ReLU())]
    with pytest.raises(NotApplicable, match="and 3 more"):
        instance_binarize(nn.Sequential(*layers), torch.randn(2, 4))


def test_first_and_last_layers_may_stay_real():
    task = toy_frames()
    data = task.load()
    model = insta_bnn(first="real", last="real").prepare_model(task.build(data), data)
    assert len(binary_layers(model)) == 1


def test_a_trained_network_uses_its_statistics_packs_and_beats_its_static_half():
    task = toy_frames()
    result = execute(task, insta_bnn(), task.settings.changed(epochs=3), seed=1)
    thresholds = [m for m in result.model.modules() if isinstance(m, InstanceThreshold)]
    assert len(thresholds) == 2 and not any(t.term.is_static for t in thresholds)
    steps = [step.operator.kind for step in result.packed.program.steps]
    assert steps.count("reduce") == 2, "thresholds of the sample are computed in the file"
    row = result.scorecard.as_dict()
    for threshold in thresholds:
        nn.init.zeros_(threshold.term.slope)
    data = task.load()
    with torch.no_grad():
        static = task.score(result.model.eval()(*data.valid.inputs), data.valid.target)
    assert row["valid_r_squared"] > static


def test_without_its_statistics_it_folds_into_integer_thresholds():
    task = toy_frames()
    trained = train(task, insta_bnn(), task.settings.changed(epochs=1), Conditions())
    for module in trained.model.modules():
        if isinstance(module, InstanceThreshold):
            nn.init.zeros_(module.term.slope)
    packed = pack(trained.model, task.load().train.inputs[0][:2])
    kinds = [step.operator.kind for step in packed.program.steps]
    assert kinds == ["conv2d", "threshold", "conv2d", "threshold", "conv2d"]
    assert packed.program.steps[3].operator.thresholds.dtype.kind == "i"


def test_the_sum_with_pruning_gives_ternary_weights():
    task = toy_frames()
    technique = insta_bnn(scale="none") + one_cycle_pruning(sparsity=0.5)
    model = train(task, technique, task.settings.changed(epochs=1), Conditions()).model
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert set(layer.weight.unique().tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"statistic": "median"}, "cubic"),
        ({"reduction": 0}, "reduction"),
        ({"smallest_map": 1}, "its own mean"),
        ({"smallest_map": True}, "smallest_map was given True; expected a whole number"),
        ({"activations": "relu1"}, "list"),
        ({"activations": 5}, "activations was given 5; expected a list"),
        ({"activations": [5]}, r"activations was given \[5\]; expected a list"),
        ({"reduction": 4}, "no effect without plus=True"),
        ({"plus": "no"}, "plus was given 'no'"),
        ({"detach": 3}, "detach was given 3"),
        ({"prelu": None}, "prelu was given None"),
        ({"window": 0}, "window"),
        ({"gradient": "relu"}, "approxsign"),
        ({"scale": "chanel"}, "'channel'"),
        ({"padding": "minus"}, "'minus_one'"),
        ({"first": "float"}, "real"),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        insta_bnn(**options)
