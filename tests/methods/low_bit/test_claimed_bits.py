"""What a technique claims of its weights is what the values and the file say: no more, no less."""

import math

import pytest
from torch import nn

import whit
from whit.parts.level_counts import level_summary

CLAIMS = {
    "binarized_network()": 2,
    "binarized_network(scale='none')": 2,
    "finite_set_weights(values='binary')": 2,
    "finite_set_weights(values='ternary')": 3,
    "finite_set_weights(values=4)": 4,
    "finite_set_weights(values='powers_of_two')": 7,
    "finite_set_weights(values=[-0.3, 0.1, 0.5, 2])": 4,
    "conntra(values='ternary', sweeps=2)": 3,
    "conntra(values=[-2, -1, 1, 2], sweeps=2)": 4,
    "weight_sharing(bits=2)": 4,
}


@pytest.mark.parametrize(("technique", "values"), CLAIMS.items(), ids=CLAIMS)
def test_all_claimed_values_occur_and_are_stored_in_their_bits(technique, values):
    task = whit.task("toy_classification")
    result = whit.execute(task, whit.spec(technique), task.settings.changed(epochs=2))
    rows = level_summary(result.model)
    # A layer of few inputs need not use every value in one channel; the widest one does.
    assert max(row.levels for row in rows) == values
    assert all(row.bits <= math.ceil(math.log2(values)) for row in rows)
    counted = {cost.name: cost.weight_bits for cost in result.packed.program.operators if cost.macs}
    for layer, bits in zip(result.packed.layers, counted.values(), strict=True):
        held = {"bits": 1, "ternary": 2, "ternary5": 2}.get(layer.format, math.inf)
        assert 2**held >= values or layer.format.startswith(("mask", "csr")), layer
        assert bits >= math.log2(values) or bits == 2, (technique, layer)


def test_a_network_of_more_values_than_claimed_is_found_out():
    task = whit.task("toy_classification")
    spec = whit.spec("binarized_network()")
    result = whit.execute(task, spec, task.settings.changed(epochs=1))
    assert {layer.format for layer in result.packed.layers} == {"bits"}
    for module in result.model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data[0, 0] *= 0.5
    again = whit.pack(result.model, *task.load().valid.raw_example(8))
    assert "bits" not in {layer.format for layer in again.layers}
    assert max(row.bits for row in level_summary(result.model)) > 1
