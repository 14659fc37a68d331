import pytest

from whit.measure.cost import cost_of, operator_energy
from whit.runtime.costs import OperatorCost


def operator(**changes):
    values = {
        "name": "linear_0",
        "kind": "linear",
        "weight_format": "bits",
        "weight_bits": 1,
        "weight_count": 64,
        "nonzero_weights": 64,
        "weight_bytes": 8,
        "constant_bytes": 4,
        "activation_bits": 1,
        "output_bits": 32,
        "input_shape": (8,),
        "output_shape": (8,),
        "macs": 64,
        "effective_macs": 64,
        "accumulation_length": 8,
    }
    return OperatorCost(**{**values, **changes})


def test_macs_are_sorted_by_width():
    cost = cost_of([operator(), operator(macs=10), operator(activation_bits=32, macs=5)], 0)
    assert cost.macs_by_width == {"w1a1": 74, "w1a32": 5}
    assert cost.macs == 79


def test_bytes_by_hand():
    first = operator()  # reads 8 bits, writes 8 floats: 1 + 32 bytes
    second = operator(input_shape=(16,), activation_bits=32, output_shape=(1,))  # 64 + 4
    cost = cost_of([first, second], 80)
    assert cost.weight_bytes == 24
    assert cost.activation_bytes == 33 + 68
    assert cost.activation_peak_bytes == 80
    assert cost.flops_per_byte == pytest.approx(2 * 128 / (24 + 101))


def test_energy_is_additive_over_layers():
    layers = [operator(), operator(weight_bits=32, activation_bits=32)]
    parts = [operator_energy(layer, 24, 64) for layer in layers]
    total = cost_of(layers, 64).energy
    assert total.compute_nj == pytest.approx(sum(part.compute_nj for part in parts))
    assert total.memory_nj == pytest.approx(sum(part.memory_nj for part in parts))


def test_ternary_adds_for_non_zeros_only_and_other_zeros_are_work():
    full = operator_energy(operator(weight_bits=2), 8, 8).compute_nj
    half = operator_energy(operator(weight_bits=2, effective_macs=32), 8, 8).compute_nj
    assert half == pytest.approx(full / 2)
    dense = operator_energy(operator(weight_bits=32), 8, 8).compute_nj
    sparse = operator_energy(operator(weight_bits=32, effective_macs=32), 8, 8).compute_nj
    assert sparse == dense


def test_a_program_of_nothing_costs_nothing():
    cost = cost_of([], 0)
    assert (cost.macs, cost.activation_peak_bytes, cost.energy.total_nj) == (0, 0, 0)
