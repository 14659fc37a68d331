// Signs times signs with AVX-512 BW: what the plain level and the one with VNNI share.
// All is static: each instruction set compiles its own copy (see kernels.h).
#ifndef WHIT_KERNELS_GENERIC_BINARY_AVX512_H
#define WHIT_KERNELS_GENERIC_BINARY_AVX512_H

// gcc 12 takes the undefined vectors inside its own intrinsics for a mistake (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "binary_driver.h"

namespace whit {
namespace {

// What takes counters by reference must be inlined, or they are kept in memory.
#define WHIT_INLINE inline __attribute__((always_inline))

constexpr size_t kZmmLanes = 16;
constexpr size_t kPrefetchWords = 32;  // 64 bytes each

// Word `word` of a row against the 16 outputs of a panel: bit 1 where they are unequal.
WHIT_INLINE __m512i unequal(const uint32_t *row, const uint32_t *panel, size_t word) {
    return _mm512_xor_si512(_mm512_set1_epi32(static_cast<int>(row[word])),
                            _mm512_loadu_si512(panel + word * kZmmLanes));
}

// Bit counts of half bytes, times `weight` (1, 2, 4 or 8).
inline __m512i nibble_counts(int weight) {
    const __m128i counts = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m128i shift = _mm_cvtsi32_si128(weight == 8 ? 3 : weight / 2);
    return _mm512_broadcast_i32x4(_mm_sll_epi16(counts, shift));
}

WHIT_INLINE __m512i count_bytes(__m512i bits, __m512i table) {
    const __m512i half = _mm512_set1_epi8(15);
    const __m512i low = _mm512_and_si512(bits, half);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bits, 4), half);
    return _mm512_add_epi8(_mm512_shuffle_epi8(table, low), _mm512_shuffle_epi8(table, high));
}

inline void subtract_twice(int32_t *out, __m512i counts) {
    _mm512_storeu_si512(
        out, _mm512_sub_epi32(_mm512_loadu_si512(out), _mm512_slli_epi32(counts, 1)));
}

// Adds two vectors of bits to a sum of bits; returns the carry. The old sum is not needed for the
// carry once the new one is known, so that neither instruction has to save its operand.
WHIT_INLINE __m512i carry_save(__m512i &sum, __m512i b, __m512i c) {
    sum = _mm512_ternarylogic_epi32(sum, b, c, 0x96);   // exclusive or of all three
    __asm__("" : "+v"(sum));                            // in place: gcc 12 copies it otherwise
    return _mm512_ternarylogic_epi32(b, c, sum, 0xD4);  // majority of b, c and b ^ c ^ sum
}

// Counters of one row: a bit in each vector, that counts 1, 2, 4 and 8.
struct BitCounters {
    __m512i ones, twos, fours, eights;

    // Eight words; returns the carry out of the fours.
    WHIT_INLINE __m512i add_eight(const uint32_t *row, const uint32_t *panel, size_t word) {
        const __m512i first = add_four(row, panel, word);
        const __m512i second = add_four(row, panel, word + 4);
        return carry_save(fours, first, second);
    }

  private:
    WHIT_INLINE __m512i add_four(const uint32_t *row, const uint32_t *panel, size_t word) {
        const __m512i first =
            carry_save(ones, unequal(row, panel, word), unequal(row, panel, word + 1));
        const __m512i second =
            carry_save(ones, unequal(row, panel, word + 2), unequal(row, panel, word + 3));
        return carry_save(twos, first, second);
    }
};

// A Harley-Seal tree of carry-save adders. Sum is how the level adds up bytes:
//   void clear(); void add_sixteens(__m512i bits); void add(__m512i bits, int weight);
//   __m512i lanes();
// of which add_sixteens is the one in the loop, and add comes for the rest and the counters.
// One row at a time: the tree has enough independent operations, and sharing a load gains nothing.
template <typename Sum>
struct CarrySaveTile {
    static constexpr size_t kLanes = kZmmLanes;
    static constexpr size_t kRows = 1;

    template <size_t count>
    static void multiply(const uint32_t *const *rows, const uint32_t *panel, size_t words,
                         int32_t *const *out, bool is_new) {
        const __m512i zero = _mm512_setzero_si512();
        BitCounters counters = {zero, zero, zero, zero};
        Sum sum;
        sum.clear();
        const uint32_t *row = rows[0];
        size_t w = 0;
        for (; w + 16 <= words; w += 16) {
            if (is_new) prefetch(panel + (w + kPrefetchWords) * kLanes);
            add_sixteen(row, panel, w, counters, sum);
        }
        add_rest(row, panel, w, words, counters, sum);
        subtract_twice(out[0], sum.lanes());
    }

  private:
    static void prefetch(const uint32_t *panel) {
        for (size_t i = 0; i < 16; ++i) {
            _mm_prefetch(reinterpret_cast<const char *>(panel + i * kLanes), _MM_HINT_T0);
        }
    }

    static WHIT_INLINE void add_sixteen(const uint32_t *row, const uint32_t *panel, size_t word,
                                        BitCounters &counters, Sum &sum) {
        const __m512i first = counters.add_eight(row, panel, word);
        const __m512i second = counters.add_eight(row, panel, word + 8);
        sum.add_sixteens(carry_save(counters.eights, first, second));
    }

    static WHIT_INLINE void add_rest(const uint32_t *row, const uint32_t *panel, size_t word,
                                     size_t words, BitCounters &counters, Sum &sum) {
        if (words - word >= 8) {
            const __m512i carry = counters.add_eight(row, panel, word);
            sum.add_sixteens(_mm512_and_si512(counters.eights, carry));
            counters.eights = _mm512_xor_si512(counters.eights, carry);
            word += 8;
        }
        for (; word < words; ++word) sum.add(unequal(row, panel, word), 1);
        sum.add(counters.ones, 1);
        sum.add(counters.twos, 2);
        sum.add(counters.fours, 4);
        sum.add(counters.eights, 8);
    }
};

// Byte popcount by shuffles, for few words.
struct ShuffleTile {
    static constexpr size_t kLanes = kZmmLanes;
    static constexpr size_t kRows = 2;

    template <size_t count>
    static void multiply(const uint32_t *const *rows, const uint32_t *panel, size_t words,
                         int32_t *const *out, bool) {
        constexpr size_t kStep = 31;  // a byte counts 8 bits a word
        const __m512i table = nibble_counts(1), one = _mm512_set1_epi8(1);
        __m512i sums[count];
        for (size_t r = 0; r < count; ++r) sums[r] = _mm512_setzero_si512();
        for (size_t begin = 0; begin < words; begin += kStep) {
            const size_t end = kStep < words - begin ? begin + kStep : words;
            __m512i counts[count];
            for (size_t r = 0; r < count; ++r) counts[r] = _mm512_setzero_si512();
            for (size_t w = begin; w < end; ++w) {
                for (size_t r = 0; r < count; ++r) {
                    counts[r] = _mm512_add_epi8(counts[r],
                                                count_bytes(unequal(rows[r], panel, w), table));
                }
            }
            for (size_t r = 0; r < count; ++r) {
                sums[r] = _mm512_add_epi32(
                    sums[r], _mm512_madd_epi16(_mm512_maddubs_epi16(counts[r], one),
                                               _mm512_set1_epi16(1)));
            }
        }
        for (size_t r = 0; r < count; ++r) subtract_twice(out[r], sums[r]);
    }
};

}  // namespace
}  // namespace whit

#endif  // WHIT_KERNELS_GENERIC_BINARY_AVX512_H
