// Integers and bit planes with AVX2: products of byte pairs (vpmaddubsw), summed in 16 bits.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace whit {
namespace {

struct Lanes {
    using Vector = __m256i;
    static constexpr size_t kBytes = 32;
    static constexpr bool kFourByteProduct = false;
    static constexpr size_t kTileRows = 6;  // 12 sums, 2 weights, 1 left, 1 product

    static Vector zero() { return _mm256_setzero_si256(); }
    static Vector load(const void *from) {
        return _mm256_loadu_si256(static_cast<const __m256i *>(from));
    }
    static Vector load_widened(const void *from) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i *>(from)));
    }
    static void store(void *to, Vector value) {
        _mm256_storeu_si256(static_cast<__m256i *>(to), value);
    }
    static Vector broadcast(const uint8_t *four) {
        int32_t value;
        __builtin_memcpy(&value, four, 4);
        return _mm256_set1_epi32(value);
    }
    static Vector bytes(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
    static Vector table(const int8_t *sixteen) {
        return _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(sixteen)));
    }
    static Vector lookup(Vector table, Vector index) { return _mm256_shuffle_epi8(table, index); }
    static Vector shift_right(Vector value, unsigned bits) {
        return bits == 0 ? value : _mm256_srli_epi16(value, static_cast<int>(bits));
    }
    static Vector shift_left(Vector value, unsigned bits) {
        return _mm256_slli_epi16(value, static_cast<int>(bits));
    }
    static Vector bit_and(Vector a, Vector b) { return _mm256_and_si256(a, b); }
    static Vector bit_or(Vector a, Vector b) { return _mm256_or_si256(a, b); }
    static Vector add_bytes(Vector a, Vector b) { return _mm256_add_epi8(a, b); }
    static Vector subtract_bytes(Vector a, Vector b) { return _mm256_sub_epi8(a, b); }
    static Vector add_words(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
    static Vector widen(Vector pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
    static void accumulate_bytes(Vector &sum, Vector left, Vector weights) {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(left, weights));
    }
    static void accumulate_words(Vector &sum, Vector left, Vector weights) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(left, weights));
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

    using Floats = __m256;
    static constexpr size_t kLookupBits = 2;  // vpermilps: four values in each half

    static Floats float_zero() { return _mm256_setzero_ps(); }
    static Floats float_load(const float *from) { return _mm256_loadu_ps(from); }
    static void float_store(float *to, Floats value) { _mm256_storeu_ps(to, value); }
    static Floats float_broadcast(const float *value) { return _mm256_broadcast_ss(value); }
    static Floats float_add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static Floats float_subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static Floats float_multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats float_fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static Floats float_table(const float *four) {
        return _mm256_broadcast_ps(reinterpret_cast<const __m128 *>(four));
    }
    static Floats float_lookup(Floats table, Vector index) {
        return _mm256_permutevar_ps(table, index);
    }
    static Vector shift_words(Vector value, unsigned bits) {
        return bits == 0 ? value : _mm256_srli_epi32(value, static_cast<int>(bits));
    }
    // Byte `index` of each lane, signed.
    static Floats float_of_byte(Vector bytes, unsigned index) {
        const Vector high = _mm256_slli_epi32(bytes, static_cast<int>(24 - 8 * index));
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(high, 24));
    }
};

}  // namespace
}  // namespace whit

#include "kernels/generic/integer_level.h"

namespace whit {

void fill_integer_avx2(KernelTable &table) { fill_integers(table); }

}  // namespace whit
