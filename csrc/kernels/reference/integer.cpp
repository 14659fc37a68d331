#include "kernels/reference/integer.h"

namespace whit {
namespace {

template <class Sum, class Left, class Weight>
Sum dot_product(const Left *row, const Runs &runs, const Weight *weights) {
    Sum sum = 0;
    for (size_t run = 0; run < runs.count; ++run) {
        const Left *left = row + runs.offsets[run];
        for (size_t k = 0; k < runs.length; ++k) {
            sum += static_cast<Sum>(left[k]) * static_cast<Sum>(*weights++);
        }
    }
    return sum;
}

template <class Left>
void multiply(const Left *const *rows, size_t m, const Runs &runs, const int8_t *weights, size_t n,
              int32_t *out, size_t stride) {
    const size_t k = runs.count * runs.length;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < n; ++c) {
            const int64_t sum = dot_product<int64_t>(rows[r], runs, weights + c * k);
            out[r * stride + c] = static_cast<int32_t>(sum);
        }
    }
}

struct PlaneWeights {
    const int16_t *weights;
    size_t planes, used;

    int32_t operator*() const { return planes_value(*weights, planes, used); }
    PlaneWeights operator++(int) {
        PlaneWeights before = *this;
        ++weights;
        return before;
    }
};

template <class Sum, class Left>
Sum planes_product(const Left *row, const Runs &runs, PlaneWeights weights) {
    Sum sum = 0;
    for (size_t run = 0; run < runs.count; ++run) {
        for (size_t k = 0; k < runs.length; ++k) {
            const Sum left = static_cast<Sum>(row[runs.offsets[run] + static_cast<ptrdiff_t>(k)]);
            sum += left * static_cast<Sum>(*weights++);
        }
    }
    return sum;
}

}  // namespace

void integer_reference(const uint8_t *const *rows, size_t m, const Runs &runs,
                       const int8_t *weights, size_t n, int32_t *out, size_t stride) {
    multiply(rows, m, runs, weights, n, out, stride);
}

void wide_reference(const int16_t *const *rows, size_t m, const Runs &runs, const int8_t *weights,
                    size_t n, int32_t *out, size_t stride) {
    multiply(rows, m, runs, weights, n, out, stride);
}

int32_t planes_value(int16_t weight, size_t planes, size_t used) {
    const int32_t divisor = int32_t{1} << (planes - used);
    const int32_t rest = (weight % divisor + divisor) % divisor;
    return (weight - rest) / divisor;
}

void planes_bytes_reference(const uint8_t *const *rows, size_t m, const Runs &runs,
                            const int16_t *weights, size_t n, size_t planes, size_t used,
                            int32_t *out, size_t stride) {
    const size_t k = runs.count * runs.length;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < n; ++c) {
            const PlaneWeights from = {weights + c * k, planes, used};
            const int64_t sum = planes_product<int64_t>(rows[r], runs, from);
            out[r * stride + c] = static_cast<int32_t>(sum);
        }
    }
}

void planes_floats_reference(const float *const *rows, size_t m, const Runs &runs,
                             const int16_t *weights, size_t n, size_t planes, size_t used,
                             float *out, size_t stride) {
    const size_t k = runs.count * runs.length;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < n; ++c) {
            const PlaneWeights from = {weights + c * k, planes, used};
            out[r * stride + c] = static_cast<float>(planes_product<double>(rows[r], runs, from));
        }
    }
}

}  // namespace whit
