// Packed matrices of each kind, as the kernels want them: panels and one function to call.
#ifndef WHIT_MATRIX_KINDS_H
#define WHIT_MATRIX_KINDS_H

#include <string>

#include "../kernels/kernels.h"
#include "memory.h"

namespace whit {

// Up to here, the number of rows decides which kernel for signs is the fastest.
constexpr size_t kBinaryRows = 16;

struct PackedMatrix {
    const KernelTable *table = nullptr;
    const BinaryKernel *binary[kBinaryRows + 1] = {};  // by the rows of a block; more: the last
    size_t n = 0, k = 0;
    size_t planes = 0, used = 0;
    size_t lanes = 0, panel_bytes = 0, panel_count = 0;
    size_t row_elements = 0, element_bytes = 0;  // of the left side, as the kernel reads it
    bool widens = false;                         // the caller's rows are uint8, the kernel's int16
    bool floats = false;                         // the result
    Bytes panels;

    void (*call)(const PackedMatrix &self, const void *const *rows, size_t m, const Runs &runs,
                 const void *panels, size_t panel_count, void *out, size_t stride) = nullptr;

    size_t row_bytes() const { return row_elements * element_bytes; }
};

struct MatrixRequest {
    std::string kind;
    const void *values;
    size_t n, k, planes;
    const char *kernel;  // of signs; null: the fastest
};

// Throws LoadError with a message for the caller.
PackedMatrix make_matrix(const KernelTable &table, const MatrixRequest &request);

}  // namespace whit

#endif  // WHIT_MATRIX_KINDS_H
