// The loop of the binary matrix product, compiled once for each instruction set.
//
// The function has internal linkage on purpose: the linker must never merge the copy that was
// compiled with -mpopcnt into a file that runs on a processor without it.
#ifndef WHIT_BINARY_GEMM_TILE_H
#define WHIT_BINARY_GEMM_TILE_H

#include <cstddef>
#include <cstdint>

namespace {

// Four rows of b share each word of a: one load, four exclusive ors and counts.
inline void binary_gemm_tile(const uint64_t *a, const uint64_t *b, int32_t *out, size_t rows_a,
                             size_t rows_b, size_t words, int32_t length) {
    for (size_t i = 0; i < rows_a; ++i) {
        const uint64_t *row = a + i * words;
        int32_t *line = out + i * rows_b;
        size_t j = 0;
        for (; j + 4 <= rows_b; j += 4) {
            const uint64_t *b0 = b + j * words, *b1 = b0 + words, *b2 = b1 + words,
                           *b3 = b2 + words;
            int64_t c0 = 0, c1 = 0, c2 = 0, c3 = 0;
            for (size_t w = 0; w < words; ++w) {
                const uint64_t word = row[w];
                c0 += __builtin_popcountll(word ^ b0[w]);
                c1 += __builtin_popcountll(word ^ b1[w]);
                c2 += __builtin_popcountll(word ^ b2[w]);
                c3 += __builtin_popcountll(word ^ b3[w]);
            }
            line[j] = static_cast<int32_t>(length - 2 * c0);
            line[j + 1] = static_cast<int32_t>(length - 2 * c1);
            line[j + 2] = static_cast<int32_t>(length - 2 * c2);
            line[j + 3] = static_cast<int32_t>(length - 2 * c3);
        }
        for (; j < rows_b; ++j) {
            const uint64_t *other = b + j * words;
            int64_t count = 0;
            for (size_t w = 0; w < words; ++w) count += __builtin_popcountll(row[w] ^ other[w]);
            line[j] = static_cast<int32_t>(length - 2 * count);
        }
    }
}

}  // namespace

#endif  // WHIT_BINARY_GEMM_TILE_H
