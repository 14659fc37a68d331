// Numbers to sign bits by thresholds. Included by elementwise.h, inside its anonymous namespace.

template <typename Number>
inline uint32_t negative_bits(const Number *x, const Number *t, uint32_t flipped, size_t n) {
    uint32_t above = 0, below = 0;
    for (size_t i = 0; i < n; ++i) {
        above |= static_cast<uint32_t>(!(x[i] <= t[i])) << i;
        below |= static_cast<uint32_t>(!(x[i] >= t[i])) << i;
    }
    return (above & flipped) | (below & ~flipped & (n == 32 ? ~0u : (1u << n) - 1));
}

#if defined(__AVX2__)
inline uint32_t negative_mask(const float *x, const float *t, bool flipped) {
    const __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(t);
    return static_cast<uint32_t>(_mm256_movemask_ps(
        flipped ? _mm256_cmp_ps(a, b, _CMP_NLE_UQ) : _mm256_cmp_ps(a, b, _CMP_NGE_UQ)));
}
inline uint32_t negative_mask(const int32_t *x, const int32_t *t, bool flipped) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(t));
    const __m256i found = flipped ? _mm256_cmpgt_epi32(a, b) : _mm256_cmpgt_epi32(b, a);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(found)));
}

template <typename Number>
inline uint32_t negative_word(const Number *x, const Number *t, uint32_t flipped) {
    uint32_t below = 0;
    for (size_t part = 0; part < 4; ++part)
        below |= negative_mask(x + 8 * part, t + 8 * part, false) << 8 * part;
    if (!flipped) return below;
    uint32_t above = 0;
    for (size_t part = 0; part < 4; ++part)
        above |= negative_mask(x + 8 * part, t + 8 * part, true) << 8 * part;
    return (above & flipped) | (below & ~flipped);
}
#else
template <typename Number>
inline uint32_t negative_word(const Number *x, const Number *t, uint32_t flipped) {
    return negative_bits(x, t, flipped, 32);
}
#endif

template <typename Number>
inline void pack_signs(const Block &x, const Number *thresholds, const uint32_t *flipped,
                       uint32_t *out, size_t out_stride) {
    for (size_t row = 0; row < x.rows; ++row) {
        const Number *values = static_cast<const Number *>(x.data) + row * x.stride;
        uint32_t *words = out + row * out_stride;
        size_t i = 0;
        for (; i + 32 <= x.columns; i += 32)
            words[i / 32] = negative_word(values + i, thresholds + i, flipped ? flipped[i / 32] : 0);
        if (i < x.columns)
            words[i / 32] = negative_bits(values + i, thresholds + i,
                                          flipped ? flipped[i / 32] : 0, x.columns - i);
    }
}

void sign_floats(const Block &x, const float *thresholds, const uint32_t *flipped, uint32_t *out,
                 size_t out_stride) {
    pack_signs(x, thresholds, flipped, out, out_stride);
}
void sign_integers(const Block &x, const int32_t *thresholds, const uint32_t *flipped,
                   uint32_t *out, size_t out_stride) {
    pack_signs(x, thresholds, flipped, out, out_stride);
}
