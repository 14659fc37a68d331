import pytest

from whit.measure.energy import (
    Energy,
    compute_energy,
    integer_add_pj,
    integer_multiply_pj,
    mac_pj,
    memory_energy,
    memory_pj_per_bit,
)


def test_integer_interpolation_meets_the_table():
    assert integer_multiply_pj(8) == pytest.approx(0.2, abs=1e-6)
    assert integer_multiply_pj(32) == pytest.approx(3.1, abs=1e-6)
    assert integer_add_pj(32) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("footprint", "picojoule_per_64_bits"),
    [(8 * 1024, 10), (8 * 1024 + 1, 20), (32 * 1024, 20), (2**20, 100), (2**20 + 1, 1300)],
)
def test_memory_levels(footprint, picojoule_per_64_bits):
    assert memory_pj_per_bit(footprint) * 64 == pytest.approx(picojoule_per_64_bits)


def test_the_worked_example_of_the_card():
    assert compute_energy(1e6, 32, 32, 1000).compute_nj == pytest.approx(4600)
    assert memory_energy(4e6, 4e6).memory_nj == pytest.approx(650_000)
    assert memory_energy(1e6 * 2 / 8, 4e6).memory_nj == pytest.approx(40_625)


def test_binary_is_one_gate_and_a_narrow_adder():
    assert mac_pj(1, 1, 1024) == pytest.approx(0.003 + 0.003125 * 10)


@pytest.mark.parametrize("activation_bits", [1, 8, 32])
def test_narrower_weights_never_cost_more(activation_bits):
    costs = [mac_pj(bits, activation_bits, 256) for bits in (1, 2, 4, 8, 32)]
    assert costs == sorted(costs)


def test_binary_weights_on_floats_need_no_multiplier():
    assert mac_pj(1, 32, 100) == 0.9
    assert mac_pj(32, 1, 100) == 0.9
    assert mac_pj(32, 32, 100) == pytest.approx(4.6)


def test_energies_add_part_by_part():
    total = Energy(1.0, 2.0) + Energy(3.0, 5.0)
    assert (total.compute_nj, total.memory_nj, total.total_nj) == (4.0, 7.0, 11.0)
