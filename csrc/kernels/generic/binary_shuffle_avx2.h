// Signs times signs with AVX2 by exclusive or and byte popcounts, for few rows: it has nothing to
// prepare, and reads the panels as one stream as fast as the L3 cache or memory gives them.
// All is static (see kernels.h). Panels: 32 outputs.
#ifndef WHIT_KERNELS_GENERIC_BINARY_SHUFFLE_AVX2_H
#define WHIT_KERNELS_GENERIC_BINARY_SHUFFLE_AVX2_H

#include <immintrin.h>

#include "../kernels.h"

namespace whit {
namespace {

constexpr size_t kLanes = 32;
constexpr size_t kWordBytes = kLanes * 4;  // of a panel

inline __m256i load(const void *from) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(from));
}

inline void store(void *to, __m256i value) {
    _mm256_storeu_si256(static_cast<__m256i *>(to), value);
}

inline __m256i high_halves(__m256i bytes) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
}

inline void prefetch_word(const uint8_t *word) {
    _mm_prefetch(reinterpret_cast<const char *>(word), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char *>(word + 64), _MM_HINT_T0);
}

// Adds up the four bytes of each lane.
inline __m256i lane_sums(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)),
                             _mm256_set1_epi16(1));
}

inline __m256i count_bytes(__m256i unequal) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i low = _mm256_and_si256(unequal, _mm256_set1_epi8(15));
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, low),
                           _mm256_shuffle_epi8(table, high_halves(unequal)));
}

constexpr size_t kByteWords = 31;  // a byte counts 8 bits a word
constexpr size_t kAhead = 2048;    // bytes: the panels are one stream of memory

// At most kByteWords words of one row against one panel.
inline void shuffle_words(const uint32_t *row, size_t words, const uint8_t *panel,
                          __m256i (&sums)[4]) {
    __m256i counts[4];
    for (size_t i = 0; i < 4; ++i) counts[i] = _mm256_setzero_si256();
    for (size_t w = 0; w < words; ++w, panel += kWordBytes) {
        const __m256i word = _mm256_set1_epi32(static_cast<int>(row[w]));
        prefetch_word(panel + kAhead);
        for (size_t i = 0; i < 4; ++i) {
            counts[i] = _mm256_add_epi8(
                counts[i], count_bytes(_mm256_xor_si256(word, load(panel + 32 * i))));
        }
    }
    for (size_t i = 0; i < 4; ++i) sums[i] = _mm256_add_epi32(sums[i], lane_sums(counts[i]));
}

inline void shuffle_panel(const uint32_t *row, const Runs &runs, const uint8_t *panel, int32_t bits,
                          int32_t *out) {
    __m256i sums[4];
    for (size_t i = 0; i < 4; ++i) sums[i] = _mm256_setzero_si256();
    for (size_t run = 0; run < runs.count; ++run) {
        for (size_t begin = 0; begin < runs.length; begin += kByteWords) {
            const size_t left = runs.length - begin, words = left < kByteWords ? left : kByteWords;
            shuffle_words(row + runs.offsets[run] + begin, words, panel, sums);
            panel += words * kWordBytes;
        }
    }
    for (size_t i = 0; i < 4; ++i) {
        const __m256i twice = _mm256_slli_epi32(sums[i], 1);
        store(out + 8 * i, _mm256_sub_epi32(_mm256_set1_epi32(bits), twice));
    }
}

void multiply_shuffle(const uint32_t *const *rows, size_t m, const Runs &runs,
                      const uint32_t *panels, size_t panel_count, int32_t bits, int32_t *out,
                      size_t stride) {
    const size_t panel_bytes = runs.count * runs.length * kWordBytes;
    const uint8_t *panel = reinterpret_cast<const uint8_t *>(panels);
    for (size_t p = 0; p < panel_count; ++p, panel += panel_bytes) {
        for (size_t r = 0; r < m; ++r) {
            shuffle_panel(rows[r], runs, panel, bits, out + r * stride + p * kLanes);
        }
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_KERNELS_GENERIC_BINARY_SHUFFLE_AVX2_H
