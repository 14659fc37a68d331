// Compares the float kernels of a table with plain loops in double precision.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "check.h"
#include "kernels.h"
#include "reference/floats.h"

namespace whit {
namespace {

constexpr double kTolerance = 1e-6;  // of the sum of the absolute values of all that is added
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = -12345.0f;

// Memory aligned as that of panels, of exactly the size asked for.
template <typename Value>
class Aligned {
  public:
    explicit Aligned(size_t count)
        : bytes_(count * sizeof(Value)),
          memory_(static_cast<Value *>(::operator new(bytes_, std::align_val_t(64)))) {
        std::memset(static_cast<void *>(memory_), 0xFF, bytes_);  // as floats: NaN
    }
    ~Aligned() { ::operator delete(memory_, std::align_val_t(64)); }
    Aligned(const Aligned &) = delete;
    Aligned &operator=(const Aligned &) = delete;

    Value *data() { return memory_; }
    size_t bytes() const { return bytes_; }

  private:
    size_t bytes_;
    Value *memory_;
};

float random_float(Check &check) {
    return static_cast<float>(static_cast<int32_t>(check.random())) * 0x1p-31f;
}

std::vector<float> random_floats(Check &check, size_t count) {
    std::vector<float> values(count);
    for (float &value : values) value = random_float(check);
    return values;
}

float random_floor(Check &check) { return check.random() % 2 ? 0.0f : -kInfinity; }

// Rows of runs with NaN between and behind them, each row in memory of its own.
struct Left {
    std::vector<ptrdiff_t> offsets;
    std::vector<std::unique_ptr<float[]>> memory;
    std::vector<const float *> rows;
    Runs runs;

    Left(Check &check, size_t m, size_t count, size_t length, bool gaps) {
        size_t end = 0;
        for (size_t run = 0; run < count; ++run) {
            end += gaps ? check.between(0, 40) : 0;
            offsets.push_back(static_cast<ptrdiff_t>(end));
            end += length;
        }
        const size_t size = end + kSlackBytes / sizeof(float);
        for (size_t r = 0; r < m; ++r) {
            memory.emplace_back(new float[size]);
            std::fill_n(memory.back().get(), size, kNan);
            for (const ptrdiff_t offset : offsets) {
                for (size_t i = 0; i < length; ++i) memory.back()[offset + i] = random_float(check);
            }
            rows.push_back(memory.back().get());
        }
        runs = {count, length, offsets.data()};
    }

    float &at(size_t row, size_t k) {
        return memory[row][offsets[k / runs.length] + k % runs.length];
    }
};

// Rows of output at a random stride, of which the space between rows must not be written.
struct Output {
    size_t columns, stride;
    std::vector<float> values;

    Output(Check &check, size_t m, size_t width)
        : columns(width),
          stride(width + check.between(0, 9)),
          values((m - 1) * stride + width, kUntouched) {}

    // Compares the first n columns.
    void compare(Check &check, const FloatsReference &want, size_t m, size_t n, const char *what) {
        for (size_t r = 0; r < m; ++r) {
            for (size_t c = 0; c < n; ++c) {
                const double got = values[r * stride + c], expected = want.out[r * n + c];
                const double bound = kTolerance * want.magnitude[r * n + c];
                const bool same = std::isnan(expected) ? std::isnan(got)
                                  : std::isinf(expected)
                                      ? got == expected
                                      : std::fabs(got - expected) <= bound;
                if (same) continue;
                return check.fail("%s, row %zu, column %zu: %g not %g", what, r, c, got, expected);
            }
            for (size_t c = columns; r + 1 < m && c < stride; ++c) {
                if (values[r * stride + c] != kUntouched) {
                    return check.fail("%s, row %zu: wrote behind its end", what, r);
                }
            }
        }
    }
};

struct Shape {
    size_t m, count, length, n;

    size_t depth() const { return count * length; }
};

// Now and then long, with few rows then, so that the reference does not take all the time.
Shape random_shape(Check &check) {
    switch (check.between(0, check.quick ? 2 : 5)) {
        case 0:
            return {check.between(1, 9), 1, check.between(1, 12), check.between(1, 70)};
        case 1:
            return {check.between(1, 40), check.between(2, 5), check.between(1, 60),
                    check.between(1, 40)};
        case 2:
            return {check.between(1, 8), 1, check.between(1, 300), check.between(1, 150)};
        case 3:
            return {check.between(1, 20), 1, check.between(3000, 5000), check.between(1, 34)};
        default:
            return {check.between(1, 40), check.between(1, 7), check.between(1, 300),
                    check.between(1, 33)};
    }
}

void describe(char (&text)[120], const char *kernel, const Shape &shape) {
    std::snprintf(text, sizeof text, "%s m %zu, %zu runs of %zu, n %zu", kernel, shape.m,
                  shape.count, shape.length, shape.n);
}

// The bias of whole panels, zero behind the outputs; null one time in three.
std::unique_ptr<std::vector<float>> random_bias(Check &check, size_t n, size_t columns) {
    if (check.random() % 3 == 0) return nullptr;
    auto bias = std::make_unique<std::vector<float>>(random_floats(check, n));
    bias->resize(columns, 0.0f);
    return bias;
}

void check_dense(const FloatKernel &kernel, Check &check) {
    const Shape shape = random_shape(check);
    const size_t panel_count = (shape.n + kernel.lanes - 1) / kernel.lanes;
    const size_t columns = panel_count * kernel.lanes, depth = shape.depth();
    Left left(check, shape.m, shape.count, shape.length, check.random() % 2 == 0);
    const std::vector<float> weights = random_floats(check, shape.n * depth);
    if (check.random() % 4 == 0) left.at(check.between(0, shape.m - 1), depth / 2) = kNan;
    if (check.random() % 4 == 0) left.at(check.between(0, shape.m - 1), depth - 1) = kInfinity;
    Aligned<float> panels(columns * depth);
    for (size_t c = 0; c < columns; ++c) {
        for (size_t k = 0; k < depth; ++k) {
            panels.data()[(c / kernel.lanes * depth + k) * kernel.lanes + c % kernel.lanes] =
                c < shape.n ? weights[c * depth + k] : 0.0f;
        }
    }
    const auto bias = random_bias(check, shape.n, columns);
    const float *given = bias ? bias->data() : nullptr;
    const float floor = random_floor(check);
    Output out(check, shape.m, columns);
    kernel.multiply(left.rows.data(), shape.m, left.runs, panels.data(), panel_count, given, floor,
                    out.values.data(), out.stride);
    char text[120];
    describe(text, "floats", shape);
    out.compare(check,
                floats_reference(left.rows.data(), shape.m, left.runs, weights.data(), shape.n,
                                 given, floor),
                shape.m, shape.n, text);
}

// Two weights of each four at most, sometimes fewer.
std::vector<float> random_two_four(Check &check, size_t count) {
    std::vector<float> weights(count, 0.0f);
    for (size_t group = 0; group < count; group += 4) {
        for (size_t kept = 0; kept < 2; ++kept) {
            if (check.random() % 8) weights[group + check.between(0, 3)] = random_float(check);
        }
    }
    return weights;
}

void check_two_four(const TwoFourKernel &kernel, Check &check) {
    Shape shape = random_shape(check);
    shape.length = (shape.length + 3) / 4 * 4;
    const size_t panel_count = (shape.n + kernel.lanes - 1) / kernel.lanes;
    const size_t columns = panel_count * kernel.lanes, depth = shape.depth();
    Left left(check, shape.m, shape.count, shape.length, check.random() % 2 == 0);
    const std::vector<float> weights = random_two_four(check, shape.n * depth);
    const size_t panel_bytes = kernel.panel_bytes(shape.count, shape.length);
    char text[120];
    describe(text, "two_four", shape);
    if (panel_bytes % 64 != 0) return check.fail("%s: panels of %zu bytes", text, panel_bytes);
    Aligned<char> panels(panel_count * panel_bytes);
    kernel.pack(weights.data(), shape.n, shape.count, shape.length, panels.data());
    const auto bias = random_bias(check, shape.n, columns);
    const float *given = bias ? bias->data() : nullptr;
    const float floor = random_floor(check);
    const FloatsReference want = floats_reference(left.rows.data(), shape.m, left.runs,
                                                  weights.data(), shape.n, given, floor);
    Output out(check, shape.m, columns);
    kernel.multiply(left.rows.data(), shape.m, left.runs, panels.data(), panel_count, given, floor,
                    out.values.data(), out.stride);
    out.compare(check, want, shape.m, shape.n, text);
    const size_t row = check.between(0, shape.m - 1), k = check.between(0, depth - 1);
    left.at(row, k) = kNan;
    kernel.multiply(left.rows.data(), shape.m, left.runs, panels.data(), panel_count, given, floor,
                    out.values.data(), out.stride);
    for (size_t c = 0; c < shape.n; ++c) {
        if (weights[c * depth + k] != 0.0f && !std::isnan(out.values[row * out.stride + c])) {
            return check.fail("%s: NaN of row %zu lost in column %zu", text, row, c);
        }
    }
}

struct Sparse {
    std::vector<uint32_t> begin{0}, offset;
    std::vector<uint16_t> column;
    std::vector<float> values;

    // Rows of x lie `pitch` apart.
    Sparse(Check &check, size_t n, size_t depth, size_t pitch) {
        const size_t percent = check.between(1, 60);
        for (size_t c = 0; c < n; ++c) {
            for (size_t k = 0; k < depth; ++k) {
                if (check.random() % 100 >= percent) continue;
                column.push_back(static_cast<uint16_t>(k));
                offset.push_back(static_cast<uint32_t>(k * pitch));
                values.push_back(random_float(check));
            }
            begin.push_back(static_cast<uint32_t>(values.size()));
        }
    }
};

void check_sparse(const SparseKernel &kernel, Check &check) {
    const size_t n = check.between(1, 50), depth = check.between(1, check.quick ? 60 : 500);
    const size_t width = check.random() % 3 ? check.between(1, 140) : 64;
    const size_t pitch = width + check.between(0, 9);
    std::vector<float> x = random_floats(check, (depth - 1) * pitch + width);
    if (check.random() % 4 == 0) x[check.between(0, width - 1)] = kNan;
    const Sparse matrix(check, n, depth, pitch);
    const auto bias = random_bias(check, n, n);
    const float *given = bias ? bias->data() : nullptr;
    const float floor = random_floor(check);
    Output out(check, n, width);
    kernel.multiply(x.data(), width, matrix.begin.data(), matrix.offset.data(),
                    matrix.values.data(), n, given, floor, out.values.data(), out.stride);
    char text[120];
    std::snprintf(text, sizeof text, "sparse n %zu, depth %zu, width %zu", n, depth, width);
    out.compare(check,
                sparse_reference(x.data(), width, matrix.begin.data(), matrix.offset.data(),
                                 matrix.values.data(), n, given, floor),
                n, width, text);
}

void check_sparse_vector(const SparseKernel &kernel, Check &check) {
    const size_t n = check.between(1, 50);
    const size_t depth = check.random() % 8 || check.quick ? check.between(1, 500) : 65536;
    std::vector<float> x = random_floats(check, depth);
    if (check.random() % 4 == 0) x[check.between(0, depth - 1)] = kNan;
    const Sparse matrix(check, depth == 65536 ? 2 : n, depth, 1);
    const size_t rows = matrix.begin.size() - 1;
    const auto bias = random_bias(check, rows, rows);
    const float *given = bias ? bias->data() : nullptr;
    const float floor = random_floor(check);
    Output out(check, 1, rows);
    kernel.multiply_vector(x.data(), matrix.begin.data(), matrix.column.data(),
                           matrix.values.data(), rows, given, floor, out.values.data());
    FloatsReference want =
        sparse_reference(x.data(), 1, matrix.begin.data(), matrix.offset.data(),
                         matrix.values.data(), rows, given, floor);
    char text[120];
    std::snprintf(text, sizeof text, "sparse vector n %zu, depth %zu", rows, depth);
    out.compare(check, want, 1, rows, text);
}

void check_depthwise(const DepthwiseKernel &kernel, Check &check) {
    const size_t m = check.between(1, 20), taps = check.between(1, 12);
    const size_t channels = check.between(1, 150);
    Left left(check, m, taps, channels, check.random() % 2 == 0);
    if (check.random() % 4 == 0) left.at(m - 1, channels * taps / 2) = kNan;
    const std::vector<float> weights = random_floats(check, taps * channels);
    const auto bias = random_bias(check, channels, channels);
    const float *given = bias ? bias->data() : nullptr;
    const float floor = random_floor(check);
    Output out(check, m, channels);
    kernel.multiply(left.rows.data(), m, left.offsets.data(), taps, weights.data(), channels,
                    given, floor, out.values.data(), out.stride);
    char text[120];
    std::snprintf(text, sizeof text, "depthwise m %zu, taps %zu, channels %zu", m, taps, channels);
    out.compare(check,
                depthwise_reference(left.rows.data(), m, left.offsets.data(), taps,
                                    weights.data(), channels, given, floor),
                m, channels, text);
}

}  // namespace

void check_floats(const KernelTable &table, Check &check) {
    for (size_t round = check.quick ? 12 : 150; round > 0; --round) {
        if (table.floats.multiply) check_dense(table.floats, check);
        if (table.two_four.multiply) check_two_four(table.two_four, check);
        if (table.sparse.multiply) check_sparse(table.sparse, check);
        if (table.sparse.multiply_vector) check_sparse_vector(table.sparse, check);
        if (table.depthwise.multiply) check_depthwise(table.depthwise, check);
    }
}

}  // namespace whit
