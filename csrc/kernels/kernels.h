// The contract between the engine and the kernels: one table of functions for each instruction set.
//
// All matrix kernels share one picture. The left matrix is given by row pointers; a row consists of
// `runs.count` runs of `runs.length` elements, run i beginning runs.offsets[i] elements behind the
// row's pointer. A dense matrix has one run; a row of an implicit im2col has one run for each row of
// the convolution kernel (its columns and channels are contiguous in a channels-last image). So a
// product and a convolution are the same kernel, and no patch is ever copied.
//
// The right matrix (weights) is packed once, into panels of `lanes` outputs. The last panel is
// filled up with outputs of zero weights: `out` always has whole panels, panel_count * lanes columns.
//
// A left row may be read up to kSlackBytes behind the end of each run (the values there are
// multiplied by zero weights or masked, never used); the caller owns that memory. Panels and output
// have no slack. Pointers need the alignment of their element only, unless said otherwise; the
// memory of panels is aligned to 64 bytes.
//
// A file of one instruction set may use nothing but static functions and its own intrinsics: no
// inline function or template of a header shared with another instruction set, no std::vector and
// the like. The linker merges such functions, and would hand AVX-512 code to a plain processor.
#ifndef WHIT_KERNELS_H
#define WHIT_KERNELS_H

#include <cstddef>
#include <cstdint>

namespace whit {

constexpr size_t kSlackBytes = 64;

struct Runs {
    size_t count;              // runs of a row, >= 1
    size_t length;             // elements of a run, >= 1
    const ptrdiff_t *offsets;  // [count], in elements
};

// Signs times signs. Elements are words of 32 bits, bit 1 for -1; pads are 0 on both sides.
// Panels: [panel][word][lane] uint32, words in the order of the runs (count * length of them).
struct BinaryKernel {
    const char *name;  // "table", "shuffle", "csa", "vpopcnt", "cnt" or "fields"
    // out[r * stride + c] = bits - 2 * popcount(row r xor output c); bits: true values of a row.
    void (*multiply)(const uint32_t *const *rows, size_t m, const Runs &runs,
                     const uint32_t *panels, size_t panel_count, int32_t bits, int32_t *out,
                     size_t stride);
};

// Integers of few bits times integers. Left elements are uint8, or int16 for the wide kernel.
// out[r * stride + c] = sum of left[r] * weight[c], exact as long as it fits int32.
struct IntegerKernel {
    size_t lanes;  // outputs of a panel
    // Bytes of one panel; a multiple of 64.
    size_t (*panel_bytes)(size_t run_count, size_t run_length);
    // values: [n][run_count * run_length], within the range of the kernel's weights; out: whole
    // panels, ceil(n / lanes) * panel_bytes, every byte of which is written.
    void (*pack)(const int8_t *values, size_t n, size_t run_count, size_t run_length, void *out);
    void (*multiply)(const void *const *rows, size_t m, const Runs &runs, const void *panels,
                     size_t panel_count, int32_t *out, size_t stride);
};

// Weights as bit planes, of which a call may use the highest `used` of `planes` only.
// Integers k of `planes` bits in two's complement; a call sees floor(k / 2^(planes - used)).
struct PlaneKernel {
    size_t lanes;
    size_t (*panel_bytes)(size_t run_count, size_t run_length, size_t planes);
    // values: int16 [n][run_count * run_length].
    void (*pack)(const int16_t *values, size_t n, size_t run_count, size_t run_length,
                 size_t planes, void *out);
    // Left uint8; exact.
    void (*multiply_bytes)(const uint8_t *const *rows, size_t m, const Runs &runs,
                           const void *panels, size_t panel_count, size_t planes, size_t used,
                           int32_t *out, size_t stride);
    // Left float32; sums in any order.
    void (*multiply_floats)(const float *const *rows, size_t m, const Runs &runs,
                            const void *panels, size_t panel_count, size_t planes, size_t used,
                            float *out, size_t stride);
};

// Floats. Panels: [panel][k][lane] float32. out = max(sum + bias, floor), NaN stays NaN;
// bias: [panel_count * lanes] or null; floor: 0 for a ReLU, -infinity for none.
struct FloatKernel {
    size_t lanes;
    void (*multiply)(const float *const *rows, size_t m, const Runs &runs, const float *panels,
                     size_t panel_count, const float *bias, float floor, float *out,
                     size_t stride);
};

// Floats, two of each four weights kept (2:4). Run lengths are multiples of 4.
struct TwoFourKernel {
    size_t lanes;
    size_t (*panel_bytes)(size_t run_count, size_t run_length);
    // values: float32 [n][run_count * run_length], at most two non-zero in each group of four.
    void (*pack)(const float *values, size_t n, size_t run_count, size_t run_length, void *out);
    void (*multiply)(const float *const *rows, size_t m, const Runs &runs, const void *panels,
                     size_t panel_count, const float *bias, float floor, float *out,
                     size_t stride);
};

// A sparse matrix of floats by rows (CSR): row c holds values[begin[c] .. begin[c + 1]).
struct SparseKernel {
    // Panel of columns: out[c * stride + j] = max(sum of values[i] * x[offset[i] + j] + bias[c],
    // floor) for j < width. offset: elements, so that a row of x may lie anywhere. bias may be null.
    void (*multiply)(const float *x, size_t width, const uint32_t *begin, const uint32_t *offset,
                     const float *values, size_t n, const float *bias, float floor, float *out,
                     size_t stride);
    // One column: out[c] = max(sum of values[i] * x[column[i]] + bias[c], floor).
    void (*multiply_vector)(const float *x, const uint32_t *begin, const uint16_t *column,
                            const float *values, size_t n, const float *bias, float floor,
                            float *out);
};

// One filter a channel, channels last: out[r * stride + c] =
// max(sum over taps t of rows[r][offsets[t] + c] * weights[t * channels + c] + bias[c], floor).
struct DepthwiseKernel {
    void (*multiply)(const float *const *rows, size_t m, const ptrdiff_t *offsets, size_t taps,
                     const float *weights, size_t channels, const float *bias, float floor,
                     float *out, size_t stride);
};

// What the processor can do at most. Each runs `rounds` rounds in registers and returns the
// floating-point operations, or the bits of logic results, that it did.
struct PeakKernel {
    double (*multiply_add)(size_t rounds);
    double (*logic)(size_t rounds);
};

constexpr size_t kMaxBinaryKernels = 3;

struct ElementwiseKernels;  // elementwise.h

// What one instruction set offers. A null function: the next lower level's is taken (the tables
// are completed once, at start). Wide and plane kernels exist at every level.
struct KernelTable {
    const char *level;  // "scalar", "avx2", "avx512bw", "avx512vnni", "avx512vpopcntdq", "neon"
    size_t binary_lanes;
    BinaryKernel binary[kMaxBinaryKernels];  // the first is the default; null-terminated
    IntegerKernel ternary;                   // weights -1, 0, +1; left uint8
    IntegerKernel int4;                      // weights -8..7; left uint8
    IntegerKernel int8;                      // weights -128..127; left uint8
    IntegerKernel wide;                      // weights -128..127; left int16
    PlaneKernel planes;
    FloatKernel floats;
    TwoFourKernel two_four;
    SparseKernel sparse;
    DepthwiseKernel depthwise;
    const ElementwiseKernels *elementwise;
    PeakKernel peak;
};

// One part of a table by family, so that each file of kernels fills in what it has.
// Each instruction set has a folder kernels/<level>/ with binary.cpp, integer.cpp, floats.cpp,
// elementwise.cpp, compiled with that level's flags; they define these functions.
#define WHIT_DECLARE_LEVEL(level)                      \
    void fill_binary_##level(KernelTable &table);      \
    void fill_integer_##level(KernelTable &table);     \
    void fill_floats_##level(KernelTable &table);      \
    void fill_elementwise_##level(KernelTable &table);
WHIT_DECLARE_LEVEL(scalar)
WHIT_DECLARE_LEVEL(avx2)
WHIT_DECLARE_LEVEL(avx512bw)
WHIT_DECLARE_LEVEL(avx512vnni)
WHIT_DECLARE_LEVEL(avx512vpopcntdq)
WHIT_DECLARE_LEVEL(neon)
#undef WHIT_DECLARE_LEVEL

// The table of the best level that this processor has, or of the level that the environment
// variable WHIT_ISA names. Detected once. Null with a message where WHIT_ISA names nothing known or
// a level that the processor lacks.
const KernelTable *kernel_table(const char **error);
// The table of a level by name; null where the processor lacks it or it was not compiled.
const KernelTable *kernel_table_of(const char *level);

}  // namespace whit

#endif  // WHIT_KERNELS_H
