"""Memory of the C source: what lives when, and the place of each buffer in a static arena.

There is one static array for floats, one for 32-bit words and bytes, and one for 16-bit integers.
Memory of one array is never read under the type of another, so strict aliasing holds.
"""

from dataclasses import dataclass

ARENA_TYPES = {"floats": "float", "words": "uint32_t", "shorts": "int16_t"}
ARENA_WIDTHS = {"floats": 4, "words": 4, "shorts": 2}
TYPE_WIDTHS = {"float": 4, "uint32_t": 4, "int32_t": 4, "int16_t": 2, "int8_t": 1, "uint8_t": 1}
_ARENAS = {"float": "floats", "int16_t": "shorts"}


@dataclass
class Buffer:
    """A piece of an arena.

    Args:
        number: its number in the unit.
        c_type: type of its elements.
        count: number of elements.
        first: index of the step that writes it first.
        last: index of the step that reads it last.
        offset: its place in the arena, in elements of the arena; set by ``place_buffers``.
    """

    number: int
    c_type: str
    count: int
    first: int
    last: int
    offset: int = 0

    @property
    def arena(self) -> str:
        """Return the name of the array in which it lies."""
        return _ARENAS.get(self.c_type, "words")

    @property
    def units(self) -> int:
        """Return the elements of the arena that it fills."""
        return -(-self.count * TYPE_WIDTHS[self.c_type] // ARENA_WIDTHS[self.arena])

    @property
    def token(self) -> str:
        """Return what stands for its address until it has a place."""
        return f"@{self.number}@"

    @property
    def address(self) -> str:
        """Return the C expression of its address."""
        place = f"{self.arena} + {self.offset}"
        return place if ARENA_TYPES[self.arena] == self.c_type else f"({self.c_type} *)({place})"


def short_name(c_type: str) -> str:
    """Return a type as it stands in the names of kernels."""
    return c_type.removesuffix("_t")


def words_of_bits(count: int) -> int:
    """Return the 32-bit words that hold ``count`` bits."""
    return (count + 31) // 32


def place_buffers(buffers: list[Buffer]) -> dict[str, int]:
    """Give each buffer its offset, the largest first, each at the lowest place that is free.

    Args:
        buffers: all of them; their ``offset`` is set.

    Returns:
        Elements of each arena that is needed.
    """
    sizes: dict[str, int] = {}
    for arena in ARENA_TYPES:
        placed: list[Buffer] = []
        members = [buffer for buffer in buffers if buffer.arena == arena]
        for buffer in sorted(members, key=lambda item: (-item.units, item.number)):
            buffer.offset = _lowest_place(buffer, placed)
            placed.append(buffer)
        if placed:
            sizes[arena] = max(buffer.offset + buffer.units for buffer in placed)
    return sizes


def _lowest_place(buffer: Buffer, placed: list[Buffer]) -> int:
    others = [
        other for other in placed if other.first <= buffer.last and buffer.first <= other.last
    ]
    place = 0
    for other in sorted(others, key=lambda item: item.offset):
        if place + buffer.units <= other.offset:
            break
        place = max(place, other.offset + other.units)
    return place
