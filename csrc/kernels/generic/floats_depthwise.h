// Depthwise convolution of channels-last images, for every instruction set.
#ifndef WHIT_FLOATS_DEPTHWISE_H
#define WHIT_FLOATS_DEPTHWISE_H

#include "kernels.h"

namespace whit {
namespace {

constexpr size_t kDepthRows = 4;
constexpr size_t kDepthVectors = 2;

struct Depthwise {
    const ptrdiff_t *offsets;
    size_t taps;
    const float *weights;
    size_t channels;
    const float *bias;
    float floor;
    size_t stride;
};

WHIT_INLINE Vector load_some(const float *from, size_t count) {
    return count == kWidth ? load(from) : load_part(from, count);
}

// Some pixels and channels from c on. `count`: channels of the last vector.
template <size_t Rows, size_t Vectors>
WHIT_INLINE void filter_tile(const Depthwise &filter, const float *const *rows, size_t c,
                             size_t count, float *out) {
    Vector sums[Rows][Vectors];
    const float *left[Rows];
    WHIT_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
        left[r] = rows[r] + c;
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            sums[r][v] = zeros();
        }
    }
    const float *weights = filter.weights + c;
    for (size_t t = 0; t < filter.taps; ++t, weights += filter.channels) {
        const ptrdiff_t offset = filter.offsets[t];
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            const Vector weight = load_some(weights + v * kWidth, count);
            WHIT_UNROLL
            for (size_t r = 0; r < Rows; ++r) {
                sums[r][v] = multiply_add(load_some(left[r] + offset + v * kWidth, count), weight,
                                          sums[r][v]);
            }
        }
    }
    const Vector floor = broadcast(&filter.floor);
    WHIT_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
        WHIT_UNROLL
        for (size_t v = 0; v < Vectors; ++v) {
            float *to = out + r * filter.stride + c + v * kWidth;
            const Vector terms =
                filter.bias ? load_some(filter.bias + c + v * kWidth, count) : zeros();
            const Vector sum = maximum(floor, add(sums[r][v], terms));
            count == kWidth ? store(to, sum) : store_part(to, sum, count);
        }
    }
}

template <size_t Rows>
WHIT_NOINLINE void filter_rows(const Depthwise &given, const float *const *rows, float *out) {
    const Depthwise filter = given;
    size_t c = 0;
    for (; c + kDepthVectors * kWidth <= filter.channels; c += kDepthVectors * kWidth) {
        filter_tile<Rows, kDepthVectors>(filter, rows, c, kWidth, out);
    }
    for (; c + kWidth <= filter.channels; c += kWidth) {
        filter_tile<Rows, 1>(filter, rows, c, kWidth, out);
    }
    if (c < filter.channels) filter_tile<Rows, 1>(filter, rows, c, filter.channels - c, out);
}

void multiply_depthwise(const float *const *rows, size_t m, const ptrdiff_t *offsets, size_t taps,
                        const float *weights, size_t channels, const float *bias, float floor,
                        float *out, size_t stride) {
    const Depthwise filter{offsets, taps, weights, channels, bias, floor, stride};
    size_t r = 0;
    for (; r + kDepthRows <= m; r += kDepthRows) {
        filter_rows<kDepthRows>(filter, rows + r, out + r * stride);
    }
    for (; r < m; ++r) filter_rows<1>(filter, rows + r, out + r * stride);
}

}  // namespace
}  // namespace whit

#endif  // WHIT_FLOATS_DEPTHWISE_H
