"""Energy of one inference by a published 45 nm table: modelled, not this machine's joules.

`E = sum over layers [MACs * (multiply + add) + bits read and written * memory]`, each weight read
once per inference (batch 1), each activation written once and read once. The numbers rank designs.

Sources: M. Horowitz, Computing's energy problem, ISSCC 2014 (the table); the integer interpolation
is that of google/qkeras. Trust of each constant: P printed in a paper's table, C read in public
code, R recalled, O our own assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT32_ADD_PJ = 0.9  # P, C
FLOAT32_MULTIPLY_PJ = 3.7  # P, C
INTEGER_ADD_PJ_PER_BIT = 0.003125  # C: 0.1 pJ at 32 bits
INTEGER_MULTIPLY_PJ_PER_BIT2 = 0.002994791667  # C: 0.2 pJ at 8 bits, 3.1 pJ at 32 bits
INTEGER_MULTIPLY_PJ_PER_BIT = 0.001041666667  # C
XNOR_PJ = 0.003  # O: upper bound of one 1-bit gate; the popcount is an integer add

# Picojoules per bit of memory that fits so many bytes (64-bit reads of 10, 20, 100 and 1300 pJ).
MEMORY_LEVELS_PJ_PER_BIT = (
    (8 * 1024, 10.0 / 64),  # SRAM 8 KB: P, C
    (32 * 1024, 20.0 / 64),  # SRAM 32 KB: C
    (1024 * 1024, 100.0 / 64),  # SRAM 1 MB: C
)
DRAM_PJ_PER_BIT = 1300.0 / 64  # C; up to twice as much recalled


@dataclass(frozen=True)
class Energy:
    """Modelled energy of one inference.

    Attributes:
        compute_nj: multiplications and additions, nanojoules.
        memory_nj: weights read, activations written and read, nanojoules.
    """

    compute_nj: float = 0.0
    memory_nj: float = 0.0

    def __add__(self, other: Energy) -> Energy:
        return Energy(self.compute_nj + other.compute_nj, self.memory_nj + other.memory_nj)

    def times(self, factor: float) -> Energy:
        """Return a multiple, such as the share of inputs for which a part runs at all."""
        return Energy(factor * self.compute_nj, factor * self.memory_nj)

    @property
    def total_nj(self) -> float:
        """Compute and memory together, nanojoules."""
        return self.compute_nj + self.memory_nj


def integer_add_pj(bits: int) -> float:
    """Return picojoules of one integer addition of this width (bits >= 1)."""
    return INTEGER_ADD_PJ_PER_BIT * bits


def integer_multiply_pj(bits: int) -> float:
    """Return picojoules of one integer multiplication of this width (bits >= 1)."""
    return INTEGER_MULTIPLY_PJ_PER_BIT2 * bits**2 + INTEGER_MULTIPLY_PJ_PER_BIT * bits


def memory_pj_per_bit(footprint_bytes: float) -> float:
    """Return picojoules to move one bit in the smallest memory that holds so many bytes."""
    for size, cost in MEMORY_LEVELS_PJ_PER_BIT:
        if footprint_bytes <= size:
            return cost
    return DRAM_PJ_PER_BIT


def mac_pj(weight_bits: int, activation_bits: int, length: int) -> float:
    """Return picojoules of one multiply-accumulate.

    Args:
        weight_bits: stored bits of a weight, 1..32; 1 and 2 (ternary) need no multiplier.
        activation_bits: 1 for signs, 2..16 for integers, 32 for floats.
        length: how many products are summed up, >= 1; it sets the width of the integer adder.
    """
    sum_bits = max(1, math.ceil(math.log2(max(2, length))))
    if activation_bits > 16:
        add_only = weight_bits <= 2
        return FLOAT32_ADD_PJ if add_only else FLOAT32_MULTIPLY_PJ + FLOAT32_ADD_PJ
    if weight_bits > 16:
        # A float weight times a sign is an addition of floats; times an integer, a float product.
        add_only = activation_bits == 1
        return FLOAT32_ADD_PJ if add_only else FLOAT32_MULTIPLY_PJ + FLOAT32_ADD_PJ
    if activation_bits == 1 and weight_bits <= 2:
        return XNOR_PJ + integer_add_pj(sum_bits)
    if weight_bits <= 2 or activation_bits == 1:
        return integer_add_pj(min(32, max(weight_bits, activation_bits) + sum_bits))
    adder = min(32, weight_bits + activation_bits + sum_bits)
    return integer_multiply_pj(max(weight_bits, activation_bits)) + integer_add_pj(adder)


def compute_energy(macs: float, weight_bits: int, activation_bits: int, length: int) -> Energy:
    """Return the energy of so many multiply-accumulates of one kind (see `mac_pj`)."""
    return Energy(compute_nj=macs * mac_pj(weight_bits, activation_bits, length) / 1000)


def memory_energy(moved_bytes: float, footprint_bytes: float) -> Energy:
    """Return the energy of moving bytes in a memory that holds `footprint_bytes`."""
    return Energy(memory_nj=moved_bytes * 8 * memory_pj_per_bit(footprint_bytes) / 1000)
