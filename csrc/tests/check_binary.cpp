// Binary kernels against the reference, on random odd shapes.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../kernels/reference/binary.h"
#include "check.h"

namespace whit {

void check_binary(const KernelTable &table, Check &check);

namespace {

struct Shape {
    size_t m, n, run_count, run_length, pad_bits;

    size_t words() const { return run_count * run_length; }
};

enum class Values { random, all_equal, all_unequal };

// Exactly as much memory as the contract promises, so that a sanitizer finds any byte more.
// Panels are aligned to 64 bytes, rows and output to their elements only.
template <typename Element>
class Exact {
  public:
    Exact(size_t count, size_t misalignment)
        : memory_(std::aligned_alloc(64, round_up(bytes(count) + misalignment))),
          offset_(round_up(bytes(count) + misalignment) - bytes(count)) {}
    ~Exact() { std::free(memory_); }
    Exact(const Exact &) = delete;
    Exact &operator=(const Exact &) = delete;

    // The data ends where the memory ends.
    Element *data() { return reinterpret_cast<Element *>(static_cast<char *>(memory_) + offset_); }

  private:
    static size_t bytes(size_t count) { return count * sizeof(Element); }
    static size_t round_up(size_t size) { return (size + 63) / 64 * 64; }

    void *memory_;
    size_t offset_;
};

// Rows that lie apart, the gaps and the slack full of garbage.
struct Left {
    std::vector<ptrdiff_t> offsets;
    std::vector<const uint32_t *> rows;
    size_t row_words = 0;

    Left(const Shape &shape, Check &check) {
        size_t next = 0;
        for (size_t i = 0; i < shape.run_count; ++i) {
            next += check.between(0, 3);
            offsets.push_back(static_cast<ptrdiff_t>(next));
            next += shape.run_length;
        }
        row_words = next;
    }
};

uint32_t word_mask(const Shape &shape, size_t word) {
    const bool last = word + 1 == shape.words();
    return last ? 0xFFFFFFFFu >> shape.pad_bits : 0xFFFFFFFFu;
}

void fill_left(const Shape &shape, Values values, Left &left, uint32_t *memory, Check &check) {
    const size_t total = shape.m * left.row_words + kSlackBytes / 4;
    for (size_t i = 0; i < total; ++i) memory[i] = check.random();
    for (size_t r = 0; r < shape.m; ++r) {
        uint32_t *row = memory + r * left.row_words;
        left.rows.push_back(row);
        for (size_t w = 0; w < shape.words(); ++w) {
            const ptrdiff_t run = left.offsets[w / shape.run_length];
            uint32_t &word = row[run + static_cast<ptrdiff_t>(w % shape.run_length)];
            if (values != Values::random) word = 0;
            word &= word_mask(shape, w);
        }
    }
}

void fill_panels(const Shape &shape, Values values, size_t lanes, uint32_t *panels, size_t count,
                 Check &check) {
    for (size_t i = 0; i < count * shape.words() * lanes; ++i) {
        const size_t lane = i % lanes, word = i / lanes % shape.words();
        const size_t output = i / lanes / shape.words() * lanes + lane;
        uint32_t value = check.random();
        if (values != Values::random) value = values == Values::all_equal ? 0 : 0xFFFFFFFFu;
        panels[i] = output < shape.n ? value & word_mask(shape, word) : 0;
    }
}

void check_shape(const KernelTable &table, const Shape &shape, Values values, Check &check) {
    const size_t lanes = table.binary_lanes, panel_count = (shape.n + lanes - 1) / lanes;
    const size_t columns = panel_count * lanes, stride = columns + check.between(0, 3);
    const int32_t bits = static_cast<int32_t>(32 * shape.words() - shape.pad_bits);
    Left left(shape, check);
    Exact<uint32_t> memory(shape.m * left.row_words + kSlackBytes / 4, 0);
    Exact<uint32_t> panels(panel_count * shape.words() * lanes, 0);
    Exact<int32_t> out((shape.m - 1) * stride + columns, 4);
    const size_t out_count = (shape.m - 1) * stride + columns;
    fill_left(shape, values, left, memory.data(), check);
    fill_panels(shape, values, lanes, panels.data(), panel_count, check);
    const Runs runs = {shape.run_count, shape.run_length, left.offsets.data()};
    constexpr int32_t kUntouched = 0x5A5A5A5A;
    std::vector<int32_t> expected(out_count, kUntouched);
    binary_reference(left.rows.data(), shape.m, runs, panels.data(), panel_count, lanes, bits,
                     expected.data(), stride);
    for (size_t k = 0; k < kMaxBinaryKernels && table.binary[k].multiply != nullptr; ++k) {
        for (size_t i = 0; i < out_count; ++i) out.data()[i] = kUntouched;
        table.binary[k].multiply(left.rows.data(), shape.m, runs, panels.data(), panel_count, bits,
                                 out.data(), stride);
        if (std::memcmp(out.data(), expected.data(), out_count * sizeof(int32_t)) == 0) continue;
        check.fail("%s: m %zu, n %zu, %zu runs of %zu words, %zu pad bits, values %d",
                   table.binary[k].name, shape.m, shape.n, shape.run_count, shape.run_length,
                   shape.pad_bits, static_cast<int>(values));
    }
}

Shape random_shape(Check &check) {
    Shape shape{};
    shape.m = check.between(1, check.between(1, 2) == 1 ? 6 : 70);
    shape.n = check.between(1, check.between(1, 3) == 1 ? 300 : 80);
    shape.run_count = check.between(1, 2) == 1 ? 1 : check.between(2, 9);
    shape.run_length = check.between(1, check.between(1, 4) == 1 ? 60 : 12);
    shape.pad_bits = check.between(0, 31);
    return shape;
}

// Lengths at which counters are emptied, blocks end and rows are cut into spans.
const Shape kCases[] = {
    {1, 10, 1, 1, 31},    {2, 33, 1, 7, 0},     {3, 129, 1, 8, 3},    {33, 64, 3, 6, 0},
    {17, 40, 3, 12, 0},   {5, 70, 3, 48, 0},    {2, 20, 1, 31, 0},    {2, 20, 1, 32, 5},
    {3, 20, 1, 157, 9},   {3, 20, 9, 30, 0},    {2, 10, 1, 512, 0},   {2, 10, 7, 75, 1},
    {1, 40, 3, 64, 0},    {65, 35, 5, 3, 7},    {4, 10, 1, 2043, 0},  {3, 10, 1, 2050, 11},
    {2, 10, 3, 700, 0},
};

}  // namespace

void check_binary(const KernelTable &table, Check &check) {
    for (const Shape &shape : kCases) {
        if (check.quick && shape.words() > 600) continue;
        for (Values values : {Values::random, Values::all_equal, Values::all_unequal}) {
            check_shape(table, shape, values, check);
        }
    }
    const size_t count = check.quick ? 20 : 300;
    for (size_t i = 0; i < count; ++i) {
        check_shape(table, random_shape(check), Values::random, check);
    }
}

}  // namespace whit
