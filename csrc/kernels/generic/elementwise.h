// The elementwise kernels as plain loops, compiled once for each instruction set; what a compiler
// does not find by itself (masks, products of 64 bits) is written out where AVX2 is there.
//
// Everything is in an anonymous namespace: see kernels.h on why.
#include "../../engine/types.h"
#include "../elementwise.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace whit {
namespace {

#include "elementwise_curves.h"

// One loop over a block with constants of any spread; the two inner loops have constant strides.
template <typename Function>
inline void with_constants(const Block &x, const Spread &constants, Function function) {
    for (size_t row = 0; row < x.rows; ++row) {
        float *__restrict values = x.floats(row);
        const float *__restrict own = constants.values;
        if (constants.per_column) {
            for (size_t i = 0; i < x.columns; ++i) values[i] = function(values[i], own[i]);
        } else {
            const float one = *own;
            for (size_t i = 0; i < x.columns; ++i) values[i] = function(values[i], one);
        }
    }
}

void multiply(const Block &x, const Spread &factor) {
    with_constants(x, factor, [](float v, float c) { return v * c; });
}
void divide(const Block &x, const Spread &divisor) {
    with_constants(x, divisor, [](float v, float c) { return v / c; });
}
void add(const Block &x, const Spread &term) {
    with_constants(x, term, [](float v, float c) { return v + c; });
}
void subtract(const Block &x, const Spread &term) {
    with_constants(x, term, [](float v, float c) { return v - c; });
}
void leaky(const Block &x, const Spread &slope) {
    with_constants(x, slope, [](float v, float c) { return v >= 0.0f ? v : v * c; });
}

void clamp(const Block &x, float low, float high) {
    each(x, [low, high](float v) {
        const float raised = v < low ? low : v;  // a comparison with NaN is false
        return raised > high ? high : raised;
    });
}

template <typename Function>
inline void each_integer(const Block &x, Function function) {
    for (size_t row = 0; row < x.rows; ++row) {
        int32_t *values = x.integers(row);
        for (size_t i = 0; i < x.columns; ++i) values[i] = function(values[i], i);
    }
}

void widen(const Block &x) {
    for (size_t row = 0; row < x.rows; ++row) {
        int32_t *values = x.integers(row);
        for (size_t i = 0; i < x.columns; ++i) {
            const float wide = static_cast<float>(values[i]);
            __builtin_memcpy(values + i, &wide, 4);
        }
    }
}

void quantize(const Block &x, float shift, float factor, float least, float most) {
    for (size_t row = 0; row < x.rows; ++row) {
        float *values = x.floats(row);
        for (size_t i = 0; i < x.columns; ++i) {
            const float steps = __builtin_rintf((values[i] - shift) * factor);
            const float raised = steps > least ? steps : least;  // NaN gives least
            const int32_t whole = static_cast<int32_t>(raised > most ? most : raised);
            __builtin_memcpy(values + i, &whole, 4);
        }
    }
}

void add_integers(const Block &x, const int32_t *terms) {
    each_integer(x, [terms](int32_t v, size_t i) { return v + terms[i]; });
}

void relu_integers(const Block &x) {
    each_integer(x, [](int32_t v, size_t) { return v > 0 ? v : 0; });
}

#include "elementwise_requantize.h"

void lookup(const Block &x, const float *table, size_t entries) {
    const int32_t last = static_cast<int32_t>(entries - 1);
    each_integer(x, [table, last](int32_t v, size_t) {
        int32_t bits;
        __builtin_memcpy(&bits, table + (v < last ? v : last), 4);
        return bits;
    });
}

template <typename Number>
inline void count_levels(const Block &x, const Number *thresholds, const uint8_t *flipped,
                         size_t levels, bool per_column, int32_t low, int32_t step) {
    for (size_t row = 0; row < x.rows; ++row) {
        int32_t *out = x.integers(row);
        for (size_t i = 0; i < x.columns; ++i) {
            Number value;
            __builtin_memcpy(&value, out + i, 4);
            const size_t channel = per_column ? i : 0;
            const Number *own = thresholds + channel * levels;
            int32_t reached = 0;
            if (flipped && flipped[channel]) {
                for (size_t level = 0; level < levels; ++level) reached += value <= own[level];
            } else {
                for (size_t level = 0; level < levels; ++level) reached += value >= own[level];
            }
            out[i] = low + step * reached;
        }
    }
}

void levels_floats(const Block &x, const float *thresholds, const uint8_t *flipped, size_t levels,
                   bool per_column, int32_t low, int32_t step) {
    count_levels(x, thresholds, flipped, levels, per_column, low, step);
}
void levels_integers(const Block &x, const int32_t *thresholds, const uint8_t *flipped,
                     size_t levels, bool per_column, int32_t low, int32_t step) {
    count_levels(x, thresholds, flipped, levels, per_column, low, step);
}

#include "elementwise_signs.h"

template <typename From, typename To>
inline void convert(const void *from, To *__restrict to, size_t n, To less) {
    const From *__restrict values = static_cast<const From *>(from);
    for (size_t i = 0; i < n; ++i) to[i] = static_cast<To>(values[i]) - less;
}

template <typename To>
inline void load_row(const void *from, Type type, To *to, size_t n) {
    switch (type) {
        case Type::kFloat: return convert<float, To>(from, to, n, 0);
        case Type::kInt32: return convert<int32_t, To>(from, to, n, 0);
        case Type::kInt16: return convert<int16_t, To>(from, to, n, 0);
        case Type::kByte: return convert<uint8_t, To>(from, to, n, 0);
        case Type::kBiased: return convert<uint8_t, To>(from, to, n, 128);
        case Type::kRaised: return convert<uint8_t, To>(from, to, n, 1);
        case Type::kBits: {
            const uint32_t *words = static_cast<const uint32_t *>(from);
            for (size_t i = 0; i < n; ++i)
                to[i] = static_cast<To>(1 - 2 * static_cast<int32_t>(words[i / 32] >> (i % 32) & 1));
            return;
        }
        default: return convert<int8_t, To>(from, to, n, 0);
    }
}

void load_floats(const void *from, size_t bytes, size_t type, const Block &to) {
    for (size_t row = 0; row < to.rows; ++row)
        load_row(static_cast<const char *>(from) + row * bytes, static_cast<Type>(type),
                 to.floats(row), to.columns);
}
void load_integers(const void *from, size_t bytes, size_t type, const Block &to) {
    for (size_t row = 0; row < to.rows; ++row)
        load_row(static_cast<const char *>(from) + row * bytes, static_cast<Type>(type),
                 to.integers(row), to.columns);
}

template <typename To>
inline void narrow(const int32_t *__restrict from, void *to, size_t n, int32_t more) {
    To *__restrict values = static_cast<To *>(to);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<To>(from[i] + more);
}

inline void store_bits(const int32_t *from, uint32_t *to, size_t n) {
    for (size_t i = 0; i < n; i += 32) {
        const size_t end = i + 32 < n ? i + 32 : n;
        uint32_t word = 0;
        for (size_t j = i; j < end; ++j) word |= static_cast<uint32_t>(from[j] < 0) << (j - i);
        to[i / 32] = word;
    }
}

void store(const Block &from, size_t type, void *to, size_t bytes) {
    for (size_t row = 0; row < from.rows; ++row) {
        void *out = static_cast<char *>(to) + row * bytes;
        const int32_t *values = from.integers(row);
        switch (static_cast<Type>(type)) {
            case Type::kFloat:
            case Type::kInt32: __builtin_memcpy(out, values, 4 * from.columns); break;
            case Type::kInt16: narrow<int16_t>(values, out, from.columns, 0); break;
            case Type::kBiased: narrow<uint8_t>(values, out, from.columns, 128); break;
            case Type::kRaised: narrow<uint8_t>(values, out, from.columns, 1); break;
            case Type::kBits: store_bits(values, static_cast<uint32_t *>(out), from.columns); break;
            default: narrow<uint8_t>(values, out, from.columns, 0); break;
        }
    }
}

// NaN wins, as in NumPy and torch.
inline float larger(float x, float y) {
    const float best = x > y ? x : y;  // y where one of them is NaN
    return x != x ? x : best;
}
inline int32_t larger(int32_t x, int32_t y) { return x > y ? x : y; }

template <typename Number>
inline void larger_row(Number *__restrict x, const Number *__restrict y, size_t n) {
    for (size_t i = 0; i < n; ++i) x[i] = larger(x[i], y[i]);
}

void larger_floats(float *x, const float *y, size_t n) { larger_row(x, y, n); }
void larger_integers(int32_t *x, const int32_t *y, size_t n) { larger_row(x, y, n); }

// The largest of four rows. Compilers make branches of the float comparisons, and on trained images
// half of those are mispredicted: three times the time of the whole network.
inline void largest_of_four(float *out, const float *a, const float *b, const float *c,
                            const float *d, size_t n) {
    size_t i = 0;
#if defined(__AVX2__)
    const auto both = [](__m256 x, __m256 y) {
        return _mm256_blendv_ps(_mm256_max_ps(x, y), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    };
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, both(both(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)),
                                       both(_mm256_loadu_ps(c + i), _mm256_loadu_ps(d + i))));
#endif
    for (; i < n; ++i) out[i] = larger(larger(a[i], b[i]), larger(c[i], d[i]));
}
inline void largest_of_four(int32_t *out, const int32_t *a, const int32_t *b, const int32_t *c,
                            const int32_t *d, size_t n) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; ++i) out[i] = larger(larger(a[i], b[i]), larger(c[i], d[i]));
}

// A pooled row is written at or before the rows that it is made of, and these are read first.
template <typename Number>
inline void pool_block(const Block &x, size_t width, size_t pool_h, size_t pool_w) {
    Number *data = static_cast<Number *>(x.data);
    const size_t rows = x.rows / width / pool_h, columns = width / pool_w;
    for (size_t i = 0; i < rows; ++i)
        for (size_t j = 0; j < columns; ++j) {
            Number *out = data + (i * columns + j) * x.stride;
            const Number *in = data + (i * pool_h * width + j * pool_w) * x.stride;
            if (pool_h == 2 && pool_w == 2) {
                const Number *below = in + width * x.stride;
                largest_of_four(out, in, in + x.stride, below, below + x.stride, x.columns);
                continue;
            }
            if (in != out) __builtin_memcpy(out, in, 4 * x.columns);
            for (size_t h = 0; h < pool_h; ++h)
                for (size_t w = h == 0; w < pool_w; ++w)
                    larger_row(out, in + (h * width + w) * x.stride, x.columns);
        }
}

void pool_floats(const Block &x, size_t width, size_t pool_h, size_t pool_w) {
    pool_block<float>(x, width, pool_h, pool_w);
}
void pool_integers(const Block &x, size_t width, size_t pool_h, size_t pool_w) {
    pool_block<int32_t>(x, width, pool_h, pool_w);
}
void add_row(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; ++i) x[i] += y[i];
}
void multiply_row(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; ++i) x[i] *= y[i];
}

#include "elementwise_transpose.h"

const ElementwiseKernels kElementwise = {
    multiply,       divide,         add,           subtract,        leaky,       clamp,
    curve,          widen,          quantize,      add_integers,    relu_integers, requantize,
    lookup,         levels_floats,  levels_integers, sign_floats,   sign_integers, load_floats,
    load_integers,  store,          larger_floats, larger_integers, pool_floats, pool_integers,
    add_row,        multiply_row,   transpose,
};

}  // namespace
}  // namespace whit
