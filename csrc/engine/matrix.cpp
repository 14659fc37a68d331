// The C interface of one matrix (whit_matrix.h): blocks of rows and panels, and the last panel's
// padded outputs kept out of the caller's memory.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "matrix_kinds.h"
#include "matrix_sparse.h"
#include "thread_pool.h"
#include "whit_matrix.h"

namespace whit {
namespace {

constexpr size_t kRowBlock = 64;
constexpr size_t kPanelBlockBytes = 128 << 10;   // stays in the second-level cache beside the rows
constexpr size_t kChunksPerThread = 4;           // enough that a slow core delays little
constexpr size_t kBytesForThreads = 4 << 20;     // panel bytes times rows: about 50 us of work
constexpr size_t kDefaultRows = 256;

}  // namespace
}  // namespace whit

struct whit_matrix {
    whit::PackedMatrix packed;
    std::unique_ptr<whit::SparseMatrix> sparse;  // instead of `packed`
    std::unique_ptr<whit::ThreadPool> pool;      // null for one thread
    const char *level = nullptr;
    size_t max_m = whit::kDefaultRows, threads = 1;
    bool floats = false;
    whit::Bytes rows;       // [max_m] pointers
    whit::Bytes own_rows;   // rows that the kernel would read too far behind, or widened ones
    whit::Bytes last;       // [threads][row block][lanes]: the last panel's results
    size_t n = 0, left_bytes = 0;  // outputs; bytes of one row of the caller
};

namespace whit {
namespace {

// What the chunks of one product share.
struct Product {
    const whit_matrix *matrix;
    const void *const *rows;
    size_t m;
    uint8_t *out;
    size_t row_block, row_blocks, panel_block;
};

// Only the rows at the end are followed by less than the slack that kernels may read.
size_t rows_to_copy(const whit_matrix &matrix, size_t m) {
    return std::min(m, kSlackBytes / matrix.left_bytes + 1);
}

const void *const *widened_rows(whit_matrix &matrix, const uint8_t *left, size_t m) {
    const void **rows = matrix.rows.as<const void *>();
    int16_t *wide = matrix.own_rows.as<int16_t>();
    const size_t k = matrix.packed.row_elements;
    for (size_t i = 0; i < m * k; ++i) wide[i] = left[i];
    for (size_t row = 0; row < m; ++row) rows[row] = wide + row * k;
    return rows;
}

const void *const *row_pointers(whit_matrix &matrix, const void *left, size_t m) {
    const uint8_t *bytes = static_cast<const uint8_t *>(left);
    if (matrix.packed.widens) return widened_rows(matrix, bytes, m);
    const void **rows = matrix.rows.as<const void *>();
    const size_t row_bytes = matrix.left_bytes, copied = rows_to_copy(matrix, m);
    std::memcpy(matrix.own_rows.data(), bytes + (m - copied) * row_bytes, copied * row_bytes);
    for (size_t row = 0; row < m; ++row)
        rows[row] = row + copied < m
                        ? bytes + row * row_bytes
                        : matrix.own_rows.data() + (row + copied - m) * row_bytes;
    return rows;
}

// The last panel has outputs that do not exist: they go to our own memory.
void multiply_last_panel(const Product &product, const Runs &runs, size_t row, size_t rows,
                         size_t thread) {
    const whit_matrix &matrix = *product.matrix;
    const PackedMatrix &packed = matrix.packed;
    const size_t panel = packed.panel_count - 1, first = panel * packed.lanes;
    uint8_t *sums = matrix.last.data() + thread * kRowBlock * packed.lanes * 4;
    packed.call(packed, product.rows + row, rows, runs,
                packed.panels.data() + panel * packed.panel_bytes, 1, sums, packed.lanes);
    for (size_t i = 0; i < rows; ++i)
        std::memcpy(product.out + ((row + i) * matrix.n + first) * 4, sums + i * packed.lanes * 4,
                    (matrix.n - first) * 4);
}

// Panels outside, rows inside: a block of panels stays in the cache while the rows pass.
void multiply_chunk(void *context, size_t chunk, size_t thread) {
    const Product &product = *static_cast<const Product *>(context);
    const PackedMatrix &packed = product.matrix->packed;
    const size_t row = chunk % product.row_blocks * product.row_block;
    const size_t rows = std::min(product.row_block, product.m - row);
    const size_t panel = chunk / product.row_blocks * product.panel_block;
    const size_t end = std::min(panel + product.panel_block, packed.panel_count);
    const size_t whole_end = std::min(end, product.matrix->n / packed.lanes);
    const ptrdiff_t offset = 0;
    const Runs runs{1, packed.row_elements, &offset};
    if (whole_end > panel)
        packed.call(packed, product.rows + row, rows, runs,
                    packed.panels.data() + panel * packed.panel_bytes, whole_end - panel,
                    product.out + (row * product.matrix->n + panel * packed.lanes) * 4,
                    product.matrix->n);
    if (whole_end < end) multiply_last_panel(product, runs, row, rows, thread);
}

size_t blocks(size_t total, size_t block) { return (total + block - 1) / block; }

void multiply(whit_matrix &matrix, const void *left, size_t m, void *out) {
    const PackedMatrix &packed = matrix.packed;
    Product product{&matrix, row_pointers(matrix, left, m), m, static_cast<uint8_t *>(out), 0, 0, 0};
    const bool parallel = matrix.pool != nullptr && packed.panels.size() * m >= kBytesForThreads;
    product.row_block = std::min(m, kRowBlock);
    product.row_blocks = blocks(m, product.row_block);
    // One block of rows reads every panel once: no cache to keep them in, one call is best.
    product.panel_block = product.row_blocks == 1
                              ? packed.panel_count
                              : std::max<size_t>(1, kPanelBlockBytes / packed.panel_bytes);
    if (parallel) {
        const size_t wanted = blocks(kChunksPerThread * matrix.threads, product.row_blocks);
        product.panel_block =
            std::min(product.panel_block, std::max<size_t>(1, packed.panel_count / wanted));
    }
    const size_t chunks = product.row_blocks * blocks(packed.panel_count, product.panel_block);
    if (parallel) return matrix.pool->run(chunks, multiply_chunk, &product);
    for (size_t chunk = 0; chunk < chunks; ++chunk) multiply_chunk(&product, chunk, 0);
}

const KernelTable &table_for(const char *level) {
    const char *error = nullptr;
    const KernelTable *table = level == nullptr ? kernel_table(&error) : kernel_table_of(level);
    if (table != nullptr) return *table;
    refuse(error != nullptr ? std::string(error)
                            : "this processor or this build lacks the level " + std::string(level));
}

std::unique_ptr<whit_matrix> create(const MatrixRequest &request,
                                    const whit_matrix_options &options) {
    expect(request.n > 0 && request.k > 0, "a matrix has at least one row and one column");
    const KernelTable &table = table_for(options.level);
    auto matrix = std::make_unique<whit_matrix>();
    matrix->level = table.level;
    matrix->n = request.n;
    if (options.max_m != 0) matrix->max_m = options.max_m;
    if (options.threads > 1) {
        matrix->threads = options.threads;
        matrix->pool = std::make_unique<ThreadPool>(options.threads);
    }
    if (request.kind == "sparse") {
        matrix->sparse = std::make_unique<SparseMatrix>(
            table, static_cast<const float *>(request.values), request.n, request.k);
        matrix->floats = true;
        matrix->left_bytes = request.k * sizeof(float);
        return matrix;
    }
    PackedMatrix &packed = matrix->packed = make_matrix(table, request);
    matrix->floats = packed.floats;
    matrix->left_bytes = packed.widens ? packed.row_elements : packed.row_bytes();
    matrix->rows = Bytes(matrix->max_m * sizeof(void *));
    const size_t own = packed.widens ? matrix->max_m : rows_to_copy(*matrix, matrix->max_m);
    matrix->own_rows = Bytes(own * packed.row_bytes() + kSlackBytes);
    matrix->last = Bytes(matrix->threads * kRowBlock * packed.lanes * 4);
    return matrix;
}

}  // namespace
}  // namespace whit

extern "C" {

whit_matrix *whit_matrix_create(const char *kind, const void *values, size_t n, size_t k,
                                const whit_matrix_options *options, char *error,
                                size_t error_bytes) {
    const whit_matrix_options given = options == nullptr ? whit_matrix_options{} : *options;
    try {
        return whit::create({kind, values, n, k, given.planes, given.kernel}, given).release();
    } catch (const std::exception &failure) {
        if (error != nullptr && error_bytes != 0)
            std::snprintf(error, error_bytes, "%s", failure.what());
        return nullptr;
    }
}

int whit_matrix_multiply(whit_matrix *matrix, const void *left, size_t m, void *out) {
    if (m > matrix->max_m) return -1;
    if (m == 0) return 0;
    if (matrix->sparse != nullptr)
        matrix->sparse->multiply(static_cast<const float *>(left), m, static_cast<float *>(out),
                                 matrix->pool.get());
    else
        whit::multiply(*matrix, left, m, out);
    return 0;
}

int whit_matrix_use_planes(whit_matrix *matrix, size_t used) {
    if (used < 1 || used > matrix->packed.planes) return -1;
    matrix->packed.used = used;
    return 0;
}

const char *whit_matrix_level(const whit_matrix *matrix) { return matrix->level; }

size_t whit_matrix_bytes(const whit_matrix *matrix) {
    return matrix->sparse != nullptr ? matrix->sparse->bytes() : matrix->packed.panels.size();
}

size_t whit_matrix_row_bytes(const whit_matrix *matrix) { return matrix->left_bytes; }

int whit_matrix_gives_floats(const whit_matrix *matrix) { return matrix->floats ? 1 : 0; }

void whit_matrix_free(whit_matrix *matrix) { delete matrix; }

}  // extern "C"
