// The products of the integer kernels, one multiplication at a time, from unpacked weights.
#ifndef WHIT_REFERENCE_INTEGER_H
#define WHIT_REFERENCE_INTEGER_H

#include "kernels/kernels.h"

namespace whit {

// weights: [n][run_count * run_length]; out[r * stride + c] for c < n.
void integer_reference(const uint8_t *const *rows, size_t m, const Runs &runs,
                       const int8_t *weights, size_t n, int32_t *out, size_t stride);

void wide_reference(const int16_t *const *rows, size_t m, const Runs &runs, const int8_t *weights,
                    size_t n, int32_t *out, size_t stride);

// The value that a call with the highest `used` of `planes` planes sees.
int32_t planes_value(int16_t weight, size_t planes, size_t used);

void planes_bytes_reference(const uint8_t *const *rows, size_t m, const Runs &runs,
                            const int16_t *weights, size_t n, size_t planes, size_t used,
                            int32_t *out, size_t stride);

// Sums in double, rounded once.
void planes_floats_reference(const float *const *rows, size_t m, const Runs &runs,
                             const int16_t *weights, size_t n, size_t planes, size_t used,
                             float *out, size_t stride);

}  // namespace whit

#endif  // WHIT_REFERENCE_INTEGER_H
