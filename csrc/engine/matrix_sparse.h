// A sparse matrix of floats by rows, and its product with row-major activations.
#ifndef WHIT_MATRIX_SPARSE_H
#define WHIT_MATRIX_SPARSE_H

#include <vector>

#include "../kernels/kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace whit {

class SparseMatrix {
  public:
    // Throws LoadError.
    SparseMatrix(const KernelTable &table, const float *values, size_t n, size_t k);

    // left: [m][k], out: [m][n]. pool: null for one thread.
    void multiply(const float *left, size_t m, float *out, ThreadPool *pool);
    size_t bytes() const;

  private:
    struct Turn;
    using Part = void (*)(Turn &turn, size_t first, size_t count);
    void in_chunks(Turn &turn, size_t total, Part part);
    static void exchange_left(Turn &turn, size_t first, size_t count);
    static void multiply_panel(Turn &turn, size_t first, size_t count);
    static void multiply_rows(Turn &turn, size_t first, size_t count);

    const KernelTable &table_;
    size_t n_, k_;
    std::vector<uint32_t> begin_, offset_;
    std::vector<uint16_t> column_;
    std::vector<float> values_;
    Bytes left_panel_, out_panel_;  // [k][width], [n][width]: rows and columns exchanged
};

}  // namespace whit

#endif  // WHIT_MATRIX_SPARSE_H
