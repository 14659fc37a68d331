#include "matrix_sparse.h"

#include <algorithm>
#include <limits>

#include "../kernels/elementwise.h"

namespace whit {
namespace {

constexpr size_t kWidth = 64;        // rows of the left side that share each weight
constexpr size_t kFewRows = 2;       // up to here, row by row is faster than a panel
constexpr size_t kChunk = 256;       // columns or outputs that a thread claims at once
constexpr float kNoFloor = -std::numeric_limits<float>::infinity();

void exchange(const KernelTable &table, const float *in, size_t rows, size_t columns,
              size_t in_stride, float *out, size_t out_stride) {
    if (table.elementwise != nullptr && table.elementwise->transpose != nullptr) {
        table.elementwise->transpose(in, rows, columns, in_stride, out, out_stride, sizeof(float));
        return;
    }
    for (size_t row = 0; row < rows; ++row)
        for (size_t column = 0; column < columns; ++column)
            out[column * out_stride + row] = in[row * in_stride + column];
}

}  // namespace

// One block of rows of the left side.
struct SparseMatrix::Turn {
    SparseMatrix *matrix;
    const float *left;
    float *out;
    size_t rows;
    ThreadPool *pool;
    Part part;
    size_t total;
};

SparseMatrix::SparseMatrix(const KernelTable &table, const float *values, size_t n, size_t k)
    : table_(table), n_(n), k_(k) {
    expect(table.sparse.multiply != nullptr && table.sparse.multiply_vector != nullptr,
           "this level has no kernel for \"sparse\"");
    expect(k <= 65536, "\"sparse\" has at most 65536 columns");
    begin_.push_back(0);
    for (size_t row = 0; row < n; ++row) {
        for (size_t column = 0; column < k; ++column) {
            if (values[row * k + column] == 0.0f) continue;
            column_.push_back(static_cast<uint16_t>(column));
            offset_.push_back(static_cast<uint32_t>(column * kWidth));
            values_.push_back(values[row * k + column]);
        }
        begin_.push_back(static_cast<uint32_t>(values_.size()));
    }
    left_panel_ = Bytes(k * kWidth * sizeof(float));
    out_panel_ = Bytes(n * kWidth * sizeof(float));
}

size_t SparseMatrix::bytes() const {
    return values_.size() * (sizeof(float) + sizeof(uint16_t)) + begin_.size() * sizeof(uint32_t);
}

void SparseMatrix::in_chunks(Turn &turn, size_t total, Part part) {
    const auto one = [](void *context, size_t chunk, size_t) {
        Turn &shared = *static_cast<Turn *>(context);
        const size_t first = chunk * kChunk;
        shared.part(shared, first, std::min(kChunk, shared.total - first));
    };
    turn.part = part;
    turn.total = total;
    const size_t chunks = (total + kChunk - 1) / kChunk;
    if (turn.pool != nullptr) return turn.pool->run(chunks, one, &turn);
    for (size_t chunk = 0; chunk < chunks; ++chunk) one(&turn, chunk, 0);
}

void SparseMatrix::exchange_left(Turn &turn, size_t first, size_t count) {
    SparseMatrix &self = *turn.matrix;
    exchange(self.table_, turn.left + first, turn.rows, count, self.k_,
             self.left_panel_.as<float>() + first * kWidth, kWidth);
}

void SparseMatrix::multiply_panel(Turn &turn, size_t first, size_t count) {
    SparseMatrix &self = *turn.matrix;
    float *sums = self.out_panel_.as<float>() + first * kWidth;
    self.table_.sparse.multiply(self.left_panel_.as<float>(), turn.rows,
                                self.begin_.data() + first, self.offset_.data(),
                                self.values_.data(), count, nullptr, kNoFloor, sums, kWidth);
    exchange(self.table_, sums, count, turn.rows, kWidth, turn.out + first, self.n_);
}

void SparseMatrix::multiply_rows(Turn &turn, size_t first, size_t count) {
    SparseMatrix &self = *turn.matrix;
    for (size_t row = 0; row < turn.rows; ++row)
        self.table_.sparse.multiply_vector(turn.left + row * self.k_, self.begin_.data() + first,
                                           self.column_.data(), self.values_.data(), count,
                                           nullptr, kNoFloor, turn.out + row * self.n_ + first);
}

void SparseMatrix::multiply(const float *left, size_t m, float *out, ThreadPool *pool) {
    for (size_t row = 0; row < m; row += kWidth) {
        const size_t rows = std::min(kWidth, m - row);
        Turn turn{this, left + row * k_, out + row * n_, rows, pool, nullptr, 0};
        if (rows <= kFewRows) {
            in_chunks(turn, n_, multiply_rows);
            continue;
        }
        in_chunks(turn, k_, exchange_left);
        in_chunks(turn, n_, multiply_panel);
    }
}

}  // namespace whit
