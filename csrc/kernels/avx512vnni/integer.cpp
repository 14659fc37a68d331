// Integers and bit planes with AVX-512 VNNI: products of four bytes, or two words, into 32 bits.
//
// The products are inline assembly, because gcc 12 copies each sum to another register around the
// intrinsic. The left side is the unsigned operand, which cannot be a broadcast in memory; it is
// broadcast once for the vectors of a panel.
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 says so of the undefined operands in its own header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/kernels.h"

namespace whit {
namespace {

struct Lanes {
    using Vector = __m512i;
    static constexpr size_t kBytes = 64;
    static constexpr bool kFourByteProduct = true;
    static constexpr size_t kTileRows = 12;  // 24 sums, 2 weights, 1 left, 1 product

    static Vector zero() { return _mm512_setzero_si512(); }
    static Vector load(const void *from) {
        return _mm512_loadu_si512(from);
    }
    static Vector load_widened(const void *from) {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i *>(from)));
    }
    static void store(void *to, Vector value) {
        _mm512_storeu_si512(to, value);
    }
    static Vector broadcast(const uint8_t *four) {
        int32_t value;
        __builtin_memcpy(&value, four, 4);
        return _mm512_set1_epi32(value);
    }
    static Vector bytes(int value) { return _mm512_set1_epi8(static_cast<char>(value)); }
    static Vector table(const int8_t *sixteen) {
        return _mm512_broadcast_i32x4(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(sixteen)));
    }
    static Vector lookup(Vector table, Vector index) { return _mm512_shuffle_epi8(table, index); }
    static Vector shift_right(Vector value, unsigned bits) {
        return bits == 0 ? value : _mm512_srli_epi16(value, bits);
    }
    static Vector shift_left(Vector value, unsigned bits) {
        return _mm512_slli_epi16(value, bits);
    }
    static Vector bit_and(Vector a, Vector b) { return _mm512_and_si512(a, b); }
    static Vector bit_or(Vector a, Vector b) { return _mm512_or_si512(a, b); }
    static Vector add_bytes(Vector a, Vector b) { return _mm512_add_epi8(a, b); }
    static Vector subtract_bytes(Vector a, Vector b) { return _mm512_sub_epi8(a, b); }
    static Vector add_words(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
    static Vector widen(Vector sums) { return sums; }
    static void accumulate_bytes(Vector &sum, Vector left, Vector weights) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(left), "v"(weights));
    }
    static void accumulate_words(Vector &sum, Vector left, Vector weights) {
        asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(left), "v"(weights));
    }
    // count: a multiple of 8.
    static int32_t sum_bytes(const uint8_t *from, size_t count) {
        __m128i sum = _mm_setzero_si128();
        for (size_t i = 0; i < count; i += 8) {
            const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(from + i));
            sum = _mm_add_epi64(sum, _mm_sad_epu8(eight, _mm_setzero_si128()));
        }
        return _mm_cvtsi128_si32(sum);
    }

    using Floats = __m512;
    static constexpr size_t kLookupBits = 4;  // vpermps: sixteen values

    static Floats float_zero() { return _mm512_setzero_ps(); }
    static Floats float_load(const float *from) { return _mm512_loadu_ps(from); }
    static void float_store(float *to, Floats value) { _mm512_storeu_ps(to, value); }
    static Floats float_broadcast(const float *value) { return _mm512_set1_ps(*value); }
    static Floats float_add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static Floats float_subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static Floats float_multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats float_fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static Floats float_table(const float *sixteen) { return _mm512_loadu_ps(sixteen); }
    static Floats float_lookup(Floats table, Vector index) {
        return _mm512_permutexvar_ps(index, table);
    }
    static Vector shift_words(Vector value, unsigned bits) {
        return bits == 0 ? value : _mm512_srli_epi32(value, bits);
    }
    // Byte `index` of each lane, signed.
    static Floats float_of_byte(Vector bytes, unsigned index) {
        const Vector high = _mm512_slli_epi32(bytes, 24 - 8 * index);
        return _mm512_cvtepi32_ps(_mm512_srai_epi32(high, 24));
    }
};

}  // namespace
}  // namespace whit

#include "kernels/generic/integer_level.h"

namespace whit {

void fill_integer_avx512vnni(KernelTable &table) { fill_integers(table); }

}  // namespace whit
