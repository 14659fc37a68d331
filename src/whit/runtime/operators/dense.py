"""Operators with a matrix that reads whole vectors or rows: linear and embedding."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from whit.errors import WhitError
from whit.runtime.bits import binary_gemm_reference, bytes_to_words, pack_bits
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, MAX_RANK, SIGN, Activation, Record
from whit.runtime.layout import product as size_product
from whit.runtime.operators.contract import Array, Floats, Plain, expect, write_operand
from whit.runtime.operators.matrices import (
    bias_granularity,
    exact,
    factors,
    finish,
    read_bias,
    result_domain,
    whole,
)
from whit.runtime.weights import StoredWeight, read_weight


@dataclass(frozen=True, eq=False)
class Linear(Plain):
    """y = x W^T * scale + bias along the last axis, x [..., columns], W [rows, columns].

    Whole numbers times integers without scale and bias give exact int32; all else is float32.

    Args:
        weight: the matrix with its scales.
        bias: float32 [rows], or None.
        planes: how many of the highest bit planes to use; None for all. Not part of the file.
    """

    weight: StoredWeight
    bias: Floats | None
    planes: int | None = None
    kind: ClassVar[str] = "linear"

    @property
    def matrix(self) -> StoredWeight:
        """Return the weight matrix."""
        return self.weight

    def narrowed(self, planes: int) -> Self:
        """Return the operator with no more than the highest planes of its weight."""
        fewer = self.weight.form.name == "planes" and planes < self.weight.bits
        return replace(self, planes=planes) if fewer else self

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: weight at ``first``, bias at ``second``."""
        weight = read_weight(record, reader)
        return cls(weight, read_bias(record, reader))

    def write(self, writer: DataWriter) -> Record:
        """Append the weight, then the bias."""
        first = self.weight.write(writer)
        second, operand = write_operand(self.bias, writer), bias_granularity(self.bias)
        fields = self.weight.record_fields()
        return Record(0, **fields, operand=operand, first=first, second=second)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return [..., rows]: int32 for whole numbers times bare integers, else float32."""
        shape = (*source.shape[:-1], self.weight.rows)
        expect(source.shape[-1] == self.weight.columns, "linear does not fit its input")
        expect(self.bias is None or self.bias.size == self.weight.rows, "a bias does not fit")
        size_product(shape)
        return Activation(shape, result_domain(self.weight, self.bias, source))

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Multiply on packed bits where both sides are signs, else in floats."""
        if x.dtype == np.bool_ and self.weight.signs:
            packed = bytes_to_words(pack_bits(x.reshape(-1, self.weight.columns)))
            sums: Array = binary_gemm_reference(packed, self._words, self.weight.columns)
            sums = sums.reshape(*x.shape[:-1], self.weight.rows)
        else:
            left = factors(self.weight, self.bias, x)
            sums = left @ self._floats.astype(left.dtype, copy=False).T
        if exact(self.weight, self.bias, x):
            return whole(sums)
        return finish(sums, self.weight, self.bias, (-1,))

    def scratch_bytes(self, source: Activation) -> int:
        """Return the bytes of a float copy of input and sums, float64 for whole numbers."""
        width = 4 if source.domain == FLOAT else 8
        return width * (source.elements + source.elements // source.shape[-1] * self.weight.rows)

    @cached_property
    def _words(self) -> NDArray[np.uint64]:
        return bytes_to_words(pack_bits(self.weight.values < 0))

    @cached_property
    def _floats(self) -> Floats:
        return self.weight.without_scale().dense(self.planes)


@dataclass(frozen=True, eq=False)
class Embedding(Plain):
    """y = row i of the matrix for each integer i: [...] becomes [..., columns] in float32.

    Args:
        weight: the matrix with its scales.
        planes: how many of the highest bit planes to use; None for all. Not part of the file.
    """

    weight: StoredWeight
    planes: int | None = None
    kind: ClassVar[str] = "embedding"

    @property
    def matrix(self) -> StoredWeight:
        """Return the weight matrix."""
        return self.weight

    def narrowed(self, planes: int) -> Self:
        """Return the operator with no more than the highest planes of its weight."""
        fewer = self.weight.form.name == "planes" and planes < self.weight.bits
        return replace(self, planes=planes) if fewer else self

    @classmethod
    def read(cls, record: Record, reader: DataReader, source: Activation) -> Self:
        """Rebuild from a record: weight at ``first``."""
        return cls(read_weight(record, reader))

    def write(self, writer: DataWriter) -> Record:
        """Append the weight."""
        first = self.weight.write(writer)
        return Record(0, **self.weight.record_fields(), first=first)

    def result(self, source: Activation, other: Activation | None = None) -> Activation:
        """Return float32 with one axis more."""
        expect(source.domain not in (FLOAT, SIGN), f"embedding reads indices, not {source.domain}")
        expect(len(source.shape) < MAX_RANK, f"embedding makes more than {MAX_RANK} axes")
        shape = (*source.shape, self.weight.columns)
        size_product(shape)
        return Activation(shape, FLOAT)

    def run(self, x: Array, other: Array | None = None) -> Array:
        """Take the rows.

        Raises:
            WhitError: an index is negative or beyond the last row.
        """
        if x.size and not 0 <= int(x.min()) <= int(x.max()) < self.weight.rows:
            raise WhitError(
                f"an embedding was given the indices {x.min()} to {x.max()}; "
                f"give indices from 0 to {self.weight.rows - 1}"
            )
        rows: Array = self._table[x]
        return rows

    @cached_property
    def _table(self) -> Floats:
        return self.weight.dense(self.planes)
