#include "matrix_kinds.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "../kernels/selection.h"

namespace whit {
namespace {

void require(const void *function, const MatrixRequest &request, const KernelTable &table) {
    if (function == nullptr)
        refuse("there is no kernel for \"" + request.kind + "\" at the level " + table.level);
}

template <typename Value>
void require_range(const MatrixRequest &request, int lowest, int highest) {
    const Value *values = static_cast<const Value *>(request.values);
    for (size_t i = 0; i < request.n * request.k; ++i)
        if (values[i] < lowest || values[i] > highest)
            refuse("values of \"" + request.kind + "\" lie between " + std::to_string(lowest) +
                   " and " + std::to_string(highest) + "; got " + std::to_string(values[i]));
}

void make_panels(PackedMatrix &matrix, size_t lanes, size_t panel_bytes) {
    matrix.lanes = lanes;
    matrix.panel_bytes = panel_bytes;
    matrix.panel_count = (matrix.n + lanes - 1) / lanes;
    matrix.panels = Bytes(matrix.panel_count * panel_bytes);
}

template <typename Pointer>
const Pointer *const *rows_of(const void *const *rows) {
    return reinterpret_cast<const Pointer *const *>(rows);
}

// ---- signs -----------------------------------------------------------------------------------

void call_binary(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                 const void *panels, size_t panel_count, void *out, size_t stride) {
    const BinaryKernel &kernel = *self.binary[std::min(m, kBinaryRows)];
    kernel.multiply(rows_of<uint32_t>(rows), m, runs, static_cast<const uint32_t *>(panels),
                    panel_count, static_cast<int32_t>(self.k), static_cast<int32_t *>(out), stride);
}

const BinaryKernel &named_binary(const KernelTable &table, const char *name) {
    for (const BinaryKernel &kernel : table.binary)
        if (kernel.multiply != nullptr && std::strcmp(name, kernel.name) == 0) return kernel;
    refuse("the level " + std::string(table.level) + " has no kernel named " + name);
}

void choose_binary(PackedMatrix &matrix, const char *name) {
    static Selection selection;
    for (size_t m = 1; m <= kBinaryRows; ++m)
        matrix.binary[m] =
            name != nullptr ? &named_binary(*matrix.table, name)
                            : &select_binary(*matrix.table, m, 1, matrix.row_elements, selection);
}

void pack_signs(PackedMatrix &matrix, const int8_t *values) {
    const size_t words = matrix.row_elements;
    uint32_t *panels = matrix.panels.as<uint32_t>();
    for (size_t row = 0; row < matrix.n; ++row) {
        uint32_t *first = panels + row / matrix.lanes * words * matrix.lanes + row % matrix.lanes;
        for (size_t column = 0; column < matrix.k; ++column) {
            const uint32_t negative = values[row * matrix.k + column] < 0;
            first[column / 32 * matrix.lanes] |= negative << column % 32;
        }
    }
}

void make_signs(PackedMatrix &matrix, const MatrixRequest &request) {
    const int8_t *values = static_cast<const int8_t *>(request.values);
    for (size_t i = 0; i < matrix.n * matrix.k; ++i)
        if (values[i] != 1 && values[i] != -1) refuse("values of \"signs\" are -1 or +1");
    require(reinterpret_cast<const void *>(matrix.table->binary[0].multiply), request,
            *matrix.table);
    matrix.row_elements = (matrix.k + 31) / 32;
    matrix.element_bytes = sizeof(uint32_t);
    const size_t lanes = matrix.table->binary_lanes;
    make_panels(matrix, lanes, matrix.row_elements * lanes * sizeof(uint32_t));
    pack_signs(matrix, values);
    choose_binary(matrix, request.kernel);
    matrix.call = call_binary;
}

// ---- integers --------------------------------------------------------------------------------

template <IntegerKernel KernelTable::*kernel>
void call_integer(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                  const void *panels, size_t panel_count, void *out, size_t stride) {
    (self.table->*kernel)
        .multiply(rows, m, runs, panels, panel_count, static_cast<int32_t *>(out), stride);
}

template <IntegerKernel KernelTable::*kernel>
void make_integer(PackedMatrix &matrix, const MatrixRequest &request, int lowest, int highest,
                  size_t element_bytes) {
    require_range<int8_t>(request, lowest, highest);
    const IntegerKernel &chosen = matrix.table->*kernel;
    require(reinterpret_cast<const void *>(chosen.multiply), request, *matrix.table);
    matrix.element_bytes = element_bytes;
    make_panels(matrix, chosen.lanes, chosen.panel_bytes(1, matrix.k));
    chosen.pack(static_cast<const int8_t *>(request.values), matrix.n, 1, matrix.k,
                matrix.panels.data());
    matrix.call = call_integer<kernel>;
}

void call_planes(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                 const void *panels, size_t panel_count, void *out, size_t stride) {
    const PlaneKernel &kernel = self.table->planes;
    if (self.floats)
        kernel.multiply_floats(rows_of<float>(rows), m, runs, panels, panel_count, self.planes,
                               self.used, static_cast<float *>(out), stride);
    else
        kernel.multiply_bytes(rows_of<uint8_t>(rows), m, runs, panels, panel_count, self.planes,
                              self.used, static_cast<int32_t *>(out), stride);
}

void make_planes(PackedMatrix &matrix, const MatrixRequest &request, bool floats) {
    const PlaneKernel &kernel = matrix.table->planes;
    if (request.planes < 2 || request.planes > 16) refuse("planes must be between 2 and 16");
    const int most = 1 << (request.planes - 1);
    require_range<int16_t>(request, -most, most - 1);
    require(reinterpret_cast<const void *>(kernel.multiply_bytes), request, *matrix.table);
    require(reinterpret_cast<const void *>(kernel.multiply_floats), request, *matrix.table);
    matrix.planes = matrix.used = request.planes;
    matrix.floats = floats;
    matrix.element_bytes = floats ? sizeof(float) : 1;
    make_panels(matrix, kernel.lanes, kernel.panel_bytes(1, matrix.k, matrix.planes));
    kernel.pack(static_cast<const int16_t *>(request.values), matrix.n, 1, matrix.k, matrix.planes,
                matrix.panels.data());
    matrix.call = call_planes;
}

// ---- floats ----------------------------------------------------------------------------------

constexpr float kNoFloor = -std::numeric_limits<float>::infinity();

void call_floats(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                 const void *panels, size_t panel_count, void *out, size_t stride) {
    self.table->floats.multiply(rows_of<float>(rows), m, runs, static_cast<const float *>(panels),
                                panel_count, nullptr, kNoFloor, static_cast<float *>(out), stride);
}

void call_two_four(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                   const void *panels, size_t panel_count, void *out, size_t stride) {
    self.table->two_four.multiply(rows_of<float>(rows), m, runs, panels, panel_count, nullptr,
                                  kNoFloor, static_cast<float *>(out), stride);
}

void make_floats(PackedMatrix &matrix, const MatrixRequest &request) {
    require(reinterpret_cast<const void *>(matrix.table->floats.multiply), request, *matrix.table);
    matrix.floats = true;
    matrix.element_bytes = sizeof(float);
    const size_t lanes = matrix.table->floats.lanes;
    make_panels(matrix, lanes, matrix.k * lanes * sizeof(float));
    const float *values = static_cast<const float *>(request.values);
    float *panels = matrix.panels.as<float>();
    for (size_t row = 0; row < matrix.n; ++row)
        for (size_t column = 0; column < matrix.k; ++column)
            panels[(row / lanes * matrix.k + column) * lanes + row % lanes] =
                values[row * matrix.k + column];
    matrix.call = call_floats;
}

void require_two_of_four(const MatrixRequest &request) {
    const float *values = static_cast<const float *>(request.values);
    if (request.k % 4 != 0) refuse("\"two_four\" needs a multiple of 4 columns");
    for (size_t i = 0; i < request.n * request.k; i += 4) {
        int used = 0;
        for (size_t j = 0; j < 4; ++j) used += values[i + j] != 0.0f;
        if (used > 2) refuse("\"two_four\" has at most two weights in each four");
    }
}

void make_two_four(PackedMatrix &matrix, const MatrixRequest &request) {
    require_two_of_four(request);
    const TwoFourKernel &kernel = matrix.table->two_four;
    require(reinterpret_cast<const void *>(kernel.multiply), request, *matrix.table);
    matrix.floats = true;
    matrix.element_bytes = sizeof(float);
    make_panels(matrix, kernel.lanes, kernel.panel_bytes(1, matrix.k));
    kernel.pack(static_cast<const float *>(request.values), matrix.n, 1, matrix.k,
                matrix.panels.data());
    matrix.call = call_two_four;
}

// A level without its own int8 kernel widens the rows and takes the wide one.
void make_int8(PackedMatrix &matrix, const MatrixRequest &request) {
    if (matrix.table->int8.multiply != nullptr) {
        make_integer<&KernelTable::int8>(matrix, request, -128, 127, 1);
        return;
    }
    make_integer<&KernelTable::wide>(matrix, request, -128, 127, 2);
    matrix.widens = true;
}

}  // namespace

PackedMatrix make_matrix(const KernelTable &table, const MatrixRequest &request) {
    PackedMatrix matrix;
    matrix.table = &table;
    matrix.n = request.n;
    matrix.k = matrix.row_elements = request.k;
    if (request.kind == "signs")
        make_signs(matrix, request);
    else if (request.kind == "ternary")
        make_integer<&KernelTable::ternary>(matrix, request, -1, 1, 1);
    else if (request.kind == "int4")
        make_integer<&KernelTable::int4>(matrix, request, -8, 7, 1);
    else if (request.kind == "int8")
        make_int8(matrix, request);
    else if (request.kind == "wide")
        make_integer<&KernelTable::wide>(matrix, request, -128, 127, 2);
    else if (request.kind == "planes" || request.kind == "plane_floats")
        make_planes(matrix, request, request.kind == "plane_floats");
    else if (request.kind == "float32")
        make_floats(matrix, request);
    else if (request.kind == "two_four")
        make_two_four(matrix, request);
    else
        refuse("no such kind of matrix: " + request.kind);
    return matrix;
}

}  // namespace whit
