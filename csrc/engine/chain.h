// A matrix product (or a value that is loaded) and all that follows it number by number.
//
// The work is cut into tiles of a few dozen rows and a block of columns. A tile runs through the
// kernel and all stages while it lies in the first-level cache, and only the last result is
// stored, in its narrow type. A row is a sample of a vector, or a pixel of an image in
// channels-last order; pools whose windows do not overlap are stages too, since a tile then holds
// whole windows.
#ifndef WHIT_CHAIN_H
#define WHIT_CHAIN_H

#include "matrix_head.h"
#include "node.h"

namespace whit {

// Which constant a number takes.
enum class Per : uint8_t {
    kOne,     // one for all
    kColumn,  // one for each column
    kRow,     // one for each row: values[row / rows_per_constant]
    kEach,    // one for each number of a sample
};

struct Stage {
    enum Operation : uint8_t {
        kWiden, kMultiply, kDivide, kAdd, kSubtract, kLeaky, kClamp, kCurve, kQuantize,
        kReluIntegers, kRequantize, kLookup, kLevelsFloats, kLevelsIntegers, kMaxPool,
        kJoinAdd, kJoinMultiply
    };
    Operation operation{};
    Per per = Per::kOne;
    size_t rows_per_constant = 1;
    std::vector<float> floats;
    std::vector<int32_t> integers;
    std::vector<int64_t> offsets;
    std::vector<double> exact_multipliers, exact_offsets;  // of a requantisation in doubles
    std::vector<uint8_t> flipped;
    float low = 0, high = 0, shift = 0, factor = 1;
    size_t mode = 0, levels = 1, exponent = 0;
    int64_t least = 0, most = 0, step = 1;
    bool narrow = false;
    size_t pool_h = 1, pool_w = 1;
    bool whole = false;      // a pool of integers
    size_t join_buffer = 0;  // the other value of a join, of the same grid
    Type join_type{};
};

// How the last block becomes a value.
struct Store {
    enum Operation : uint8_t { kCopy, kNarrow, kSignFloats, kSignIntegers };
    Operation operation = kCopy;
    Type type{};
    std::vector<float> floats;         // thresholds, one for each column, whole words
    std::vector<int32_t> integers;
    std::vector<uint32_t> flipped;     // bits, or empty
};

// The image under a convolution; for everything else height is the number of rows, width 1.
struct Geometry {
    bool image = false;                  // one problem a sample, else all rows of a batch are one
    size_t rows_per_sample = 1;          // of the left side, where it is no image
    size_t height = 1, width = 1;        // of the left side, padding included
    size_t pixel_items = 0;              // items of one left row or pixel
    size_t stride_h = 1, stride_w = 1;
    size_t out_height = 1, out_width = 1;  // of the product, before pools
    size_t pool_h = 1, pool_w = 1;       // all pools of the chain together
    size_t final_height = 1, final_width = 1;
    std::vector<ptrdiff_t> offsets;      // of the runs, in items
    size_t run_length = 0;
    size_t group_items = 0;              // from one group's channels to the next
};

class Chain : public Node {
  public:
    // What the planner fills in.
    const KernelTable *kernels = nullptr;
    std::unique_ptr<MatrixHead> head;  // null: the source is loaded
    bool load_whole = false;           // load integers, not floats
    Type source_type{};
    size_t source_buffer = 0, result_buffer = 0;
    size_t source_sample_bytes = 0;
    Geometry geometry;
    size_t columns = 0;                // of the product and of the result
    double bound = 2147483648.0;       // of the magnitudes of whole numbers in the block, so far
    std::vector<Stage> stages;
    Store store;
    // Padding by copy, where there is some.
    size_t padded_buffer = 0;          // 0: none
    size_t pad_h = 0, pad_w = 0, image_height = 0, image_width = 0, image_channels = 0;
    int64_t pad_value = 0;             // in the source type
    // Sums of taps that lie in a padding of zeros which bits stand for as +1: [tap][columns].
    std::vector<int32_t> tap_sums;
    size_t kernel_h = 1, kernel_w = 1, dilation = 1;

    void finish();  // once everything above is set
    void run(Frame &frame, Call &call) const override;
    ScratchSize scratch() const override;
    double nanoseconds() const override;

  private:
    struct Job;
    struct Tile;
    void flatten();
    size_t pixel_bytes() const;
    size_t block_columns(size_t rows) const;
    size_t best_tile_height(size_t unit) const;
    void pad(const uint8_t *source, uint8_t *padded) const;
    void run_unit(const Job &job, size_t unit, size_t thread) const;
    void run_tile(const Job &job, Tile &tile, Scratch &scratch) const;
    void compute(const Job &job, const Tile &tile, Block &block, Scratch &scratch) const;
    void multiply_sparse(const Job &job, const Tile &tile, Block &block, Scratch &scratch) const;
    void multiply_sparse_image(const Job &job, const Tile &tile, Block &block,
                               Scratch &scratch) const;
    void correct_border(const Tile &tile, const Block &block) const;
    void load(const Job &job, const Tile &tile, Block &block) const;
    void apply(const Job &job, const Stage &stage, Tile &tile, Block &block,
               Scratch &scratch) const;
    void apply_rows(const Stage &stage, const Tile &tile, const Block &block) const;
    void apply_once(const Stage &stage, const Block &block, size_t constant) const;
    void pool(const Stage &stage, Tile &tile, Block &block) const;
    void join(const Job &job, const Stage &stage, const Tile &tile, const Block &block,
              Scratch &scratch) const;
    void store_rows(const Job &job, const Tile &tile, const Block &block) const;
    uint8_t *destination(const Job &job, const Tile &tile, size_t row) const;

    size_t tile_height_ = 1, tile_width_ = 1;  // in final rows and columns
    size_t most_rows_ = 1;                     // of the product in one tile
    size_t block_unit_ = 32;                   // columns of a block are a multiple of it
    bool cuts_columns_ = true;
    bool sparse_image_ = false;                // a sparse convolution: its source is planar
    bool in_place_ = false;                    // blocks lie in the result itself
    size_t result_row_bytes_ = 0;
    double nanoseconds_ = 0;
};

}  // namespace whit

#endif  // WHIT_CHAIN_H
