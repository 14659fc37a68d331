// A weight matrix packed for one kernel: what stands at the head of a chain.
#ifndef WHIT_MATRIX_HEAD_H
#define WHIT_MATRIX_HEAD_H

#include "../kernels/kernels.h"
#include "memory.h"
#include "network.h"

namespace whit {

// Columns of the left panel that a sparse matrix is multiplied with.
constexpr size_t kSparsePanel = 64;

enum class Route : uint8_t {
    kBinary,       // bits times bits
    kInteger,      // bytes or int16 times integers
    kPlaneBytes,   // bytes times bit planes
    kPlaneFloats,  // floats times bit planes
    kNaive,        // int16 times int16, for what no kernel takes
    kFloats,
    kTwoFour,
    kSparse,
    kDepthwise,
};

// How the columns of the weight matrix follow one another in a left row: runs of `length` items,
// of which `used` are true (the rest pads); column[i] is the column of the file of item i, for all
// items of all runs (pads: SIZE_MAX).
struct ColumnOrder {
    size_t runs = 1, length = 0;
    std::vector<size_t> column;
};

struct MatrixHead {
    Route route{};
    const KernelTable *kernels = nullptr;
    size_t outputs = 0, groups = 1;  // outputs in all; each group has outputs / groups
    size_t lanes = 0, panel_bytes = 0;
    Type left{};                     // type of the rows that are read
    int32_t offset = 0;              // what the left type adds to the true number
    const IntegerKernel *integer = nullptr;
    const BinaryKernel *binary = nullptr, *binary_row = nullptr;  // of many rows, of one
    int32_t bits = 0;                // true signs of a row
    Bytes panels;                    // of all groups, one after the other
    size_t group_bytes = 0;
    std::vector<int32_t> correction;      // -offset * sum of weights, one for each output
    std::vector<float> bias;              // whole panels; of the float routes; may be empty
    float floor = -__builtin_inff();
    bool sums_are_whole = false;          // the block holds int32 after the kernel
    bool exact = false;                   // whole numbers in the file's sense (planes round)

    // Bit planes and naive.
    size_t planes = 0;
    std::vector<double> plane_sums;       // [used planes - 1][outputs]: sums of the narrowed weights
    std::vector<int16_t> naive;           // [outputs][items]

    // Sparse.
    std::vector<uint32_t> begin, offsets;
    std::vector<uint16_t> columns;
    std::vector<float> values;

    // Columns that a block has to have room for.
    size_t padded() const { return rounded_up(outputs, lanes) + lanes; }
    // Picks the kernels of signs for rows that come one at a time and so many at once.
    void select_kernels(size_t most_rows, const Runs &runs);

    // Multiplies m rows; out: [m][stride] int32 or float of the outputs [first, first + count),
    // first and count multiples of lanes (or the end). planes: how many bit planes to use.
    void multiply(const void *const *rows, size_t m, const Runs &runs, size_t group, size_t first,
                  size_t count, size_t used_planes, void *out, size_t stride) const;
};

// Throws LoadError. order: of the items of one group. float_left: the left side is float32.
MatrixHead pack_matrix(const Weight &weight, const std::vector<float> &bias, Domain source,
                       size_t groups, Route route, const ColumnOrder &order,
                       const KernelTable &kernels);

// Which route the product of a domain with a weight takes.
Route choose_route(const Weight &weight, bool has_bias, Domain source, size_t groups,
                   bool depthwise);
// The type that the left rows of a route need.
Type left_type(Route route, const Weight &weight, Domain source, const KernelTable &kernels);
int32_t left_offset(Type type);
// The largest sum of magnitudes of a row of whole weights, times `most`.
double largest_row_sum(const Weight &weight, double most);
// A bound of the sums that a matrix of whole weights makes of a domain of whole numbers.
double largest_sum(const Weight &weight, Domain source);

}  // namespace whit

#endif  // WHIT_MATRIX_HEAD_H
