"""One weight matrix of the file: its values, its scales, and the bytes they take."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import CHANNEL, NONE, SCALAR, Record, product
from whit.runtime.storage import FORMAT_CODES, FORMATS, Format, Matrix


def no_scale() -> NDArray[np.float32]:
    """Return the empty array that stands for "every scale is 1"."""
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A matrix [rows, columns] = values * scale, in one of the formats.

    Args:
        form: the weight format.
        values: int8 levels -1, 0, +1, or float32 values, [rows, columns].
        scale: float32 [0], [1] or [rows]; only formats of levels have one.
    """

    form: Format
    values: Matrix
    scale: NDArray[np.float32] = field(default_factory=no_scale)

    @property
    def rows(self) -> int:
        """Return the number of rows (outputs)."""
        return int(self.values.shape[0])

    @property
    def columns(self) -> int:
        """Return the number of columns (inputs of one output)."""
        return int(self.values.shape[1])

    @cached_property
    def nonzero(self) -> int:
        """Count the values that are not 0."""
        return int(np.count_nonzero(self.values))

    @property
    def exact_levels(self) -> bool:
        """Say whether the matrix holds nothing but -1, 0, +1 with no scale."""
        return self.form.levels and self.scale.size == 0

    @cached_property
    def stored_bytes(self) -> int:
        """Count the bytes of scales and values in the file, without alignment gaps."""
        return 4 * self.scale.size + len(self._payload)

    @cached_property
    def _payload(self) -> bytes:
        payload = self.form.encode(self.values)
        if payload is None:
            raise ArtifactError(f"values do not fit the weight format {self.form.name}")
        return payload

    def dense(self) -> NDArray[np.float32]:
        """Return the effective float32 matrix [rows, columns]."""
        values = self.values.astype(np.float32)
        return values * self.scale[:, None] if self.scale.size else values

    def scaled(self, factors: NDArray[np.float32]) -> "StoredWeight":
        """Return the weight with row i multiplied by ``factors[i]``; levels stay levels."""
        if not self.form.levels:
            floats = self.values.astype(np.float32) * factors[:, None]
            return replace(self, form=self.form, values=floats)
        scale = self.scale if self.scale.size else np.ones(1, dtype=np.float32)
        return replace(self, scale=scale * factors)

    def without_scale(self) -> "StoredWeight":
        """Return the levels alone, every scale 1."""
        return replace(self, scale=no_scale())

    def write(self, writer: DataWriter) -> int:
        """Append scales and values; return the offset of the first of them."""
        if self.scale.size:
            first = writer.append(self.scale.astype("<f4").tobytes(), 4)
            writer.append(self._payload)
            return first
        return writer.append(self._payload, self.form.alignment)

    def record_fields(self) -> dict[str, int]:
        """Return the fields of the record that describe this weight."""
        granularity = NONE if not self.scale.size else SCALAR if self.scale.size == 1 else CHANNEL
        code = FORMAT_CODES[self.form.name]
        return {
            "weight_format": code,
            "scale": granularity,
            "rows": self.rows,
            "columns": self.columns,
        }


def read_weight(record: Record, reader: DataReader) -> StoredWeight:
    """Read the weight that a record describes.

    Raises:
        ArtifactError: unknown format or scale, or the data section does not hold it.
    """
    form = FORMATS.get(record.weight_format)
    if form is None or record.scale > CHANNEL or (record.scale and not form.levels):
        raise ArtifactError(
            f"weight format {record.weight_format} with scale {record.scale} is unknown"
        )
    reader.claim(product((record.rows, record.columns)))
    reader.seek(record.first)
    count = {NONE: 0, SCALAR: 1, CHANNEL: record.rows}[record.scale]
    scale = reader.floats(count) if count else no_scale()
    return StoredWeight(form, form.decode(reader, record.rows, record.columns), scale)
