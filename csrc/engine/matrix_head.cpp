#include "matrix_head.h"

#include <algorithm>
#include <cmath>

#include "../kernels/selection.h"
#include "platform.h"

namespace whit {

namespace {

struct Range {
    int32_t low = 0, high = 0;
};

Range range_of(const Weight &weight) {
    const auto found = std::minmax_element(weight.integers.begin(), weight.integers.end());
    return {*found.first, *found.second};
}

const IntegerKernel &integer_kernel(const Weight &weight, Domain source,
                                    const KernelTable &kernels) {
    const Range range = range_of(weight);
    if (source != Domain::kInt16) {
        if (range.low >= -1 && range.high <= 1 && kernels.ternary.multiply) return kernels.ternary;
        if (range.low >= -8 && range.high <= 7 && kernels.int4.multiply) return kernels.int4;
        if (kernels.int8.multiply) return kernels.int8;
    }
    return kernels.wide;
}

// Weights [n][items] of a group in the order of the left rows, pads 0.
template <typename Item, typename Value>
std::vector<Item> ordered(const Weight &weight, size_t first, size_t n, const ColumnOrder &order,
                          Value value) {
    const size_t items = order.column.size();
    std::vector<Item> values(n * items, Item{0});
    for (size_t row = 0; row < n; ++row)
        for (size_t i = 0; i < items; ++i)
            if (order.column[i] < weight.columns)
                values[row * items + i] = static_cast<Item>(value(first + row, order.column[i]));
    return values;
}

void pack_binary(const Weight &weight, const ColumnOrder &order, MatrixHead &head) {
    // The order counts bits here, in words of 32; pads are 0 on both sides.
    const size_t words = order.column.size() / 32, lanes = head.lanes;
    head.panel_bytes = words * lanes * 4;
    head.panels = Bytes((head.outputs + lanes - 1) / lanes * head.panel_bytes);
    uint32_t *panels = head.panels.as<uint32_t>();
    for (size_t row = 0; row < head.outputs; ++row)
        for (size_t i = 0; i < order.column.size(); ++i) {
            const size_t column = order.column[i];
            if (column >= weight.columns || weight.integers[row * weight.columns + column] > 0)
                continue;
            panels[(row / lanes * words + i / 32) * lanes + row % lanes] |= 1u << (i % 32);
        }
    head.bits = static_cast<int32_t>(weight.columns);
}

void pack_floats(const std::vector<float> &values, size_t n, size_t items, size_t lanes,
                 float *panels) {
    for (size_t row = 0; row < n; ++row)
        for (size_t i = 0; i < items; ++i)
            panels[(row / lanes * items + i) * lanes + row % lanes] = values[row * items + i];
}

void pack_sparse(const Weight &weight, const ColumnOrder &order, MatrixHead &head) {
    head.begin.push_back(0);
    for (size_t row = 0; row < weight.rows; ++row) {
        for (size_t i = 0; i < order.column.size(); ++i) {
            const float value = weight.value(row, order.column[i]);
            if (value == 0.0f) continue;
            head.columns.push_back(static_cast<uint16_t>(i));
            head.offsets.push_back(static_cast<uint32_t>(i * kSparsePanel));
            head.values.push_back(value);
        }
        head.begin.push_back(static_cast<uint32_t>(head.values.size()));
    }
}

// Narrowed to the highest `used` of the planes: the middle of the integers that share them.
double narrowed(int32_t value, size_t planes, size_t used) {
    const int32_t shift = static_cast<int32_t>(planes - used);
    const double step = static_cast<double>(int32_t{1} << shift);
    return std::floor(value / step) * step + (step - 1) / 2;
}

void sum_planes(const Weight &weight, MatrixHead &head) {
    for (size_t used = 1; used <= head.planes; ++used)
        for (size_t row = 0; row < weight.rows; ++row) {
            double sum = 0;
            for (size_t column = 0; column < weight.columns; ++column)
                sum += narrowed(weight.integers[row * weight.columns + column], head.planes, used);
            head.plane_sums.push_back(sum);
        }
}

double row_sum(Type type, const void *row, const Runs &runs) {
    double sum = 0;
    for (size_t run = 0; run < runs.count; ++run)
        for (size_t i = 0; i < runs.length; ++i) {
            const ptrdiff_t at = runs.offsets[run] + static_cast<ptrdiff_t>(i);
            sum += type == Type::kFloat   ? static_cast<const float *>(row)[at]
                   : type == Type::kInt16 ? static_cast<const int16_t *>(row)[at]
                                          : static_cast<const uint8_t *>(row)[at];
        }
    return sum;
}

// Sums over planes (in out, int32 or float) to the true sums with `used` planes.
void finish_planes(const MatrixHead &head, const void *const *rows, size_t m, const Runs &runs,
                   size_t first, size_t count, size_t used, void *out, size_t stride) {
    const double step = static_cast<double>(int32_t{1} << (head.planes - used));
    const double *sums = head.plane_sums.data() + (used - 1) * head.outputs;
    const bool floats = head.route == Route::kPlaneFloats;
    if (used == head.planes && head.offset == 0 && (floats || head.sums_are_whole)) return;
    const size_t end = std::min(first + count, head.outputs);
    for (size_t r = 0; r < m; ++r) {
        const double all = used < head.planes ? row_sum(head.left, rows[r], runs) : 0;
        for (size_t n = first; n < end; ++n) {
            void *place = static_cast<uint8_t *>(out) + 4 * (r * stride + n - first);
            float as_float;
            int32_t as_whole;
            std::memcpy(&as_float, place, 4);
            std::memcpy(&as_whole, place, 4);
            const double sum = floats ? static_cast<double>(as_float) : as_whole;
            const double real = sum * step + (step - 1) / 2 * all - head.offset * sums[n];
            as_whole = static_cast<int32_t>(std::nearbyint(real));
            as_float = static_cast<float>(real);
            if (head.sums_are_whole) std::memcpy(place, &as_whole, 4);
            else std::memcpy(place, &as_float, 4);
        }
    }
}

void multiply_naively(const MatrixHead &head, const void *const *rows, size_t m, const Runs &runs,
                      size_t group, size_t first, size_t count, size_t used, void *out,
                      size_t stride) {
    const size_t items = runs.count * runs.length, n = head.outputs / head.groups;
    const size_t shift = head.planes ? head.planes - used : 0;
    for (size_t r = 0; r < m; ++r) {
        const int16_t *row = static_cast<const int16_t *>(rows[r]);
        for (size_t j = first; j < std::min(first + count, n); ++j) {
            const int16_t *weight = head.naive.data() + (group * n + j) * items;
            int64_t sum = 0, all = 0;
            for (size_t run = 0; run < runs.count; ++run)
                for (size_t i = 0; i < runs.length; ++i) {
                    const int64_t left = row[runs.offsets[run] + static_cast<ptrdiff_t>(i)];
                    sum += left * (weight[run * runs.length + i] >> shift);
                    all += left;
                }
            const double step = static_cast<double>(int64_t{1} << shift);
            const double real = static_cast<double>(sum) * step +
                                (step - 1) / 2 * static_cast<double>(all);
            void *place = static_cast<uint8_t *>(out) + 4 * (r * stride + j - first);
            const int32_t whole = static_cast<int32_t>(std::nearbyint(real));
            const float rounded = static_cast<float>(real);
            if (head.sums_are_whole) std::memcpy(place, &whole, 4);
            else std::memcpy(place, &rounded, 4);
        }
    }
}

Selection &selection() {
    static Selection remembered(kernel_cache_path());
    return remembered;
}

template <typename Kernel>
void pack_panels(const Kernel &kernel, const ColumnOrder &order, MatrixHead &head) {
    head.lanes = kernel.lanes;
    head.panel_bytes = kernel.panel_bytes(order.runs, order.length);
}

}  // namespace

double largest_row_sum(const Weight &weight, double most) {
    double largest = 0;
    for (size_t row = 0; row < weight.rows; ++row) {
        double sum = 0;
        for (size_t column = 0; column < weight.columns; ++column)
            sum += std::abs(static_cast<double>(weight.integers[row * weight.columns + column]));
        largest = std::max(largest, sum * most);
    }
    return largest;
}

double largest_sum(const Weight &weight, Domain source) {
    // Of bit planes a call may use fewer: then a weight is up to one more than the integer.
    const double most = static_cast<double>(std::max(-lowest(source), highest(source)));
    const double rounding = weight.planes ? static_cast<double>(weight.columns) * most *
                                                std::pow(2.0, static_cast<double>(weight.planes))
                                          : 0;
    return largest_row_sum(weight, most) + rounding;
}

int32_t left_offset(Type type) {
    return type == Type::kBiased ? 128 : type == Type::kRaised ? 1 : 0;
}

Route choose_route(const Weight &weight, bool has_bias, Domain source, size_t groups,
                   bool depthwise) {
    const bool whole = weight.whole() && source != Domain::kFloat && source != Domain::kInteger;
    if (weight.planes && whole) {
        // The sums of bytes, 255 at most, have to fit int32 on the way.
        const bool fits = largest_row_sum(weight, 255) < 2147483648.0;
        return source == Domain::kInt16 || !fits ? Route::kNaive : Route::kPlaneBytes;
    }
    if (weight.planes) return Route::kPlaneFloats;
    if (whole) {
        if (weight.signs && source == Domain::kSign && groups == 1) return Route::kBinary;
        // Sums with a scale or a bias may be large: then floats, as the reference has them.
        const double most = source == Domain::kInt16 ? 32768 : source == Domain::kSign ? 2 : 255;
        if (largest_row_sum(weight, most) < 2147483648.0) return Route::kInteger;
        // Exact sums fit int32 (the reader refuses others), and on the way to them wrap around.
        if (weight.scale.empty() && !has_bias) return Route::kInteger;
    }
    if (depthwise) return Route::kDepthwise;
    if (weight.two_four && !weight.whole() && groups == 1) return Route::kTwoFour;
    return Route::kFloats;
}

Type left_type(Route route, const Weight &weight, Domain source, const KernelTable &kernels) {
    switch (route) {
        case Route::kBinary: return Type::kBits;
        case Route::kNaive: return Type::kInt16;
        case Route::kInteger:
            if (&integer_kernel(weight, source, kernels) == &kernels.wide) return Type::kInt16;
            [[fallthrough]];
        case Route::kPlaneBytes:
            return source == Domain::kByte   ? Type::kByte
                   : source == Domain::kInt8 ? Type::kBiased
                                             : Type::kRaised;
        default: return Type::kFloat;
    }
}

MatrixHead pack_matrix(const Weight &weight, const std::vector<float> &bias, Domain source,
                       size_t groups, Route route, const ColumnOrder &order,
                       const KernelTable &kernels) {
    MatrixHead head;
    head.route = route, head.kernels = &kernels;
    head.outputs = weight.rows, head.groups = groups;
    head.left = left_type(route, weight, source, kernels);
    head.offset = left_offset(head.left);
    head.planes = weight.planes;
    head.exact = weight.whole() && source != Domain::kFloat && weight.scale.empty() && bias.empty();
    const size_t n = weight.rows / groups, items = order.column.size();
    const auto integer = [&](size_t row, size_t column) {
        return weight.integers[row * weight.columns + column];
    };
    const auto real = [&](size_t row, size_t column) { return weight.value(row, column); };
    const bool whole = route == Route::kBinary || route == Route::kInteger;
    head.sums_are_whole = whole || ((route == Route::kPlaneBytes || route == Route::kNaive ||
                                     route == Route::kPlaneFloats) && head.exact);

    switch (route) {
        case Route::kBinary:
            head.lanes = kernels.binary_lanes;
            head.binary = head.binary_row = &kernels.binary[0];
            pack_binary(weight, order, head);
            return head;
        case Route::kInteger:
            head.integer = &integer_kernel(weight, source, kernels);
            pack_panels(*head.integer, order, head);
            break;
        case Route::kPlaneBytes:
        case Route::kPlaneFloats:
            head.lanes = kernels.planes.lanes;
            head.panel_bytes = kernels.planes.panel_bytes(order.runs, order.length, weight.planes);
            sum_planes(weight, head);
            break;
        case Route::kNaive:
            head.lanes = 1;
            for (size_t group = 0; group < groups; ++group) {
                const auto values = ordered<int16_t>(weight, group * n, n, order, integer);
                head.naive.insert(head.naive.end(), values.begin(), values.end());
            }
            return head;
        case Route::kTwoFour: pack_panels(kernels.two_four, order, head); break;
        case Route::kSparse:
            head.lanes = 8;
            pack_sparse(weight, order, head);
            break;
        case Route::kDepthwise: head.lanes = 1; break;
        default:
            head.lanes = kernels.floats.lanes;
            head.panel_bytes = items * head.lanes * 4;
            break;
    }
    if (!whole && route != Route::kPlaneBytes && route != Route::kPlaneFloats && !bias.empty()) {
        head.bias.assign(head.padded() + (groups - 1) * head.lanes, 0.0f);
        std::copy(bias.begin(), bias.end(), head.bias.begin());
    }
    if (route == Route::kSparse) return head;
    if (route == Route::kDepthwise) {
        head.panels = Bytes(weight.rows * weight.columns * 4);
        for (size_t row = 0; row < weight.rows; ++row)
            for (size_t tap = 0; tap < weight.columns; ++tap)
                head.panels.as<float>()[tap * weight.rows + row] = weight.value(row, tap);
        return head;
    }
    head.group_bytes = (n + head.lanes - 1) / head.lanes * head.panel_bytes;
    head.panels = Bytes(groups * head.group_bytes);
    for (size_t group = 0; group < groups; ++group) {
        void *panels = head.panels.data() + group * head.group_bytes;
        if (route == Route::kInteger)
            head.integer->pack(ordered<int8_t>(weight, group * n, n, order, integer).data(), n,
                               order.runs, order.length, panels);
        else if (route == Route::kPlaneBytes || route == Route::kPlaneFloats)
            kernels.planes.pack(ordered<int16_t>(weight, group * n, n, order, integer).data(), n,
                                order.runs, order.length, weight.planes, panels);
        else if (route == Route::kTwoFour)
            kernels.two_four.pack(ordered<float>(weight, group * n, n, order, real).data(), n,
                                  order.runs, order.length, panels);
        else
            pack_floats(ordered<float>(weight, group * n, n, order, real), n, items, head.lanes,
                        static_cast<float *>(panels));
    }
    if (route == Route::kInteger && head.offset) {
        head.correction.assign(rounded_up(weight.rows, head.lanes) + head.lanes, 0);
        for (size_t row = 0; row < weight.rows; ++row) {
            int64_t sum = 0;
            for (size_t column = 0; column < weight.columns; ++column) sum += integer(row, column);
            head.correction[row] = static_cast<int32_t>(-head.offset * sum);
        }
    }
    return head;
}

void MatrixHead::select_kernels(size_t most_rows, const Runs &runs) {
    if (route != Route::kBinary) return;
    binary_row = &select_binary(*kernels, 1, runs.count, runs.length, selection());
    binary = &select_binary(*kernels, most_rows, runs.count, runs.length, selection());
}

void MatrixHead::multiply(const void *const *rows, size_t m, const Runs &runs, size_t group,
                          size_t first, size_t count, size_t used_planes, void *out,
                          size_t stride) const {
    const size_t panel_count = (count + lanes - 1) / lanes;
    const uint8_t *own = panels.data() + group * group_bytes + first / lanes * panel_bytes;
    const size_t at = group * (outputs / groups) + first;
    const float *terms = bias.empty() ? nullptr : bias.data() + at;
    const size_t used = used_planes == 0 ? planes : std::min(used_planes, planes);
    int32_t *whole = static_cast<int32_t *>(out);
    float *real = static_cast<float *>(out);
    const auto *const *float_rows = reinterpret_cast<const float *const *>(rows);
    switch (route) {
        case Route::kBinary:
            return (m == 1 ? binary_row : binary)
                ->multiply(reinterpret_cast<const uint32_t *const *>(rows), m, runs,
                           reinterpret_cast<const uint32_t *>(own), panel_count, bits, whole,
                           stride);
        case Route::kInteger:
            return integer->multiply(rows, m, runs, own, panel_count, whole, stride);
        case Route::kPlaneBytes:
            kernels->planes.multiply_bytes(reinterpret_cast<const uint8_t *const *>(rows), m, runs,
                                           own, panel_count, planes, used, whole, stride);
            return finish_planes(*this, rows, m, runs, at, count, used, out, stride);
        case Route::kPlaneFloats:
            kernels->planes.multiply_floats(float_rows, m, runs, own, panel_count, planes, used,
                                            real, stride);
            return finish_planes(*this, rows, m, runs, at, count, used, out, stride);
        case Route::kNaive:
            return multiply_naively(*this, rows, m, runs, group, first, count, used, out, stride);
        case Route::kTwoFour:
            return kernels->two_four.multiply(float_rows, m, runs, own, panel_count, terms, floor,
                                              real, stride);
        case Route::kDepthwise:
        case Route::kSparse: return;  // see chain.cpp: their left side is no list of rows
        default:
            return kernels->floats.multiply(float_rows, m, runs,
                                            reinterpret_cast<const float *>(own), panel_count,
                                            terms, floor, real, stride);
    }
}

}  // namespace whit
