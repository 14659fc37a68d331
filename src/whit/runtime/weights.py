"""One weight matrix of the file: its values, its scales, and the bytes they take."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.codings import Matrix
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.float_codings import Float32
from whit.runtime.integer_codings import planes_of
from whit.runtime.layout import CHANNEL, NONE, SCALAR, Record, product
from whit.runtime.storage import FORMAT_CODES, FORMATS, Format

_CONV2D = 2  # the operator whose rows have a kernel in them


def no_scale() -> NDArray[np.float32]:
    """Return the empty array that stands for "every scale is 1"."""
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A matrix [rows, columns] = values * scale, in one of the formats.

    Args:
        form: the weight format.
        values: integers (int8; int16 for planes above 8 bits) or float32, [rows, columns].
        scale: float32 [0], [1] or [rows]; only formats of integers have one.
        taps: kernel height * width of a convolution, else 1; ``two_four`` depends on it.
    """

    form: Format
    values: Matrix
    scale: NDArray[np.float32] = field(default_factory=no_scale)
    taps: int = 1

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

    @cached_property
    def bits(self) -> int:
        """Return the width of one value as a multiplier sees it.

        Of planes their number; 32 for binary16 and code books, which are multiplied as float32.
        """
        if not self.form.integers:
            return 32
        return planes_of(self.values) if self.form.name == "planes" else self.form.bits

    @property
    def stored_bits(self) -> float:
        """Return the stored bits of one value, zeros and scales included."""
        return 8 * self.stored_bytes / (self.rows * self.columns)

    @property
    def signs(self) -> bool:
        """Say whether the values are -1 and +1 in one bit each (a code book of 1 bit is not)."""
        return self.form.name == "bits"

    @property
    def exact_integers(self) -> bool:
        """Say whether the matrix holds nothing but integers with no scale."""
        return self.form.integers and self.scale.size == 0

    @property
    def largest(self) -> int:
        """Return the largest magnitude that the coding can hold of an integer, 0 for floats."""
        return 1 << (self.bits - 1) if self.form.name == "planes" else self.form.coding.largest

    @cached_property
    def stored_bytes(self) -> int:
        """Count the bytes of scales and values in the file, without alignment gaps."""
        return 4 * self.scale.size + len(self._payload)

    @cached_property
    def _payload(self) -> bytes:
        payload = self.form.encode(self.values, self.taps)
        if payload is None:
            raise ArtifactError(f"values do not fit the weight format {self.form.name}")
        return payload

    def dense(self, planes: int | None = None) -> NDArray[np.float32]:
        """Return the effective float32 matrix [rows, columns].

        Args:
            planes: use only so many of the highest bit planes (1 up to all of them, larger and
                smaller numbers are clipped): each value becomes the middle of the integers that
                share these planes. Other formats than ``planes`` ignore it. None uses all.
        """
        values = self.values.astype(np.float32)
        if planes is not None and self.form.name == "planes":
            step = np.float32(1 << (self.bits - min(max(planes, 1), self.bits)))
            values = np.floor(values / step) * step + (step - 1) / 2
        return values * self.scale[:, None] if self.scale.size else values

    def scaled(self, factors: NDArray[np.float32]) -> "StoredWeight":
        """Return the weight with row i multiplied by ``factors[i]``.

        Integers stay what they are, in the same format; floats that a narrow coding no longer
        holds are stored as float32 in the same layout.
        """
        if self.form.integers:
            scale = self.scale if self.scale.size else np.ones(1, dtype=np.float32)
            return replace(self, scale=scale * factors)
        floats = self.values.astype(np.float32) * factors[:, None]
        fits = self.form.encode(floats, self.taps) is not None
        form = self.form if fits else Format(self.form.layout, Float32())
        return replace(self, form=form, values=floats)

    def without_scale(self) -> "StoredWeight":
        """Return the integers alone, every scale 1."""
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
    if form is None or record.scale > CHANNEL or (record.scale and not form.integers):
        raise ArtifactError(
            f"weight format {record.weight_format} with scale {record.scale} is unknown"
        )
    reader.claim(product((record.rows, record.columns)))
    reader.seek(record.first)
    count = {NONE: 0, SCALAR: 1, CHANNEL: record.rows}[record.scale]
    scale = reader.floats(count) if count else no_scale()
    kernel = record.size_h * record.size_w if record.kind == _CONV2D else 0
    taps = kernel or 1
    values = form.decode(reader, record.rows, record.columns, taps)
    return StoredWeight(form, values, scale, taps)
