// Bit planes times float32. Two ways: for few rows and planes, sums of 2^kLookupBits subsets of
// the left values are tabulated once and looked up for all outputs, plane by plane; for more, a
// block of weights is decoded to floats on the stack and multiplied by all rows.
#ifndef WHIT_PLANES_FLOATS_H
#define WHIT_PLANES_FLOATS_H

#include "kernels/generic/planes_bytes.h"

namespace whit {
namespace {

using Floats = Lanes::Floats;

constexpr size_t kLookupBits = Lanes::kLookupBits;
constexpr size_t kTableFloats = size_t{1} << kLookupBits;
constexpr size_t kWordTableFloats = 32 / kLookupBits * kTableFloats;
constexpr size_t kTableWords = 10240 / (4 * kWordTableFloats);
constexpr size_t kLookupWork = 4;  // rows times planes up to which tables win
constexpr size_t kFloatBlockWords = 8192 / (4 * kPanelLanes * kWordElements);

struct FloatPiece {
    ptrdiff_t begin;  // elements behind the row's pointer
    size_t elements;
    size_t word;      // of the block
};

struct FloatBlock {
    alignas(64) float weights[kFloatBlockWords * kWordElements * kPanelLanes];
    FloatPiece pieces[kFloatBlockWords];
    size_t piece_count;
};

// Where the words of a row begin, and how many elements they have.
struct WordCursor {
    size_t run, word;

    bool at_end(const Runs &runs) const { return run == runs.count; }
    ptrdiff_t begin(const Runs &runs) const {
        return runs.offsets[run] + static_cast<ptrdiff_t>(word * kWordElements);
    }
    size_t elements(const Runs &runs) const {
        const size_t rest = runs.length - word * kWordElements;
        return rest < kWordElements ? rest : kWordElements;
    }
    void next(const Runs &runs) {
        if (++word == words_of_run(runs.length)) *this = {run + 1, 0};
    }
};

// The sums of all subsets of the elements that belong to kLookupBits neighbouring bits.
inline void build_word_tables(const float *left, size_t elements, float *tables) {
    float values[kWordElements] = {};
    std::memcpy(values, left, elements * sizeof(float));
    for (size_t bit = 0; bit < 32; bit += kLookupBits, tables += kTableFloats) {
        tables[0] = 0.0f;
        for (size_t i = 0; i < kLookupBits; ++i) {
            const size_t half = size_t{1} << i;
            const float value = values[4 * ((bit + i) % 8) + bit / 8];
            for (size_t subset = 0; subset < half; ++subset) {
                tables[half + subset] = tables[subset] + value;
            }
        }
    }
}

struct FloatPair {
    Floats first, second;
};

// One plane of `words` words; two sums each, since an addition waits for the one before it.
inline FloatPair look_up_plane(const uint8_t *plane, const float *tables, size_t words) {
    Floats first[2] = {Lanes::float_zero(), Lanes::float_zero()};
    Floats second[2] = {Lanes::float_zero(), Lanes::float_zero()};
    for (size_t word = 0; word < words; ++word, plane += kStepBytes) {
        __builtin_prefetch(plane + 1024);
        const Vector bits0 = Lanes::load(plane), bits1 = Lanes::load(plane + Lanes::kBytes);
#pragma GCC unroll 16
        for (unsigned i = 0; i < 32 / kLookupBits; ++i, tables += kTableFloats) {
            const Floats table = Lanes::float_table(tables);
            const unsigned shift = i * kLookupBits;
            first[i % 2] = Lanes::float_add(
                first[i % 2], Lanes::float_lookup(table, Lanes::shift_words(bits0, shift)));
            second[i % 2] = Lanes::float_add(
                second[i % 2], Lanes::float_lookup(table, Lanes::shift_words(bits1, shift)));
        }
    }
    return {Lanes::float_add(first[0], first[1]), Lanes::float_add(second[0], second[1])};
}

inline void add_to_floats(float *out, Floats sums) {
    Lanes::float_store(out, Lanes::float_add(Lanes::float_load(out), sums));
}

// out += one row times `words` words of a panel, of `used` planes.
inline void look_up_panel(const uint8_t *words_of_panel, size_t plane_stride, size_t used,
                          const float *tables, size_t words, float *out) {
    FloatPair total = look_up_plane(words_of_panel, tables, words);
    total.first = Lanes::float_subtract(Lanes::float_zero(), total.first);
    total.second = Lanes::float_subtract(Lanes::float_zero(), total.second);
    for (size_t plane = 1; plane < used; ++plane) {
        const FloatPair next =
            look_up_plane(words_of_panel + plane * plane_stride, tables, words);
        total.first = Lanes::float_add(Lanes::float_add(total.first, total.first), next.first);
        total.second = Lanes::float_add(Lanes::float_add(total.second, total.second), next.second);
    }
    add_to_floats(out, total.first);
    add_to_floats(out + kVectorLanes, total.second);
}

inline void look_up_row(const float *row, const Runs &runs, const uint8_t *panels,
                        size_t panel_bytes, size_t panel_count, size_t used, float *out) {
    alignas(64) float tables[kTableWords * kWordTableFloats];
    const size_t plane_stride = plane_bytes<kPanelLanes>(runs.count, runs.length);
    WordCursor cursor = {0, 0};
    while (!cursor.at_end(runs)) {
        size_t words = 0;
        for (; words < kTableWords && !cursor.at_end(runs); ++words, cursor.next(runs)) {
            build_word_tables(row + cursor.begin(runs), cursor.elements(runs),
                              tables + words * kWordTableFloats);
        }
        for (size_t p = 0; p < panel_count; ++p) {
            look_up_panel(panels + p * panel_bytes, plane_stride, used, tables, words,
                          out + p * kPanelLanes);
        }
        panels += words * kStepBytes;
    }
}

using DecodeDigit = void (*)(const uint8_t *, size_t, bool, uint8_t *);

template <size_t kPlanes>
void decode_digit(const uint8_t *word, size_t plane_stride, bool is_top, uint8_t *out) {
    decode_groups(PlaneFormat<kPlanes>(plane_stride, is_top), word, 1, out);
}

// values = values * 2^planes + digits, for the 32 elements of a word.
inline void add_digits(const uint8_t *digits, size_t planes, bool is_top, float *values) {
    const float power = static_cast<float>(1u << planes);
    const float sign = is_top && planes == 1 ? -1.0f : 1.0f;  // see PlaneFormat
    const Floats signs = Lanes::float_broadcast(&sign);
    const Floats scale = Lanes::float_broadcast(&power);
    for (size_t i = 0; i < 8 * kVectors; ++i) {
        const Vector four = Lanes::load(digits + i * Lanes::kBytes);
        float *to = values + i / kVectors * 4 * kPanelLanes + i % kVectors * kVectorLanes;
#pragma GCC unroll 4
        for (unsigned element = 0; element < 4; ++element, to += kPanelLanes) {
            const Floats digit = Lanes::float_of_byte(four, element);
            const Floats before = is_top ? Lanes::float_zero() : Lanes::float_load(to);
            const Floats scaled = Lanes::float_multiply(before, scale);
            Lanes::float_store(to, Lanes::float_fma(digit, signs, scaled));
        }
    }
}

inline void decode_float_word(const uint8_t *word, size_t plane_stride, size_t used,
                              float *values) {
    static constexpr DecodeDigit kDecoders[] = {decode_digit<1>, decode_digit<2>, decode_digit<3>,
                                                decode_digit<4>};
    alignas(64) uint8_t digits[8 * kStepBytes];
    for (size_t done = 0; done < used;) {
        const size_t planes = digit_planes(done, used);
        kDecoders[planes - 1](word + done * plane_stride, plane_stride, done == 0, digits);
        add_digits(digits, planes, done == 0, values);
        done += planes;
    }
}

inline void decode_float_block(const uint8_t *&words, size_t plane_stride, size_t used,
                               const Runs &runs, WordCursor &cursor, FloatBlock &block) {
    block.piece_count = 0;
    for (size_t word = 0; word < kFloatBlockWords && !cursor.at_end(runs); ++word) {
        decode_float_word(words, plane_stride, used,
                          block.weights + word * kWordElements * kPanelLanes);
        block.pieces[block.piece_count++] = {cursor.begin(runs), cursor.elements(runs), word};
        words += kStepBytes;
        cursor.next(runs);
    }
}

// out += kRows rows times a block.
template <size_t kRows>
void multiply_float_tile(const float *const *rows, const FloatBlock &block, float *out,
                         size_t stride) {
    Floats sums[kRows][kVectors];
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = Lanes::float_zero();
    for (size_t i = 0; i < block.piece_count; ++i) {
        const FloatPiece piece = block.pieces[i];
        const float *weights = block.weights + piece.word * kWordElements * kPanelLanes;
        const ptrdiff_t end = piece.begin + static_cast<ptrdiff_t>(piece.elements);
        for (ptrdiff_t at = piece.begin; at != end; ++at, weights += kPanelLanes) {
            const Floats first = Lanes::float_load(weights);
            const Floats second = Lanes::float_load(weights + kVectorLanes);
#pragma GCC unroll 16
            for (size_t r = 0; r < kRows; ++r) {
                const Floats left = Lanes::float_broadcast(rows[r] + at);
                sums[r][0] = Lanes::float_fma(left, first, sums[r][0]);
                sums[r][1] = Lanes::float_fma(left, second, sums[r][1]);
            }
        }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
        add_to_floats(out + r * stride, sums[r][0]);
        add_to_floats(out + r * stride + kVectorLanes, sums[r][1]);
    }
}

inline void multiply_float_block(const float *const *rows, size_t m, const FloatBlock &block,
                                 float *out, size_t stride) {
    using Tile = void (*)(const float *const *, const FloatBlock &, float *, size_t);
    static constexpr Tile kTiles[] = {multiply_float_tile<1>, multiply_float_tile<2>,
                                      multiply_float_tile<3>, multiply_float_tile<4>,
                                      multiply_float_tile<5>, multiply_float_tile<6>};
    constexpr size_t kMostRows = sizeof kTiles / sizeof *kTiles;
    const size_t tiles = divide_up(m, kMostRows);
    for (size_t tile = 0, row = 0; tile < tiles; ++tile) {
        const size_t count = rows_of_tile(m, tiles, tile);
        kTiles[count - 1](rows + row, block, out + row * stride, stride);
        row += count;
    }
}

inline void multiply_plane_floats(const float *const *rows, size_t m, const Runs &runs,
                                  const void *panels, size_t panel_count, size_t planes,
                                  size_t used, float *out, size_t stride) {
    const size_t plane_stride = plane_bytes<kPanelLanes>(runs.count, runs.length);
    const size_t panel_bytes = plane_panel_bytes<kPanelLanes>(runs.count, runs.length, planes);
    const uint8_t *panel = static_cast<const uint8_t *>(panels);
    for (size_t r = 0; r < m; ++r) {
        std::memset(out + r * stride, 0, sizeof(float) * kPanelLanes * panel_count);
    }
    if (m * used <= kLookupWork) {
        for (size_t r = 0; r < m; ++r) {
            look_up_row(rows[r], runs, panel, panel_bytes, panel_count, used, out + r * stride);
        }
        return;
    }
    for (size_t p = 0; p < panel_count; ++p, panel += panel_bytes, out += kPanelLanes) {
        FloatBlock block;
        const uint8_t *words = panel;
        WordCursor cursor = {0, 0};
        while (!cursor.at_end(runs)) {
            decode_float_block(words, plane_stride, used, runs, cursor, block);
            multiply_float_block(rows, m, block, out, stride);
        }
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_PLANES_FLOATS_H
