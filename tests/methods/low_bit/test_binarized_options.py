"""Options of binarized_network beyond the paper's defaults: each trains, packs and resumes."""

import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.core.fit import Progress
from whit.errors import NoEffect, SpecError
from whit.methods.low_bit.binarized_network import binarize, binarized_network, binary_layers
from whit.methods.low_bit.ternary_network import ternary_network
from whit.methods.sparse.one_cycle_pruning import one_cycle_pruning
from whit.packing import pack
from whit.parts.channel_gates import RealToBinary
from whit.parts.level_counts import level_summary
from whit.parts.levels import leveled_layers
from whit.parts.shift_batch_norm import ShiftBatchNorm1d, ShiftBatchNorm2d
from whit.parts.straight_through import Sign
from whit.parts.surgery import bake
from whit.tasks.toys import toy_classification, toy_frames


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


OPTIONS = [
    {"gradient": "approxsign"},
    {"stochastic": "activations"},
    {"stochastic": "weights"},
    {"stochastic": "both", "scale": "layer"},
    {"batch_norm": "shift"},
    {"scale": "real_to_binary"},
    {"scale": "real_to_binary", "optimizer": "bop"},
    {"scale": "none", "optimizer": "bop"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option_gives_one_bit_weights_and_gradients_everywhere(options):
    model = binarize(convolutions(), **options)
    x = torch.randn(16, 1, 4, 4)
    for _ in range(2):
        model(x).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    named = dict(bake(model).named_modules())
    rows = [row for row in level_summary(model) if ".gate" not in row.path]
    assert [row.bits for row in rows] == [1, 1, 1, 1] and {row.levels for row in rows} == {2}
    with torch.no_grad():
        assert pack(model.eval(), x).program(x.numpy()).shape == (16, 3)
    assert all(row.path in named for row in rows)


def test_which_modules_the_options_make():
    model = binarize(convolutions(), gradient="approxsign", stochastic="activations", window=0.5)
    signs = [m for m in model.modules() if isinstance(m, Sign)]
    assert len(signs) == 3
    assert {(s.window, s.gradient, s.rounding) for s in signs} == {
        (0.5, "approxsign", "stochastic")
    }
    model = binarize(convolutions(), batch_norm="shift", activations=False)
    assert [type(m) for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)] == [
        ShiftBatchNorm2d, ShiftBatchNorm2d, ShiftBatchNorm1d
    ]  # fmt: skip
    model = binarize(convolutions(), stochastic="weights")
    assert {levels.rounding for levels in map(_levels, binary_layers(model))} == {"stochastic"}


def _levels(layer):
    return layer.parametrizations.weight[0]


def test_real_to_binary_moves_the_signs_into_the_layers():
    model = binarize(convolutions(), scale="real_to_binary", padding="plus_one")
    gated = [m for m in model.modules() if isinstance(m, RealToBinary)]
    assert len(gated) == 1 and gated[0].pad.value == 1.0
    assert isinstance(model[2], nn.Identity) and isinstance(model[7][0], Sign)
    assert len(leveled_layers(model)) == 4, "the gate's own layers stay real"
    seen = []
    gated[0].conv.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    model(torch.randn(4, 1, 4, 4))
    assert set(seen[0].unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(NoEffect, match="no convolution"):
        binarize(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), scale="real_to_binary")


def test_a_model_without_batch_norm_has_nothing_to_shift():
    with pytest.raises(NoEffect, match="batch_norm='real'"):
        binarize(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), batch_norm="shift")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient": "relu"}, "approxsign"),
        ({"stochastic": "weight"}, "'weights'"),
        ({"batch_norm": "shifted"}, "'shift'"),
        ({"optimizer": "adam"}, "bop"),
        ({"optimizer": "bop"}, "Write scale='none'"),
        ({"optimizer": "bop", "scale": "none", "stochastic": "weights"}, "stochastic"),
        ({"optimizer": "bop", "scale": "none", "weights": False}, "weights=True"),
        ({"stochastic": "both", "weights": False}, "binary weights"),
        ({"stochastic": "activations", "activations": False}, "binary activations"),
        ({"scale": "real_to_binary", "activations": False}, "real_to_binary"),
        ({"weights": "no"}, "weights was given 'no'"),
        ({"activations": 0}, "activations was given 0"),
        ({"activations": False, "window": 2.0}, "window has no effect"),
        ({"activations": False, "padding": "zero"}, "padding has no effect"),
        ({"activations": False, "gradient": "approxsign"}, "gradient has no effect"),
        ({"flip_gamma": 0.5}, "no effect without optimizer='bop'"),
        ({"flip_threshold": 0}, "no effect without optimizer='bop'"),
        ({"flip_gamma": 2}, "gamma"),
        ({"flip_threshold": "low"}, "threshold"),
    ],
    ids=str,
)
def test_bad_options_and_contradictions_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        binarized_network(**options)


@pytest.mark.parametrize(
    "options",
    [{"stochastic": "both", "batch_norm": "shift"}, {"scale": "none", "optimizer": "bop"}],
    ids=str,
)
def test_it_learns_repeats_and_resumes(options, tmp_path):
    task, technique = toy_classification(), binarized_network(**options)
    settings = task.settings.changed(epochs=5)
    whole = train(task, technique, settings, Conditions(seed=1))
    chance = 1 / len(task.load().class_names)
    assert whole.run.evaluate(whole.model) > chance + 0.2, "it does not learn"

    class Killed(Exception):
        pass

    def kill(progress: Progress):
        if progress.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(task, technique, settings, Conditions(seed=1, out=tmp_path, progress=kill))
    resumed = train(task, technique, settings, Conditions(seed=1, out=tmp_path))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_gated_convolutions_train_and_pack_in_a_whole_run():
    task = toy_frames()
    settings = task.settings.changed(epochs=2)
    result = execute(task, binarized_network(scale="real_to_binary"), settings, seed=1)
    row = result.scorecard.as_dict()
    assert row["stored_bytes"] is not None and result.packed is not None
    formats = {layer.module: layer.format for layer in result.packed.layers}
    assert formats["conv2.conv"] == formats["head.conv"] == "bits"


def test_bop_and_pruning_are_refused_with_what_works():
    task = toy_classification()
    technique = binarized_network(scale="none", optimizer="bop") + one_cycle_pruning(sparsity=0.5)
    with pytest.raises(SpecError, match="by position.*optimizer='latent'"):
        train(task, technique, task.settings.changed(epochs=2), Conditions())


class Branches(nn.Module):
    """Two first layers, and one right behind another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.read, self.behind = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.behind(self.read(self.relu(self.norm(self.a(x) + self.b(x)))))


def test_only_layers_that_read_activations_are_padded_with_signs():
    model = binarize(Branches(), example=torch.ones(2, 1, 6, 6))
    assert model.a.padding == model.b.padding == model.behind.padding == (1, 1)
    assert model.read.pad.value == -1.0
    model = binarize(Branches())
    assert model.b.pad.value == -1.0, "without an example the order of registration decides"


def test_only_layers_that_read_activations_are_gated():
    model = binarize(Branches(), scale="real_to_binary", example=torch.randn(2, 1, 6, 6))
    assert isinstance(model.read, RealToBinary)
    assert isinstance(model.b, nn.Conv2d) and isinstance(model.behind, nn.Conv2d)
    assert sum(isinstance(m, Sign) for m in model.modules()) == 1


def test_the_technique_looks_at_training_samples():
    data = toy_frames().load()

    class Frames(Branches):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    model = binarized_network().prepare_model(Frames(), data)
    assert isinstance(model.b, nn.Conv2d) and isinstance(model.read, nn.Sequential)


def test_lazy_layers_and_replaced_activations_are_named():
    with pytest.raises(SpecError, match="'0' is lazy.*model\\(x\\)"):
        binarize(nn.Sequential(nn.LazyLinear(3), nn.ReLU()))
    task = toy_classification()
    data = task.load()
    teacher = ternary_network().prepare_model(task.build(data), data)
    with pytest.raises(NoEffect, match="replaced already.*StochasticFire"):
        binarized_network().prepare_model(teacher, data)
