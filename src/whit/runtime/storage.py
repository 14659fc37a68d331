"""Weight formats: how the values of one weight matrix lie in the file, both directions.

A format is a layout (which values are stored) and a coding (how each is stored). A new format is
one entry in ``FORMATS``, under a new code.
"""

from dataclasses import dataclass

from whit.errors import ArtifactError
from whit.runtime.codings import Coding, Matrix, Profile
from whit.runtime.data_section import DataReader
from whit.runtime.float_codings import CodeBook, Float16, Float32
from whit.runtime.integer_codings import Int4, Int8, Planes, Signs, Ternary, Ternary5
from whit.runtime.layouts import Bitmask, CompressedRows, Dense, Layout, TwoFour


@dataclass(frozen=True)
class Format:
    """One way to store a matrix [rows, columns].

    Args:
        layout: which values are stored.
        coding: how each is stored.
    """

    layout: Layout
    coding: Coding

    @property
    def name(self) -> str:
        """Return the name in ``docs/format.md``, for example "mask_int8"."""
        if not self.layout.sparse:
            return self.coding.name
        return f"{self.layout.name}_{'signs' if self.coding.name == 'bits' else self.coding.name}"

    @property
    def bits(self) -> int:
        """Return the width of one value as a multiplier sees it; zeros need a second bit."""
        return max(2, self.coding.bits) if self.layout.sparse else self.coding.bits

    @property
    def integers(self) -> bool:
        """Say whether the values are integers, which may have scales, or float32."""
        return self.coding.integers

    @property
    def alignment(self) -> int:
        """Return the alignment of the first stored byte of a weight without a scale."""
        return max(self.layout.alignment, self.coding.alignment)

    def size(self, profile: Profile) -> int | None:
        """Return the stored bytes of a matrix, or None when it does not fit the format."""
        return self.layout.size(self.coding, profile)

    def encode(self, values: Matrix, taps: int = 1) -> bytes | None:
        """Return the stored bytes, or None when these values do not fit the format.

        Args:
            values: integers or float32 [rows, columns].
            taps: kernel height * width of a convolution, else 1.
        """
        return self.layout.encode(values, self.coding, taps)

    def decode(self, reader: DataReader, rows: int, columns: int, taps: int = 1) -> Matrix:
        """Return the values [rows, columns] read from the data section.

        Raises:
            ArtifactError: the bytes break a rule of the format, or there are too few.
        """
        if columns % taps:
            raise ArtifactError(
                f"{columns} columns are no multiple of {taps} positions of a kernel"
            )
        return self.layout.decode(reader, (rows, columns), self.coding, taps)


# Code in the record -> format. Codes never change their meaning; the earlier wins a tie in bytes.
FORMATS: dict[int, Format] = {
    0: Format(Dense(), Float32()),
    1: Format(Dense(), Signs()),
    2: Format(Dense(), Ternary()),
    3: Format(Bitmask(), Float32()),
    4: Format(Bitmask(), Signs()),
    5: Format(CompressedRows(), Float32()),
    6: Format(CompressedRows(), Signs()),
    7: Format(Dense(), Float16()),
    8: Format(Dense(), Ternary5()),
    9: Format(Dense(), Int8()),
    10: Format(Dense(), Int4()),
    11: Format(Dense(), Planes()),
    12: Format(Dense(), CodeBook(1)),
    13: Format(Dense(), CodeBook(2)),
    14: Format(Dense(), CodeBook(4)),
    15: Format(Dense(), CodeBook(8)),
    16: Format(Bitmask(), Float16()),
    17: Format(Bitmask(), Int8()),
    18: Format(Bitmask(), Int4()),
    19: Format(Bitmask(), CodeBook(4)),
    20: Format(Bitmask(), CodeBook(8)),
    21: Format(CompressedRows(), Float16()),
    22: Format(CompressedRows(), Int8()),
    23: Format(CompressedRows(), Int4()),
    24: Format(CompressedRows(), CodeBook(4)),
    25: Format(CompressedRows(), CodeBook(8)),
    26: Format(TwoFour(), Float32()),
    27: Format(TwoFour(), Float16()),
    28: Format(TwoFour(), Int8()),
}
FORMAT_CODES: dict[str, int] = {form.name: code for code, form in FORMATS.items()}
