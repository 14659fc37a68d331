// Signs times signs with AVX2: a panel is 32 outputs, four vectors of 32-bit lanes a word.
//
// "table": two rows of the left matrix give a table of 16 bytes for each four bits of K: entry w
// holds the number of bits of w that differ from row 0 in its low half, from row 1 in its high
// half. So one byte shuffle counts four bits of 32 outputs and two rows, and no exclusive or is
// needed. Three lookups may be added before a half overflows. A tree of carry-save adders needs six
// logic operations for 256 products where this needs three (9 for 3 lookups: 768 products).
// "shuffle": exclusive or and a byte popcount by shuffles, for a few rows.
#include "../generic/binary_shuffle_avx2.h"

namespace whit {
namespace {

constexpr size_t kBlockRows = 32;
// A byte counts up to 255 unequal bits, that is 7 words of 32. Six have no nibbles to fill up to a
// multiple of three, and lie within one run of a convolution of 64 channels or more, whose rows
// have runs of 3 * channels / 32 words.
constexpr size_t kBlockWords = 6;
constexpr size_t kBlockNibbles = 8 * kBlockWords;
constexpr size_t kIndexBytes = 64;  // of a pair of rows
constexpr size_t kGatherRows = 8;
constexpr size_t kMaxGroup = 4;  // panels that share the lookup of a table
// 16-bit sums hold the counts of so many words.
constexpr size_t kSpanWords = 2040;

struct PairTables {
    alignas(64) uint8_t entry[256][16];
};

constexpr uint8_t count_nibble(unsigned bits) {
    return static_cast<uint8_t>((bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1));
}

constexpr PairTables make_pair_tables() {
    PairTables tables{};
    for (unsigned pair = 0; pair < 256; ++pair) {
        for (unsigned bits = 0; bits < 16; ++bits) {
            tables.entry[pair][bits] = static_cast<uint8_t>(
                count_nibble((pair & 15) ^ bits) + 16 * count_nibble((pair >> 4) ^ bits));
        }
    }
    return tables;
}

constexpr PairTables kPairTables = make_pair_tables();

// Where the words of a block lie in a row: pieces of runs.
struct Pieces {
    size_t count;
    ptrdiff_t offset[kBlockWords];
    size_t target[kBlockWords];
};

// Walks over the words of a row in blocks.
struct Cursor {
    size_t run = 0, word = 0;

    Pieces take(const Runs &runs, size_t words) {
        Pieces pieces{};
        for (size_t done = 0; done < words;) {
            const size_t left = runs.length - word, wanted = words - done;
            const size_t length = left < wanted ? left : wanted;
            pieces.offset[pieces.count] = runs.offsets[run] + static_cast<ptrdiff_t>(word);
            pieces.target[pieces.count++] = done;
            done += length;
            word += length;
            if (word == runs.length) {
                word = 0;
                ++run;
            }
        }
        return pieces;
    }
};

// What a block of rows and a group of panels need at a time: 15 KiB, about half of the L1 cache.
struct Scratch {
    alignas(64) uint8_t nibbles[kBlockNibbles * kMaxGroup * kLanes];
    // Sums of each row: for each panel the even bytes of the transposed order, then the odd ones.
    alignas(64) uint16_t sums[kBlockRows][kMaxGroup * kLanes];
    // The table of each nibble of each pair of rows.
    alignas(64) uint8_t index[kBlockRows / 2][kIndexBytes];
};

// The number of the table of each nibble of two rows.
inline void index_pair(__m256i first, __m256i second, uint8_t *index) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i even = _mm256_or_si256(
        _mm256_and_si256(first, low), _mm256_slli_epi16(_mm256_and_si256(second, low), 4));
    const __m256i odd = _mm256_or_si256(high_halves(first), _mm256_andnot_si256(low, second));
    const __m256i a = _mm256_unpacklo_epi8(even, odd), b = _mm256_unpackhi_epi8(even, odd);
    store(index, _mm256_permute2x128_si256(a, b, 0x20));
    store(index + 32, _mm256_permute2x128_si256(a, b, 0x31));
}

// Number 0 stands where a block has no more words.
inline void index_rows(const uint32_t *const *rows, size_t m, ptrdiff_t offset, size_t words,
                       uint8_t (*index)[kIndexBytes]) {
    const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i used = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(words)), order);
    for (size_t r = 0; r < m; r += 2) {
        const uint32_t *first = rows[r] + offset, *second = rows[r + 1 < m ? r + 1 : r] + offset;
        index_pair(_mm256_and_si256(load(first), used), _mm256_and_si256(load(second), used),
                   index[r / 2]);
    }
}

// The same for a block that is spread over several runs. Copies eight words a piece: what stands
// behind a piece is overwritten by the next.
inline void index_pieces(const uint32_t *const *rows, size_t m, const Pieces &pieces, size_t words,
                         uint8_t (*index)[kIndexBytes]) {
    uint32_t gathered[kGatherRows][kBlockWords + 8];
    const uint32_t *starts[kGatherRows];
    for (size_t begin = 0; begin < m; begin += kGatherRows) {
        const size_t count = kGatherRows < m - begin ? kGatherRows : m - begin;
        for (size_t r = 0; r < count; ++r) {
            starts[r] = gathered[r];
            for (size_t i = 0; i < pieces.count; ++i) {
                store(gathered[r] + pieces.target[i], load(rows[begin + r] + pieces.offset[i]));
            }
        }
        index_rows(starts, count, 0, words, index + begin / 2);
    }
}

// Byte b of all 32 lanes of a word in plane b; its byte 16 h + 4 i + j is lane 8 i + 4 h + j.
inline void transpose_word(const uint8_t *word, __m256i plane[4]) {
    const __m256i group = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i y0 = _mm256_shuffle_epi8(load(word), group);
    const __m256i y1 = _mm256_shuffle_epi8(load(word + 32), group);
    const __m256i y2 = _mm256_shuffle_epi8(load(word + 64), group);
    const __m256i y3 = _mm256_shuffle_epi8(load(word + 96), group);
    const __m256i low01 = _mm256_unpacklo_epi32(y0, y1), high01 = _mm256_unpackhi_epi32(y0, y1);
    const __m256i low23 = _mm256_unpacklo_epi32(y2, y3), high23 = _mm256_unpackhi_epi32(y2, y3);
    plane[0] = _mm256_unpacklo_epi64(low01, low23);
    plane[1] = _mm256_unpackhi_epi64(low01, low23);
    plane[2] = _mm256_unpacklo_epi64(high01, high23);
    plane[3] = _mm256_unpackhi_epi64(high01, high23);
}

// nibbles: [nibble][panel of the group][32]. Returns the number of nibbles, a multiple of three.
template <size_t group>
inline size_t split_panels(const uint8_t *panels, size_t panel_bytes, size_t words,
                           uint8_t *nibbles) {
    constexpr size_t step = group * kLanes;
    const __m256i low = _mm256_set1_epi8(15);
    for (size_t g = 0; g < group; ++g) {
        const uint8_t *from = panels + g * panel_bytes;
        uint8_t *to = nibbles + g * kLanes;
        for (size_t w = 0; w < words; ++w, from += kWordBytes, to += 8 * step) {
            // The blocks of a panel are far apart in time: have the next one on its way.
            prefetch_word(from + kBlockWords * kWordBytes);
            __m256i plane[4];
            transpose_word(from, plane);
            for (size_t b = 0; b < 4; ++b) {
                store(to + 2 * b * step, _mm256_and_si256(plane[b], low));
                store(to + (2 * b + 1) * step, high_halves(plane[b]));
            }
        }
    }
    size_t count = 8 * words;
    for (; count % 3 != 0; ++count) {
        for (size_t g = 0; g < group; ++g) {
            store(nibbles + count * step + g * kLanes, _mm256_setzero_si256());
        }
    }
    return count;
}

inline __m256i table_of(uint8_t pair) {
    return _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i *>(kPairTables.entry[pair])));
}

inline void add_sums(uint16_t *sums, __m256i counts, bool first) {
    __m256i even = _mm256_and_si256(counts, _mm256_set1_epi16(255));
    __m256i odd = _mm256_srli_epi16(counts, 8);
    if (!first) {
        even = _mm256_add_epi16(even, load(sums));
        odd = _mm256_add_epi16(odd, load(sums + 16));
    }
    store(sums, even);
    store(sums + 16, odd);
}

// Counts the unequal bits of two rows and the outputs of a group of panels in one block of words.
// `total` is the sum of low + 16 * high, of which a byte keeps the last eight bits; with the exact
// sum of the high halves these give the sum of the low halves.
template <size_t group>
inline void count_pair(const uint8_t *index, const uint8_t *nibbles, size_t count, bool first,
                       uint16_t *sums0, uint16_t *sums1) {
    constexpr size_t step = group * kLanes;
    __m256i total[group], high[group];
    for (size_t g = 0; g < group; ++g) total[g] = high[g] = _mm256_setzero_si256();
    for (const uint8_t *end = index + count; index != end; index += 3, nibbles += 3 * step) {
        __m256i t0 = table_of(index[0]), t1 = table_of(index[1]), t2 = table_of(index[2]);
        for (size_t g = 0; g < group; ++g) {
            const uint8_t *at = nibbles + g * kLanes;
            const __m256i three = _mm256_add_epi8(
                _mm256_add_epi8(_mm256_shuffle_epi8(t0, load(at)),
                                _mm256_shuffle_epi8(t1, load(at + step))),
                _mm256_shuffle_epi8(t2, load(at + 2 * step)));
            total[g] = _mm256_add_epi8(total[g], three);
            high[g] = _mm256_add_epi8(high[g], high_halves(three));
            // One panel after the other: interleaved, the compiler runs out of registers.
            asm volatile("" : "+x"(t0), "+x"(t1), "+x"(t2), "+x"(total[g]), "+x"(high[g]));
        }
    }
    for (size_t g = 0; g < group; ++g) {
        const __m256i shifted =
            _mm256_slli_epi16(_mm256_and_si256(high[g], _mm256_set1_epi8(15)), 4);
        add_sums(sums0 + g * kLanes, _mm256_sub_epi8(total[g], shifted), first);
        add_sums(sums1 + g * kLanes, high[g], first);
    }
}

// Undoes the order of transpose_word.
inline void write_lanes(const uint16_t *sums, int32_t bits, bool first, int32_t *out) {
    const __m256i even = load(sums), odd = load(sums + 16), zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
    const __m256i counts[4] = {
        _mm256_unpacklo_epi16(low, zero), _mm256_unpackhi_epi16(low, zero),
        _mm256_unpacklo_epi16(high, zero), _mm256_unpackhi_epi16(high, zero)};
    for (size_t i = 0; i < 4; ++i) {
        const __m256i before = first ? _mm256_set1_epi32(bits) : load(out + 8 * i);
        store(out + 8 * i, _mm256_sub_epi32(before, _mm256_slli_epi32(counts[i], 1)));
    }
}

// One span of words (kSpanWords at most) of a block of rows and a group of panels.
template <size_t group>
void multiply_group(const uint32_t *const *rows, size_t m, const Runs &runs, Cursor &cursor,
                    const uint8_t *panels, size_t panel_bytes, size_t words, int32_t bits,
                    bool first_span, int32_t *out, size_t stride) {
    Scratch scratch;
    for (size_t begin = 0; begin < words; begin += kBlockWords) {
        const size_t length = kBlockWords < words - begin ? kBlockWords : words - begin;
        const Pieces pieces = cursor.take(runs, length);
        if (pieces.count == 1)
            index_rows(rows, m, pieces.offset[0], length, scratch.index);
        else
            index_pieces(rows, m, pieces, length, scratch.index);
        const size_t count = split_panels<group>(panels + begin * kWordBytes, panel_bytes, length,
                                                 scratch.nibbles);
        for (size_t r = 0; r < m; r += 2) {
            count_pair<group>(scratch.index[r / 2], scratch.nibbles, count, begin == 0,
                              scratch.sums[r], scratch.sums[r + 1]);
        }
    }
    for (size_t r = 0; r < m; ++r) {
        for (size_t g = 0; g < group; ++g) {
            write_lanes(scratch.sums[r] + g * kLanes, bits, first_span,
                        out + r * stride + g * kLanes);
        }
    }
}

template <size_t group>
void multiply_spans(const uint32_t *const *rows, size_t m, const Runs &runs, const uint8_t *panels,
                    int32_t bits, int32_t *out, size_t stride) {
    const size_t words = runs.count * runs.length;
    Cursor cursor;
    for (size_t begin = 0; begin < words; begin += kSpanWords) {
        const size_t length = kSpanWords < words - begin ? kSpanWords : words - begin;
        multiply_group<group>(rows, m, runs, cursor, panels + begin * kWordBytes,
                              words * kWordBytes, length, bits, begin == 0, out, stride);
    }
}

void multiply_table(const uint32_t *const *rows, size_t m, const Runs &runs,
                    const uint32_t *panels, size_t panel_count, int32_t bits, int32_t *out,
                    size_t stride) {
    const uint8_t *bytes = reinterpret_cast<const uint8_t *>(panels);
    const size_t panel_bytes = runs.count * runs.length * kWordBytes;
    const size_t blocks = (m + kBlockRows - 1) / kBlockRows;
    const size_t block_rows = blocks == 0 ? 0 : ((m + blocks - 1) / blocks + 1) / 2 * 2;
    for (size_t p = 0; p < panel_count; p += kMaxGroup) {
        const size_t group = kMaxGroup < panel_count - p ? kMaxGroup : panel_count - p;
        const uint8_t *at = bytes + p * panel_bytes;
        for (size_t r = 0; r < m; r += block_rows) {
            const size_t count = block_rows < m - r ? block_rows : m - r;
            int32_t *to = out + r * stride + p * kLanes;
            switch (group) {
                case 1: multiply_spans<1>(rows + r, count, runs, at, bits, to, stride); break;
                case 2: multiply_spans<2>(rows + r, count, runs, at, bits, to, stride); break;
                case 3: multiply_spans<3>(rows + r, count, runs, at, bits, to, stride); break;
                default: multiply_spans<4>(rows + r, count, runs, at, bits, to, stride); break;
            }
        }
    }
}

}  // namespace

void fill_binary_avx2(KernelTable &table) {
    table.binary_lanes = kLanes;
    table.binary[0] = {"table", multiply_table};
    table.binary[1] = {"shuffle", multiply_shuffle};
    table.binary[2] = {nullptr, nullptr};
}

}  // namespace whit
