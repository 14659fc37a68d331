// Integer and plane kernels against their references, on odd shapes and extreme values.
//
// Every row is an allocation of its own, of its exact size and the slack that the contract grants;
// all that is no element of a run is garbage. The tool for addresses finds what reads further.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"
#include "kernels/reference/integer.h"

namespace whit {
namespace {

struct Shape {
    size_t m, n, run_count, run_length;
    std::vector<ptrdiff_t> offsets;
    size_t extent;  // elements from a row's pointer to the end of its last run

    Runs runs() const { return {run_count, run_length, offsets.data()}; }
    size_t k() const { return run_count * run_length; }
};

enum class Values { random, lowest, highest, mixed };

Shape random_shape(Check &check, size_t longest) {
    Shape shape;
    shape.m = check.between(0, 3) == 0 ? check.between(1, 3) : check.between(1, 41);
    shape.n = check.between(1, 70);
    shape.run_count = check.between(0, 1) == 0 ? 1 : check.between(1, 9);
    shape.run_length = check.between(1, longest);
    size_t end = check.between(0, 7);
    for (size_t run = 0; run < shape.run_count; ++run) {
        shape.offsets.push_back(static_cast<ptrdiff_t>(end));
        end += shape.run_length;
        shape.extent = end;
        end += check.between(0, 1) * check.between(0, 37);
    }
    return shape;
}

struct FreeMemory {
    void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, FreeMemory>;

// Left rows; the elements of runs are set by `value(check)`, everything else is garbage.
template <class Element>
struct LeftRows {
    std::vector<std::vector<Element>> buffers;
    std::vector<const Element *> rows;

    template <class Value, class Garbage>
    LeftRows(Check &check, const Shape &shape, Value value, Garbage garbage) {
        for (size_t r = 0; r < shape.m; ++r) {
            std::vector<Element> row(shape.extent + kSlackBytes / sizeof(Element));
            for (Element &element : row) element = garbage(check);
            for (ptrdiff_t offset : shape.offsets) {
                for (size_t i = 0; i < shape.run_length; ++i) {
                    row[static_cast<size_t>(offset) + i] = value(check);
                }
            }
            buffers.push_back(std::move(row));
            rows.push_back(buffers.back().data());
        }
    }
};

template <class Weight>
std::vector<Weight> random_weights(Check &check, const Shape &shape, int low, int high,
                                   Values kind) {
    std::vector<Weight> weights(shape.n * shape.k());
    for (Weight &weight : weights) {
        const int random = static_cast<int>(check.between(0, static_cast<size_t>(high - low)));
        int value = low + random;
        if (kind == Values::lowest) value = low;
        if (kind == Values::highest) value = high;
        if (kind == Values::mixed) value = random % 2 == 0 ? low : high;
        weight = static_cast<Weight>(value);
    }
    return weights;
}

// Packs twice over different garbage, since every byte has to be written.
template <class Pack>
Memory packed_panels(Check &check, size_t bytes, Pack pack) {
    Memory first(std::aligned_alloc(64, bytes)), second(std::aligned_alloc(64, bytes));
    std::memset(first.get(), 0x5a, bytes);
    std::memset(second.get(), 0xa5, bytes);
    pack(first.get());
    pack(second.get());
    if (std::memcmp(first.get(), second.get(), bytes) != 0) {
        check.fail("packing leaves bytes unwritten");
    }
    return first;
}

template <class Number>
struct Output {
    size_t columns, stride;
    std::vector<Number> values;

    Output(Check &check, size_t m, size_t whole_columns)
        : columns(whole_columns), stride(whole_columns + check.between(0, 3)),
          values((m - 1) * stride + columns, Number(12345)) {}

    // What lies between the rows must be as it was.
    bool untouched_between_rows() const {
        for (size_t i = 0; i < values.size(); ++i) {
            if (i % stride >= columns && values[i] != Number(12345)) return false;
        }
        return true;
    }
};

void report(Check &check, const char *kernel, const Shape &shape, size_t r, size_t c, double got,
            double expected) {
    check.fail("%s m=%zu n=%zu runs=%zu length=%zu: out[%zu][%zu] = %.9g, not %.9g", kernel,
               shape.m, shape.n, shape.run_count, shape.run_length, r, c, got, expected);
}

template <class Number>
void compare(Check &check, const char *kernel, const Shape &shape, const Output<Number> &out,
             const std::vector<Number> &expected, double tolerance) {
    if (!out.untouched_between_rows()) check.fail("%s writes between rows", kernel);
    for (size_t r = 0; r < shape.m; ++r) {
        for (size_t c = 0; c < shape.n; ++c) {
            const double got = static_cast<double>(out.values[r * out.stride + c]);
            const double exact = static_cast<double>(expected[r * shape.n + c]);
            if (std::fabs(got - exact) <= tolerance) continue;
            return report(check, kernel, shape, r, c, got, exact);
        }
    }
}

uint8_t random_byte(Check &check) { return static_cast<uint8_t>(check.random()); }
int16_t random_word(Check &check) { return static_cast<int16_t>(check.random()); }
float random_float(Check &check) {
    return static_cast<float>(static_cast<int32_t>(check.random())) / 2147483648.0f;
}
float not_a_number(Check &) { return std::nanf(""); }

Values random_kind(Check &check) { return static_cast<Values>(check.between(0, 3)); }

template <class Left>
using Reference = void (*)(const Left *const *, size_t, const Runs &, const int8_t *, size_t,
                           int32_t *, size_t);

template <class Left>
void check_kernel(Check &check, const char *name, const IntegerKernel &kernel, const Shape &shape,
                  const LeftRows<Left> &left, const std::vector<int8_t> &weights,
                  Reference<Left> reference) {
    const Runs runs = shape.runs();
    const size_t panels = (shape.n + kernel.lanes - 1) / kernel.lanes;
    const size_t panel_bytes = kernel.panel_bytes(runs.count, runs.length);
    if (panel_bytes % 64 != 0) check.fail("%s: panel of %zu bytes", name, panel_bytes);
    const Memory packed = packed_panels(check, panels * panel_bytes, [&](void *to) {
        kernel.pack(weights.data(), shape.n, runs.count, runs.length, to);
    });
    Output<int32_t> out(check, shape.m, panels * kernel.lanes);
    kernel.multiply(reinterpret_cast<const void *const *>(left.rows.data()), shape.m, runs,
                    packed.get(), panels, out.values.data(), out.stride);
    std::vector<int32_t> expected(shape.m * shape.n);
    reference(left.rows.data(), shape.m, runs, weights.data(), shape.n, expected.data(), shape.n);
    compare(check, name, shape, out, expected, 0.0);
}

void check_byte_kernel(Check &check, const char *name, const IntegerKernel &kernel, int low,
                       int high, const Shape &shape) {
    if (kernel.multiply == nullptr) return;
    const bool full = check.between(0, 2) == 0;
    const LeftRows<uint8_t> left(
        check, shape, [&](Check &c) { return full ? uint8_t{255} : random_byte(c); }, random_byte);
    const auto weights = random_weights<int8_t>(check, shape, low, high, random_kind(check));
    check_kernel<uint8_t>(check, name, kernel, shape, left, weights, integer_reference);
}

// Left values of 16 bits as large as sums of 32 bits allow.
void check_wide_kernel(Check &check, const IntegerKernel &kernel, const Shape &shape) {
    const size_t kind = check.between(0, 3);
    const int limit = static_cast<int>(2147483647u / 128u / shape.k());
    const int bound = limit < 32767 ? limit : 32767;
    const LeftRows<int16_t> left(
        check, shape,
        [&](Check &c) {
            if (kind == 0) return static_cast<int16_t>(bound == 32767 ? -32768 : -bound);
            if (kind == 1) return static_cast<int16_t>(bound);
            return static_cast<int16_t>(random_word(c) % (bound + 1));
        },
        random_word);
    const auto weights = random_weights<int8_t>(check, shape, -128, 127, random_kind(check));
    check_kernel<int16_t>(check, "wide", kernel, shape, left, weights, wide_reference);
}

struct PackedPlanes {
    size_t planes, used, panels;
    Memory memory;
};

PackedPlanes pack_planes(Check &check, const PlaneKernel &kernel, const Shape &shape,
                         const std::vector<int16_t> &weights, size_t planes) {
    const Runs runs = shape.runs();
    const size_t panels = (shape.n + kernel.lanes - 1) / kernel.lanes;
    const size_t panel_bytes = kernel.panel_bytes(runs.count, runs.length, planes);
    if (panel_bytes % 64 != 0) check.fail("planes: panel of %zu bytes", panel_bytes);
    return {planes, check.between(1, planes), panels,
            packed_panels(check, panels * panel_bytes, [&](void *to) {
                kernel.pack(weights.data(), shape.n, runs.count, runs.length, planes, to);
            })};
}

std::vector<int16_t> random_planes(Check &check, const Shape &shape, size_t planes) {
    const int half = 1 << (planes - 1);
    return random_weights<int16_t>(check, shape, -half, half - 1, random_kind(check));
}

// With 16 planes and 255 on the left, sums of some 250 elements are the most that fit.
void check_planes_bytes(Check &check, const PlaneKernel &kernel, const Shape &shape) {
    const size_t planes = check.between(2, shape.k() > 250 ? 8 : 16);
    const auto weights = random_planes(check, shape, planes);
    const PackedPlanes packed = pack_planes(check, kernel, shape, weights, planes);
    const bool full = check.between(0, 2) == 0;
    const LeftRows<uint8_t> left(
        check, shape, [&](Check &c) { return full ? uint8_t{255} : random_byte(c); }, random_byte);
    Output<int32_t> out(check, shape.m, packed.panels * kernel.lanes);
    kernel.multiply_bytes(left.rows.data(), shape.m, shape.runs(), packed.memory.get(),
                          packed.panels, planes, packed.used, out.values.data(), out.stride);
    std::vector<int32_t> expected(shape.m * shape.n);
    planes_bytes_reference(left.rows.data(), shape.m, shape.runs(), weights.data(), shape.n,
                           planes, packed.used, expected.data(), shape.n);
    compare(check, "planes x bytes", shape, out, expected, 0.0);
}

// Tolerance: some roundings of sums whose terms are at most the largest weight in size.
void check_planes_floats(Check &check, const PlaneKernel &kernel, const Shape &shape) {
    const size_t planes = check.between(2, 16);
    const auto weights = random_planes(check, shape, planes);
    const PackedPlanes packed = pack_planes(check, kernel, shape, weights, planes);
    const LeftRows<float> left(check, shape, random_float, not_a_number);
    Output<float> out(check, shape.m, packed.panels * kernel.lanes);
    kernel.multiply_floats(left.rows.data(), shape.m, shape.runs(), packed.memory.get(),
                           packed.panels, planes, packed.used, out.values.data(), out.stride);
    std::vector<float> expected(shape.m * shape.n);
    planes_floats_reference(left.rows.data(), shape.m, shape.runs(), weights.data(), shape.n,
                            planes, packed.used, expected.data(), shape.n);
    const double largest = std::ldexp(1.0, static_cast<int>(packed.used) - 1);
    const double tolerance = 4e-6 * largest * static_cast<double>(shape.k());
    compare(check, "planes x floats", shape, out, expected, tolerance);
}

void check_shape(const KernelTable &table, Check &check, const Shape &shape) {
    check_byte_kernel(check, "ternary", table.ternary, -1, 1, shape);
    check_byte_kernel(check, "int4", table.int4, -8, 7, shape);
    check_byte_kernel(check, "int8", table.int8, -128, 127, shape);
    check_wide_kernel(check, table.wide, shape);
    check_planes_bytes(check, table.planes, shape);
    check_planes_floats(check, table.planes, shape);
}

}  // namespace

void check_integer(const KernelTable &table, Check &check) {
    for (size_t i = 0; i < (check.quick ? 25u : 250u); ++i) {
        check_shape(table, check, random_shape(check, 300));
    }
    for (size_t i = 0; i < (check.quick ? 15u : 150u); ++i) {
        check_shape(table, check, random_shape(check, 20));
    }
    for (size_t i = 0; i < (check.quick ? 2u : 8u); ++i) {
        Shape shape = random_shape(check, 1);
        shape.m = check.between(1, 20);
        shape.n = check.between(1, 40);
        shape.run_count = 1;
        shape.offsets.resize(1);
        shape.run_length = check.between(1000, 5000);
        shape.extent = static_cast<size_t>(shape.offsets[0]) + shape.run_length;
        check_shape(table, check, shape);
    }
}

}  // namespace whit
