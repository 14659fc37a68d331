// The walk over rows and panels that the binary kernels of most instruction sets share.
//
// All is static: each instruction set compiles its own copy (see kernels.h).
//
// A Tile offers kLanes, kRows (1, 2 or 4) and
//   template <size_t count> static void multiply(const uint32_t *const *rows,
//       const uint32_t *panel, size_t words, int32_t *const *out, bool is_new)
// for `count` rows of contiguous words: out[r][lane] -= 2 * (unequal bits). is_new: the panel comes
// from memory, not from the L1 cache; what follows it is next.
#ifndef WHIT_KERNELS_GENERIC_BINARY_DRIVER_H
#define WHIT_KERNELS_GENERIC_BINARY_DRIVER_H

#include "../kernels.h"

namespace whit {
namespace {

constexpr size_t kBinaryBlockRows = 16;
constexpr size_t kBinarySpanWords = 192;   // of rows that are put together from runs
constexpr size_t kBinaryChunkWords = 8;    // copied at a time: less than the slack behind a run

struct BinaryBlock {
    const uint32_t *words[kBinaryBlockRows];  // each row from the span's first word on
    alignas(64) uint32_t buffer[kBinaryBlockRows][kBinarySpanWords + kBinaryChunkWords];
};

// Copies the words [begin, begin + length) of a row, in the order of its runs.
inline void gather_binary_row(const uint32_t *row, const Runs &runs, size_t begin, size_t length,
                              uint32_t *to) {
    size_t run = begin / runs.length, word = begin % runs.length;
    for (uint32_t *const end = to + length; to < end; ++run, word = 0) {
        const uint32_t *from = row + runs.offsets[run] + static_cast<ptrdiff_t>(word);
        const size_t left = runs.length - word, room = static_cast<size_t>(end - to);
        const size_t count = left < room ? left : room;
        for (size_t i = 0; i < count; i += kBinaryChunkWords) {
            __builtin_memcpy(to + i, from + i, kBinaryChunkWords * sizeof(uint32_t));
        }
        to += count;
    }
}

template <typename Tile, size_t count>
void binary_tile(const BinaryBlock &block, size_t row, const uint32_t *panel, size_t words,
                 bool first, int32_t bits, int32_t *out, size_t stride) {
    int32_t *lines[count];
    for (size_t i = 0; i < count; ++i) {
        lines[i] = out + (row + i) * stride;
        for (size_t lane = 0; first && lane < Tile::kLanes; ++lane) lines[i][lane] = bits;
    }
    Tile::template multiply<count>(block.words + row, panel, words, lines, row == 0);
}

template <typename Tile>
void binary_panel(const BinaryBlock &block, size_t m, const uint32_t *panel, size_t words,
                  bool first, int32_t bits, int32_t *out, size_t stride) {
    size_t r = 0;
    for (; r + Tile::kRows <= m; r += Tile::kRows) {
        binary_tile<Tile, Tile::kRows>(block, r, panel, words, first, bits, out, stride);
    }
    for (; r < m; ++r) {
        binary_tile<Tile, 1>(block, r, panel, words, first, bits, out, stride);
    }
}

template <typename Tile>
void binary_block(const uint32_t *const *rows, size_t m, const Runs &runs, const uint32_t *panels,
                  size_t panel_count, int32_t bits, int32_t *out, size_t stride) {
    const size_t words = runs.count * runs.length, panel_words = words * Tile::kLanes;
    const size_t span = runs.count == 1 || words < kBinarySpanWords ? words : kBinarySpanWords;
    BinaryBlock block;
    for (size_t begin = 0; begin < words; begin += span) {
        const size_t length = span < words - begin ? span : words - begin;
        for (size_t r = 0; r < m; ++r) {
            block.words[r] = runs.count == 1 ? rows[r] + runs.offsets[0] : block.buffer[r];
            if (runs.count > 1) gather_binary_row(rows[r], runs, begin, length, block.buffer[r]);
        }
        const uint32_t *panel = panels + begin * Tile::kLanes;
        for (size_t p = 0; p < panel_count; ++p, panel += panel_words) {
            binary_panel<Tile>(block, m, panel, length, begin == 0, bits, out + p * Tile::kLanes,
                               stride);
        }
    }
}

// A BinaryKernel::multiply. A panel stays in the L1 cache while the rows of a block pass by.
template <typename Tile>
void multiply_binary(const uint32_t *const *rows, size_t m, const Runs &runs,
                     const uint32_t *panels, size_t panel_count, int32_t bits, int32_t *out,
                     size_t stride) {
    for (size_t r = 0; r < m; r += kBinaryBlockRows) {
        const size_t count = kBinaryBlockRows < m - r ? kBinaryBlockRows : m - r;
        binary_block<Tile>(rows + r, count, runs, panels, panel_count, bits, out + r * stride,
                           stride);
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_KERNELS_GENERIC_BINARY_DRIVER_H
