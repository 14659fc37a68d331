// int32 sums to integers of few bits: a product of 64 bits, rounded half to even.
// Included by elementwise.h, inside its anonymous namespace.

inline int32_t requantized(int32_t x, int64_t multiplier, int64_t offset, const Requantizing &how) {
    const int64_t wide = x * multiplier + offset, half = int64_t{1} << (how.exponent - 1);
    int64_t whole = wide >> how.exponent;
    const int64_t rest = wide & ((int64_t{1} << how.exponent) - 1);
    whole += rest > half || (rest == half && (whole & 1));
    return static_cast<int32_t>(whole < how.least ? how.least
                                : whole > how.most ? how.most
                                                   : whole);
}

void requantize_row(int32_t *values, size_t from, size_t to, const Requantizing &how) {
    for (size_t i = from; i < to; ++i)
        values[i] = requantized(values[i], how.multipliers[how.multiplier_per_column ? i : 0],
                                how.offsets ? how.offsets[how.offset_per_column ? i : 0] : 0, how);
}

#if defined(__AVX2__)
// Four products of 64 bits, rounded half to even: adding half - 1 and the lowest bit of the
// quotient carries exactly where the rule asks for it. A bias keeps the logical shift (AVX2 has no
// arithmetic one) on positive numbers.
inline __m256i rounded_quotients(__m256i wide, __m256i half_less_1, __m128i count, __m256i bias) {
    const __m256i one = _mm256_set1_epi64x(1);
    wide = _mm256_add_epi64(wide, bias);
    const __m256i odd = _mm256_and_si256(_mm256_srl_epi64(wide, count), one);
    return _mm256_srl_epi64(_mm256_add_epi64(wide, _mm256_add_epi64(half_less_1, odd)), count);
}

// In doubles every step is exact but the last conversion, which rounds half to even.
size_t requantize_exactly(int32_t *values, size_t n, const Requantizing &how) {
    const __m256i least = _mm256_set1_epi32(static_cast<int32_t>(how.least));
    const __m256i most = _mm256_set1_epi32(static_cast<int32_t>(how.most));
    const auto quotients = [&](size_t i) {
        const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i *>(values + i));
        return _mm256_cvtpd_epi32(_mm256_fmadd_pd(_mm256_cvtepi32_pd(four),
                                                  _mm256_loadu_pd(how.exact_multipliers + i),
                                                  _mm256_loadu_pd(how.exact_offsets + i)));
    };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i both = _mm256_set_m128i(quotients(i + 4), quotients(i));
        both = _mm256_min_epi32(_mm256_max_epi32(both, least), most);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(values + i), both);
    }
    return i;
}

void requantize(const Block &x, const Requantizing &how) {
    if (how.exact_multipliers) {
        for (size_t row = 0; row < x.rows; ++row) {
            int32_t *values = x.integers(row);
            requantize_row(values, requantize_exactly(values, x.columns, how), x.columns, how);
        }
        return;
    }
    const int64_t half = int64_t{1} << (how.exponent - 1);
    // The bias is a multiple of 2^(exponent + 1), so that neither rest nor parity changes.
    const int64_t bias = int64_t{1} << 62;
    const bool fast = how.narrow && how.exponent <= 60;
    const int32_t low_bias = how.exponent > 60 ? 0 : static_cast<int32_t>(bias >> how.exponent);
    const __m128i count = _mm_cvtsi64_si128(static_cast<long long>(how.exponent));
    const __m256i least = _mm256_set1_epi32(static_cast<int32_t>(how.least));
    const __m256i most = _mm256_set1_epi32(static_cast<int32_t>(how.most));
    const __m256i biases = _mm256_set1_epi64x(bias), halves = _mm256_set1_epi64x(half - 1);
    for (size_t row = 0; row < x.rows; ++row) {
        int32_t *values = x.integers(row);
        size_t i = 0;
        for (; fast && i + 8 <= x.columns; i += 8) {
            const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values + i));
            const __m256i m =
                how.multiplier_per_column
                    ? _mm256_loadu_si256(reinterpret_cast<const __m256i *>(how.multipliers + i))
                    : _mm256_set1_epi32(*how.multipliers);
            __m256i even = _mm256_mul_epi32(v, m);
            __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(v, 32), _mm256_srli_epi64(m, 32));
            if (how.offsets && how.offset_per_column) {
                const __m256i a =
                    _mm256_loadu_si256(reinterpret_cast<const __m256i *>(how.offsets + i));
                const __m256i b =
                    _mm256_loadu_si256(reinterpret_cast<const __m256i *>(how.offsets + i + 4));
                const __m256i low = _mm256_unpacklo_epi64(a, b), high = _mm256_unpackhi_epi64(a, b);
                // low: 0 4 2 6, high: 1 5 3 7; wanted are 0 2 4 6 and 1 3 5 7.
                even = _mm256_add_epi64(even, _mm256_permute4x64_epi64(low, 0xD8));
                odd = _mm256_add_epi64(odd, _mm256_permute4x64_epi64(high, 0xD8));
            } else if (how.offsets) {
                even = _mm256_add_epi64(even, _mm256_set1_epi64x(*how.offsets));
                odd = _mm256_add_epi64(odd, _mm256_set1_epi64x(*how.offsets));
            }
            even = rounded_quotients(even, halves, count, biases);
            odd = rounded_quotients(odd, halves, count, biases);
            __m256i both = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
            both = _mm256_sub_epi32(both, _mm256_set1_epi32(low_bias));
            both = _mm256_min_epi32(_mm256_max_epi32(both, least), most);
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(values + i), both);
        }
        requantize_row(values, i, x.columns, how);
    }
}
#else
void requantize(const Block &x, const Requantizing &how) {
    for (size_t row = 0; row < x.rows; ++row) requantize_row(x.integers(row), 0, x.columns, how);
}
#endif
