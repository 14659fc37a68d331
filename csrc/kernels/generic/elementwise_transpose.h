// Rows and columns exchanged. Included by elementwise.h, inside its anonymous namespace.

// A part of a matrix: rows [r, last_r) and columns [c, last_c) of the input.
template <typename Item>
inline void exchange_part(const Item *from, size_t in_stride, Item *to, size_t out_stride, size_t r,
                          size_t last_r, size_t c, size_t last_c) {
    for (size_t j = c; j < last_c; ++j)
        for (size_t i = r; i < last_r; ++i) to[j * out_stride + i] = from[i * in_stride + j];
}

#if defined(__AVX2__)
// Eight rows of eight numbers of 32 bits, in registers.
inline void exchange_eight(const float *from, size_t in_stride, float *to, size_t out_stride) {
    __m256 rows[8], pairs[8], fours[8];
    for (size_t i = 0; i < 8; ++i) rows[i] = _mm256_loadu_ps(from + i * in_stride);
    for (size_t i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
        fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
    }
    for (size_t i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * out_stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * out_stride,
                         _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

inline void exchange_words(const float *from, size_t rows, size_t columns, size_t in_stride,
                           float *to, size_t out_stride) {
    const size_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
    for (size_t c = 0; c < whole_columns; c += 8)
        for (size_t r = 0; r < whole_rows; r += 8)
            exchange_eight(from + r * in_stride + c, in_stride, to + c * out_stride + r,
                           out_stride);
    exchange_part(from, in_stride, to, out_stride, whole_rows, rows, 0, whole_columns);
    exchange_part(from, in_stride, to, out_stride, 0, rows, whole_columns, columns);
}
#endif

template <typename Item>
inline void exchange(const void *in, size_t rows, size_t columns, size_t in_stride, void *out,
                     size_t out_stride) {
    constexpr size_t kTile = 16;  // both sides of a tile stay in the cache
    for (size_t r = 0; r < rows; r += kTile)
        for (size_t c = 0; c < columns; c += kTile)
            exchange_part(static_cast<const Item *>(in), in_stride, static_cast<Item *>(out),
                          out_stride, r, r + kTile < rows ? r + kTile : rows, c,
                          c + kTile < columns ? c + kTile : columns);
}

void transpose(const void *in, size_t rows, size_t columns, size_t in_stride, void *out,
               size_t out_stride, size_t width) {
#if defined(__AVX2__)
    if (width == 4)
        return exchange_words(static_cast<const float *>(in), rows, columns, in_stride,
                              static_cast<float *>(out), out_stride);
#endif
    if (width == 4) return exchange<uint32_t>(in, rows, columns, in_stride, out, out_stride);
    if (width == 2) return exchange<uint16_t>(in, rows, columns, in_stride, out, out_stride);
    exchange<uint8_t>(in, rows, columns, in_stride, out, out_stride);
}
