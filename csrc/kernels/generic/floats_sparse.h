// Products of a sparse matrix (CSR), for every instruction set: a panel of columns, or one column.
#ifndef WHIT_FLOATS_SPARSE_H
#define WHIT_FLOATS_SPARSE_H

#include "kernels.h"

namespace whit {
namespace {

struct SparseRows {
    const uint32_t *begin;
    const uint32_t *offset;
    const float *values;
    size_t n;
    const float *bias;
    float floor;
    size_t stride;
};

constexpr size_t kPassVectors = 8;
constexpr size_t kLineVectors = kWidth < 16 ? 16 / kWidth : 1;
constexpr size_t kRowsAhead = 16;  // measured: a fifth faster than none, from the second cache

template <size_t Vectors, size_t Steps>
WHIT_INLINE void add_nonzeros(Vector (&sums)[Steps][Vectors], const float *x,
                              const SparseRows &matrix, size_t i, size_t last, size_t steps) {
    WHIT_UNROLL
    for (size_t s = 0; s < steps; ++s) {
        const Vector value = broadcast(matrix.values + i + s);
        const float *row = x + matrix.offset[i + s];
        const size_t next = i + s + kRowsAhead;
        const float *ahead = x + matrix.offset[next < last ? next : last];
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; v += kLineVectors) prefetch_near(ahead + v * kWidth);
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            sums[s][v] = multiply_add(value, load(row + v * kWidth), sums[s][v]);
        }
    }
}

// All rows of the matrix, some columns. Narrow passes sum several elements apart, for latency.
template <size_t Vectors>
WHIT_NOINLINE void multiply_columns(const SparseRows &given, const float *x, float *out) {
    constexpr size_t Steps = kPassVectors / Vectors;
    const SparseRows matrix = given;
    const size_t last = matrix.begin[matrix.n] - 1;  // only used where there are elements
    const Vector floor = broadcast(&matrix.floor);
    for (size_t c = 0; c < matrix.n; ++c) {
        Vector sums[Steps][Vectors];
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            WHIT_UNROLL
            for (size_t s = 0; s < Steps; ++s) sums[s][v] = zeros();
        }
        size_t i = matrix.begin[c];
        const size_t end = matrix.begin[c + 1];
        for (; i + Steps <= end; i += Steps) {
            add_nonzeros<Vectors, Steps>(sums, x, matrix, i, last, Steps);
        }
        for (; i < end; ++i) add_nonzeros<Vectors, Steps>(sums, x, matrix, i, last, 1);
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            Vector sum = sums[0][v];
            WHIT_UNROLL
            for (size_t s = 1; s < Steps; ++s) sum = add(sum, sums[s][v]);
            if (matrix.bias) sum = add(sum, broadcast(matrix.bias + c));
            store(out + c * matrix.stride + v * kWidth, maximum(floor, sum));
        }
    }
}

// Fewer columns than a vector has.
WHIT_NOINLINE void multiply_last_columns(const SparseRows &matrix, const float *x, size_t count,
                                         float *out) {
    const Vector floor = broadcast(&matrix.floor);
    for (size_t c = 0; c < matrix.n; ++c) {
        Vector sum = zeros();
        for (size_t i = matrix.begin[c]; i < matrix.begin[c + 1]; ++i) {
            sum = multiply_add(broadcast(matrix.values + i),
                               load_part(x + matrix.offset[i], count), sum);
        }
        if (matrix.bias) sum = add(sum, broadcast(matrix.bias + c));
        store_part(out + c * matrix.stride, maximum(floor, sum), count);
    }
}

template <size_t Vectors>
size_t multiply_passes(const SparseRows &matrix, const float *x, size_t j, size_t width,
                       float *out) {
    for (; j + Vectors * kWidth <= width; j += Vectors * kWidth) {
        multiply_columns<Vectors>(matrix, x + j, out + j);
    }
    if constexpr (Vectors > 1) return multiply_passes<Vectors / 2>(matrix, x, j, width, out);
    return j;
}

void multiply_sparse(const float *x, size_t width, const uint32_t *begin, const uint32_t *offset,
                     const float *values, size_t n, const float *bias, float floor, float *out,
                     size_t stride) {
    const SparseRows matrix{begin, offset, values, n, bias, floor, stride};
    const size_t done = multiply_passes<kPassVectors>(matrix, x, 0, width, out);
    if (done < width) multiply_last_columns(matrix, x + done, width - done, out + done);
}

// Scalars: gathering into vectors takes the same loads and more besides.
void multiply_sparse_vector(const float *x, const uint32_t *begin, const uint16_t *column,
                            const float *values, size_t n, const float *bias, float floor,
                            float *out) {
    for (size_t c = 0; c < n; ++c) {
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        size_t i = begin[c];
        const size_t end = begin[c + 1];
        for (; i + 4 <= end; i += 4) {
            WHIT_UNROLL
            for (size_t s = 0; s < 4; ++s) {
                accumulate_one(sums[s], values[i + s], x[column[i + s]]);
            }
        }
        for (; i < end; ++i) accumulate_one(sums[0], values[i], x[column[i]]);
        float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        if (bias) sum += bias[c];
        out[c] = sum < floor ? floor : sum;  // a sum that is not a number stays
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_FLOATS_SPARSE_H
