/* One matrix of weights, packed for this processor, and its product with rows of activations.
 *
 * What the benchmarks of single kernels and the tests use; whole networks go through whit.h.
 *
 *   kind            values (n x k)    one row of the left side            out (m x n)
 *   "signs"         int8, -1 or +1    ceil(k / 32) uint32: bit 1 for -1,   int32
 *                                     lowest bit first, pad bits 0
 *   "ternary"       int8, -1 0 +1     k uint8                             int32
 *   "int4"          int8, -8..7       k uint8                             int32
 *   "int8"          int8              k uint8                             int32
 *   "wide"          int8              k int16                             int32
 *   "planes"        int16             k uint8                             int32
 *   "plane_floats"  int16             k float                             float
 *   "float32"       float             k float                             float
 *   "two_four"      float, at most two of each four not zero; k a multiple of 4, float   float
 *   "sparse"        float             k float                             float
 *
 * All matrices are row-major and dense. Sums of integers are exact as long as they fit int32.
 */
#ifndef WHIT_MATRIX_H
#define WHIT_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct whit_matrix whit_matrix;

/* Zero in a field means the default. */
typedef struct whit_matrix_options {
    const char *level;  /* instruction set: "scalar", "avx2", ...; NULL: the best, or WHIT_ISA */
    const char *kernel; /* of signs: "csa", "shuffle", ...; NULL: what a short timing finds */
    size_t max_m;       /* most rows of a product; default 256 */
    size_t threads;     /* default 1; small products run on one thread anyway */
    size_t planes;      /* bits of the integers of "planes" and "plane_floats", 2 to 16 */
} whit_matrix_options;

/* Copies and packs the values. `options` may be NULL. NULL with a message in `error` on failure. */
whit_matrix *whit_matrix_create(const char *kind, const void *values, size_t n, size_t k,
                                const whit_matrix_options *options, char *error,
                                size_t error_bytes);

/* out = left times the transposed matrix. Allocates nothing. One call at a time for one matrix.
 * 0 on success; -1 where m is above max_m. */
int whit_matrix_multiply(whit_matrix *matrix, const void *left, size_t m, void *out);

/* From now on only the `used` highest planes are used: integers k become floor(k / 2^(planes - used)).
 * 0 on success; -1 where it is not between 1 and planes. */
int whit_matrix_use_planes(whit_matrix *matrix, size_t used);

/* The instruction set that the kernel was written for, for instance "avx2". */
const char *whit_matrix_level(const whit_matrix *matrix);

/* Bytes of the packed weights. */
size_t whit_matrix_bytes(const whit_matrix *matrix);

/* Bytes of one row of the left side, and whether the result is float (1) or int32 (0). */
size_t whit_matrix_row_bytes(const whit_matrix *matrix);
int whit_matrix_gives_floats(const whit_matrix *matrix);

void whit_matrix_free(whit_matrix *matrix);

#ifdef __cplusplus
}
#endif

#endif /* WHIT_MATRIX_H */
