#include "reference/floats.h"

#include <cmath>

namespace whit {
namespace {

class Sum {
  public:
    explicit Sum(const float *bias) {
        if (bias) add(*bias, 1.0f);
    }

    void add(float a, float b) {
        const double product = static_cast<double>(a) * static_cast<double>(b);
        sum_ += product;
        magnitude_ += std::fabs(product);
    }

    void append_to(FloatsReference &reference, float floor) const {
        reference.out.push_back(sum_ < floor ? floor : sum_);  // NaN stays
        reference.magnitude.push_back(magnitude_);
    }

  private:
    double sum_ = 0.0;
    double magnitude_ = 0.0;
};

}  // namespace

FloatsReference floats_reference(const float *const *rows, size_t m, const Runs &runs,
                                 const float *weights, size_t n, const float *bias, float floor) {
    FloatsReference reference;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < n; ++c) {
            Sum sum(bias ? bias + c : nullptr);
            const float *weight = weights + c * runs.count * runs.length;
            for (size_t run = 0; run < runs.count; ++run) {
                const float *left = rows[r] + runs.offsets[run];
                for (size_t i = 0; i < runs.length; ++i) sum.add(left[i], *weight++);
            }
            sum.append_to(reference, floor);
        }
    }
    return reference;
}

FloatsReference sparse_reference(const float *x, size_t width, const uint32_t *begin,
                                 const uint32_t *offset, const float *values, size_t n,
                                 const float *bias, float floor) {
    FloatsReference reference;
    for (size_t c = 0; c < n; ++c) {
        for (size_t j = 0; j < width; ++j) {
            Sum sum(bias ? bias + c : nullptr);
            for (size_t i = begin[c]; i < begin[c + 1]; ++i) {
                sum.add(values[i], x[offset[i] + j]);
            }
            sum.append_to(reference, floor);
        }
    }
    return reference;
}

FloatsReference depthwise_reference(const float *const *rows, size_t m, const ptrdiff_t *offsets,
                                    size_t taps, const float *weights, size_t channels,
                                    const float *bias, float floor) {
    FloatsReference reference;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < channels; ++c) {
            Sum sum(bias ? bias + c : nullptr);
            for (size_t t = 0; t < taps; ++t) {
                sum.add(rows[r][offsets[t] + static_cast<ptrdiff_t>(c)],
                        weights[t * channels + c]);
            }
            sum.append_to(reference, floor);
        }
    }
    return reference;
}

}  // namespace whit
