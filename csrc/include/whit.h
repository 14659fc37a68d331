/* The C interface of whit's native core: packed networks, without torch, NumPy or Python.
 *
 *     char error[WHIT_ERROR_BYTES];
 *     whit_program *program = whit_load_file("digits.whit", 1, error);
 *     if (program == NULL) { puts(error); return 1; }
 *     if (whit_run(program, input, batch, 0, output, error) != 0) { puts(error); return 1; }
 *     whit_free(program);
 *
 * Everything is thread-safe: many threads may run one program at once; in a forked process a call
 * uses one thread. The instruction set is
 * chosen once, by the processor; the environment variable WHIT_ISA (scalar, avx2, avx512bw,
 * avx512vnni, avx512vpopcntdq, neon) asks for a lower one.
 */
#ifndef WHIT_H
#define WHIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WHIT_ERROR_BYTES 512

/* Features that the kernels choose by, or'd together. */
enum whit_cpu_feature {
    WHIT_CPU_POPCNT = 1u << 0,
    WHIT_CPU_AVX2 = 1u << 1,
    WHIT_CPU_AVX512F = 1u << 2,
    WHIT_CPU_AVX512_VPOPCNTDQ = 1u << 3,
    WHIT_CPU_AVX512BW = 1u << 4,
    WHIT_CPU_AVX512_VNNI = 1u << 5,
    WHIT_CPU_NEON = 1u << 6
};

/* The features of the processor that runs this code. */
uint32_t whit_cpu_features(void);

/* The instruction set of the kernels in use, "avx2" for example; NULL, and the reason in error
 * (WHIT_ERROR_BYTES, or NULL), when WHIT_ISA asks for one that is not there. */
const char *whit_isa(char *error);

/* The most that one thread of this processor does with the kernels' instruction set: 10^9
 * floating-point operations, or bits of vector logic, in a second of its own time. Takes some
 * milliseconds. */
double whit_peak_gflops(void);
double whit_peak_logic_gbits(void);

typedef struct whit_program whit_program;

enum whit_dtype { WHIT_FLOAT32 = 0, WHIT_UINT8 = 1, WHIT_INT32 = 2 };

/* Load a .whit file from memory (the bytes are not needed afterwards) or by its path.
 * threads: that one call may use, at least 1. Returns NULL and a message in error
 * (WHIT_ERROR_BYTES, or NULL) when the file is damaged or cannot be read. */
whit_program *whit_load(const void *bytes, size_t size, size_t threads, char *error);
whit_program *whit_load_file(const char *path, size_t threads, char *error);
void whit_free(whit_program *program);

/* Predict a batch.
 *   input   [batch][input elements], of the dtype of the program, the last axis fastest
 *   planes  bit planes to use of weights stored as planes, 0 for all
 *   output  float32 [batch][output elements]
 * Returns 0, or 1 and a message in error (WHIT_ERROR_BYTES, or NULL) for an index outside of an
 * embedding. Floats are not checked for NaN. */
int whit_run(const whit_program *program, const void *input, size_t batch, size_t planes,
             float *output, char *error);

/* What a program expects and gives, for one sample. axes has room for 4 sizes. */
enum whit_dtype whit_input_dtype(const whit_program *program);
size_t whit_input_axes(const whit_program *program, size_t *axes);
size_t whit_output_axes(const whit_program *program, size_t *axes);
/* 1 where the first axis of a sample's output counts the members of a group, else 0. whit_run gives
 * the samples one after another all the same (in Python, members stand before the batch). */
int whit_output_leading(const whit_program *program);
/* Bytes of the values of one call (its scratch comes besides), and samples that are computed
 * together in them. */
size_t whit_arena_bytes(const whit_program *program);
size_t whit_chunk_samples(const whit_program *program);

#ifdef __cplusplus
}
#endif

#endif /* WHIT_H */
