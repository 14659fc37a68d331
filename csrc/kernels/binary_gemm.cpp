// Binary times binary: the reference, the portable form, and the choice between forms.
#include "binary_gemm.h"

#include "binary_gemm_tile.h"
#include "whit.h"

extern "C" void whit_binary_gemm_reference(const uint64_t *a, const uint64_t *b, int32_t *out,
                                           size_t rows_a, size_t rows_b, size_t words,
                                           int32_t length) {
    for (size_t i = 0; i < rows_a; ++i) {
        for (size_t j = 0; j < rows_b; ++j) {
            int32_t sum = 0;
            for (int32_t k = 0; k < length; ++k) {
                const size_t word = static_cast<size_t>(k) / 64, bit = static_cast<size_t>(k) % 64;
                const bool negative_a = (a[i * words + word] >> bit) & 1u;
                const bool negative_b = (b[j * words + word] >> bit) & 1u;
                sum += negative_a == negative_b ? 1 : -1;
            }
            out[i * rows_b + j] = sum;
        }
    }
}

extern "C" void whit_binary_gemm(const uint64_t *a, const uint64_t *b, int32_t *out, size_t rows_a,
                                 size_t rows_b, size_t words, int32_t length) {
    static const bool has_popcnt =
        whit::binary_gemm_popcnt != nullptr && (whit_cpu_features() & WHIT_CPU_POPCNT) != 0;
    const whit::BinaryGemm form = has_popcnt ? whit::binary_gemm_popcnt : &binary_gemm_tile;
    form(a, b, out, rows_a, rows_b, words, length);
}
