// What the float kernels must compute, to within rounding: plain loops in double precision.
#ifndef WHIT_REFERENCE_FLOATS_H
#define WHIT_REFERENCE_FLOATS_H

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace whit {

// `out` before rounding to float, and the sum of the absolute values of all that was added, to
// which errors of rounding are relative. Both [rows][columns].
struct FloatsReference {
    std::vector<double> out;
    std::vector<double> magnitude;
};

// weights: [n][runs.count * runs.length].
FloatsReference floats_reference(const float *const *rows, size_t m, const Runs &runs,
                                 const float *weights, size_t n, const float *bias, float floor);

FloatsReference sparse_reference(const float *x, size_t width, const uint32_t *begin,
                                 const uint32_t *offset, const float *values, size_t n,
                                 const float *bias, float floor);

FloatsReference depthwise_reference(const float *const *rows, size_t m, const ptrdiff_t *offsets,
                                    size_t taps, const float *weights, size_t channels,
                                    const float *bias, float floor);

}  // namespace whit

#endif  // WHIT_REFERENCE_FLOATS_H
