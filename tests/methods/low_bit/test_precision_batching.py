import copy

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.errors import NoEffect, NotApplicable, SpecError
from whit.methods.low_bit.precision_batching import (
    bit_layers,
    calibrate,
    choose_bits,
    precision_batching,
    quantise_inputs,
    store_as_planes,
)
from whit.packing.packer import float_inputs, pack
from whit.parts.bit_planes import FixedPoint, highest_planes
from whit.runtime import native
from whit.runtime.program import decode_program

BACKENDS = ["reference", *(["native"] if native.available() else [])]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 33), nn.ReLU(), nn.Linear(33, 5)).eval()


def convolutional(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    ).eval()


def planes_in(packed):
    return [layer.format for layer in packed.layers]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [1, 3, 7, 8])
@pytest.mark.parametrize("make", [network, convolutional])
def test_one_file_gives_every_precision(make, bits, backend):
    model = bit_layers(make(), bits)
    shape = (7, 20) if make is network else (7, 2, 6, 6)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    packed = pack(model, x)
    assert set(planes_in(packed)) == {"planes"}
    program = decode_program(packed.content, backend)
    whole = program(x.numpy())
    assert np.allclose(whole, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(program(x.numpy(), planes=16), whole)
    counts = {layer.module: layer for layer in packed.layers}
    for used in range(1, bits + 1):
        coarse = copy.deepcopy(model)
        for path, layer in coarse.named_modules():
            if path in counts:
                _narrow(layer, used)
        expected = coarse(x).detach().numpy()
        assert np.allclose(program(x.numpy(), planes=used), expected, rtol=1e-3, atol=1e-3)


def _narrow(layer, used):
    """Cut a layer's weights to the highest planes, by the format's own words."""
    flat = layer.weight.data.flatten(1)
    steps = torch.stack([row[row != 0].abs().min() for row in flat])
    # The smallest magnitude may be a multiple of the step: find the step that fits all.
    for index, row in enumerate(flat):
        for divisor in range(1, 300):
            scaled = row / (steps[index] / divisor)
            if torch.allclose(scaled, scaled.round(), atol=2e-3):
                steps[index] /= divisor
                break
    integers = (flat / steps[:, None]).round()
    largest = max(int(integers.max()), int(-integers.min()) - 1)
    count = max(2, largest.bit_length() + 1)
    narrowed = highest_planes(integers, count, min(used, count)) * steps[:, None]
    layer.weight.data = narrowed.reshape(layer.weight.shape)


def test_all_planes_are_the_dense_product_of_the_integers():
    model = bit_layers(nn.Sequential(nn.Linear(31, 9, bias=False)), 5, step="power_of_two")
    x = torch.randint(-8, 9, (6, 31), generator=torch.Generator().manual_seed(0)).float()
    program = pack(model, x).program
    # Whole numbers times a power of two: every sum is exact, so the identity is one of bits.
    exact = x.double() @ model[0].weight.double().T
    assert np.array_equal(program(x.numpy()), exact.detach().float().numpy())


@pytest.mark.parametrize("activation_bits", [4, 8, 12])
def test_activations_in_k_bits_are_summed_as_integers(activation_bits):
    model = network()
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
    real = model(x)
    quantise_inputs(model, activation_bits)
    calibrate(model, x)
    assert [m.step > 0 for m in model.modules() if isinstance(m, FixedPoint)] == [True, True]
    bit_layers(model, 8)
    packed = pack(model, x)
    kinds = [step.operator.kind for step in packed.program.steps]
    # Few levels behind a matrix are thresholds on its sums.
    assert len(kinds) == 4 and set(kinds) <= {"linear", "quantize", "requantize", "levels"}
    widths = {cost.activation_bits for cost in packed.program.operators if cost.macs}
    assert widths == {8 if activation_bits <= 8 else 16}
    assert np.allclose(packed.program(x.numpy()), model(x).detach().numpy(), atol=1e-4)
    error = (model(x) - real).abs().mean() / real.abs().mean()
    assert error < {4: 0.4, 8: 0.02, 12: 0.01}[activation_bits]


def test_a_calibrated_model_is_in_the_mode_that_it_was_in():
    model = quantise_inputs(network().train(), 8)
    calibrate(model, torch.randn(4, 20))
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_each_layer_gets_as_few_bits_as_the_score_allows():
    model = network()
    x = torch.randn(500, 20, generator=torch.Generator().manual_seed(1))
    real = copy.deepcopy(model)

    def score(candidate):
        return -float((candidate(x) - real(x)).detach().abs().mean())

    limit = -0.05
    chosen = choose_bits(model, score, limit, 8)
    assert score(model) >= limit and set(chosen) == {"0", "2"} and max(chosen.values()) < 8
    again = bit_layers(copy.deepcopy(real), chosen)
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    # The last layer cannot do with one bit less.
    fewer = bit_layers(copy.deepcopy(real), {**chosen, "2": chosen["2"] - 1})
    assert score(fewer) < limit
    with pytest.raises(SpecError, match="error_margin"):
        choose_bits(copy.deepcopy(real), score, -1e-6, 4)


def test_what_is_on_integers_already_is_no_effect():
    model = network()
    for layer in (model[0], model[2]):
        layer.weight.data = layer.weight.data.sign() * 0.25
    with pytest.raises(NoEffect, match="integers times a step already"):
        bit_layers(model, 3)


def test_a_single_layer_cannot_get_an_input_quantiser():
    with pytest.raises(NotApplicable, match="Sequential"):
        quantise_inputs(nn.Linear(3, 2), 8)


def test_skipped_layers_keep_their_weights_and_their_format():
    model = network()
    before = model[2].weight.clone()
    bit_layers(model, 3, skip=["2"])
    assert torch.equal(model[2].weight, before) and not hasattr(model[2], "stored_as")
    assert planes_in(pack(model, torch.randn(2, 20))) == ["planes", "float32"]


def test_a_forced_format_goes_before_the_asked_one():
    model = bit_layers(network(), 3)
    packed = pack(model, torch.randn(2, 20), force={"*": "int4"})
    assert planes_in(packed) == ["int4", "int4"]
    model[0].weight.data.add_(torch.randn(33, 20) * 0.01)
    with pytest.raises(whit.errors.CannotPack, match="'0'"):
        pack(model, torch.randn(2, 20))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 0}, "bits"),
        ({"bits": 12}, "1 to 11"),
        ({"activation_bits": 1}, "activation_bits"),
        ({"step": "row"}, "step"),
        ({"error_margin": -0.1}, "error_margin"),
        ({"error_margin": True}, "error_margin"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(SpecError, match=said):
        precision_batching(**options)


def test_by_name_with_a_margin_and_k_bit_activations(tmp_path):
    task = whit.task("digits")
    quick = task.settings.changed(epochs=6)
    technique = "precision_batching(bits=8, activation_bits=8, error_margin=0.02)"
    result = whit.execute(task, whit.spec(technique), quick, out=tmp_path)
    plain = whit.execute(task, whit.spec("plain()"), quick)
    assert result.scorecard.valid_score >= plain.scorecard.valid_score - 0.02
    assert result.scorecard.stored_bytes < plain.scorecard.stored_bytes / 5
    assert set(planes_in(result.packed)) == {"planes"}
    assert result.scorecard.train_macs > plain.scorecard.train_macs  # choosing is charged
    loaded = whit.load_result(tmp_path)
    x = task.load().valid.raw_example(64)
    with float_inputs(loaded.model):
        assert pack(loaded.model, *x).weight_bytes == result.packed.weight_bytes


def test_binary_weights_are_refused_in_a_sum():
    with pytest.raises(SpecError, match=r"'precision_batching\(\)' would change nothing"):
        whit.spec("binarized_network() + precision_batching()")


def test_asking_for_planes_is_a_plain_attribute():
    model = store_as_planes(network())
    assert model[0].stored_as == "planes" and copy.deepcopy(model)[0].stored_as == "planes"


def test_low_bit_and_sparse_layers_are_not_blown_up():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 50), nn.Linear(50, 30))
    model[0].weight.data = model[0].weight.data.sign() * torch.linspace(0.1, 1, 40)[:, None]
    model[1].weight.data *= torch.rand(50, 40) < 0.05
    before = model[0].weight.clone()
    bit_layers(model, 4)
    assert torch.equal(model[0].weight, before)
    formats = planes_in(pack(model.eval(), torch.randn(2, 60)))
    assert formats[0] == "bits" and formats[1].startswith(("csr", "mask"))
    assert formats[2] == "planes"


@pytest.mark.parametrize(
    ("bits", "said"),
    [({"0": 3}, "each of 0, 2"), ({"0": 3, "2": 3, "9": 1}, "each of 0, 2")],
)
def test_bits_by_path_name_every_layer(bits, said):
    with pytest.raises(SpecError, match=said):
        bit_layers(network(), bits)


@pytest.mark.parametrize("step", ["power_of_two", "layer", "channel"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(step, wrong):
    model = network()
    model[2].weight.data[0, 0] = wrong
    with pytest.raises(SpecError, match="layer '2'"):
        bit_layers(model, 4, step=step)


def test_weights_below_the_fixed_point_are_refused():
    model = network()
    model[0].weight.data *= 1e-7
    with pytest.raises(SpecError, match="step='channel'"):
        bit_layers(model, 4, step="power_of_two")


def test_input_quantisers_are_put_in_once_and_calibrated_on_numbers():
    model = quantise_inputs(network(), 8)
    assert (
        model(torch.randn(2, 20)).isnan().all()
    )  # not calibrated: nothing that looks like a result
    with pytest.raises(SpecError, match="already"):
        quantise_inputs(model, 8)
    with pytest.raises(SpecError, match="calibrated"):
        calibrate(model, torch.full((2, 20), float("nan")))
    shared = nn.Linear(4, 4)
    with pytest.raises(NotApplicable, match="several places"):
        quantise_inputs(nn.Sequential(shared, nn.ReLU(), shared), 8)


def test_planes_of_a_file_without_planes_are_refused():
    program = pack(network(), torch.randn(2, 20)).program
    for planes in (2, 99):
        with pytest.raises(whit.errors.WhitError, match="no weight stored as bit planes"):
            program(np.zeros((1, 20), np.float32), planes=planes)
