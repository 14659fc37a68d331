/* The C interface of whit's native core. It knows nothing of torch, NumPy or Python.
 *
 * Bits are stored in 64-bit words, lowest bit first; bit 1 stands for -1 and bit 0 for +1.
 * Every row begins at a new word. The bits after the last true one (the pad) must be equal
 * in both operands, so that they cancel in the exclusive or; zero is the usual choice.
 */
#ifndef WHIT_H
#define WHIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Features that the kernels choose by, or'd together. */
enum whit_cpu_feature {
    WHIT_CPU_POPCNT = 1u << 0,
    WHIT_CPU_AVX2 = 1u << 1,
    WHIT_CPU_AVX512F = 1u << 2,
    WHIT_CPU_AVX512_VPOPCNTDQ = 1u << 3
};

/* The features of the processor that runs this code. */
uint32_t whit_cpu_features(void);

/* out[i * rows_b + j] = length - 2 * popcount(a[i] xor b[j]): the dot product of two rows of +1/-1.
 *
 *   a    rows_a x words          out   rows_a x rows_b
 *   b    rows_b x words          length <= 64 * words, the true number of values in a row
 *
 * `whit_binary_gemm` picks the fastest form for this processor; `whit_binary_gemm_reference` is
 * slow and obvious, and defines the result. Both give the same integers.
 */
void whit_binary_gemm(const uint64_t *a, const uint64_t *b, int32_t *out, size_t rows_a,
                      size_t rows_b, size_t words, int32_t length);
void whit_binary_gemm_reference(const uint64_t *a, const uint64_t *b, int32_t *out, size_t rows_a,
                                size_t rows_b, size_t words, int32_t length);

#ifdef __cplusplus
}
#endif

#endif /* WHIT_H */
