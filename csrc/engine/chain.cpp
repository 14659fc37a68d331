#include "chain.h"

#include <algorithm>

#include "chain_job.h"

namespace whit {

namespace {

constexpr size_t kTileRows = 96, kRowUnit = 12;
constexpr size_t kBinaryRows = 64, kBinaryUnit = 4;  // with blocks of 128 columns
constexpr size_t kBlockNumbers = 8192;  // 32 KiB
constexpr double kForkNanoseconds = 10e3;  // of a chain that is worth waking a thread that waits
constexpr size_t kSparseRows = 16;      // from here on a panel beats row by row
constexpr size_t kSparseUnit = 32;      // pixels
constexpr size_t kSparseOutputs = 256;  // of one panel, so that their sums stay in the cache

size_t divided_up(size_t a, size_t b) { return (a + b - 1) / b; }

size_t least_common_multiple(size_t a, size_t b) {
    size_t multiple = a;
    while (multiple % b) multiple += a;
    return multiple;
}

}  // namespace

// The kernels take 4, 6 or 12 rows at once; a tile that is no multiple of them wastes the rest.
size_t Chain::best_tile_height(size_t unit) const {
    const bool binary = head && head->route == Route::kBinary;
    const size_t target = binary ? kBinaryRows : kTileRows;
    const size_t row_unit = binary ? kBinaryUnit : kRowUnit;
    if (!geometry.image) return target;
    size_t best = 1;
    double least = 1e9;
    const size_t most = std::min(geometry.final_height, std::max<size_t>(1, 2 * target / unit));
    for (size_t height = 1; height <= std::max<size_t>(most, 1); ++height) {
        const size_t rows = height * unit;
        const size_t tiles = divided_up(geometry.final_height, height);
        // All tiles of an image, the last one shorter.
        const size_t last = (geometry.final_height - (tiles - 1) * height) * unit;
        const double work = static_cast<double>((tiles - 1) * rounded_up(rows, row_unit) +
                                                rounded_up(last, row_unit)) +
                            4.0 * static_cast<double>(tiles);  // and the cost of a tile itself
        if (work < least) least = work, best = height;
    }
    return best;
}

// Where every stage has one constant for all numbers, a sample is one long row: an image of one
// channel would have rows of one number.
void Chain::flatten() {
    if (head || source_type == Type::kBits || store.type == Type::kBits) return;
    for (const Stage &stage : stages) {
        const bool join = stage.operation == Stage::kJoinAdd || stage.operation == Stage::kJoinMultiply;
        if (stage.per != Per::kOne || stage.operation == Stage::kMaxPool) return;
        if (join && stage.join_type == Type::kBits) return;
    }
    const size_t rows = geometry.image ? geometry.height * geometry.width : geometry.rows_per_sample;
    columns *= rows;
    for (Stage &stage : stages) {  // constants of one value that are kept one for each column
        if (stage.exact_multipliers.empty()) continue;
        stage.exact_multipliers.assign(columns, stage.exact_multipliers.front());
        stage.exact_offsets.assign(columns, stage.exact_offsets.front());
    }
    geometry = Geometry{};
    geometry.pixel_items = columns;
}

void Chain::finish() {
    flatten();
    const size_t factor = geometry.pool_h * geometry.pool_w;
    const bool sparse = head && head->route == Route::kSparse;
    sparse_image_ = sparse && geometry.image;
    tile_width_ = sparse_image_ ? geometry.final_width
                                : std::min(geometry.final_width, std::max<size_t>(1, kTileRows / factor));
    tile_height_ = best_tile_height(factor * tile_width_);
    if (sparse_image_)
        tile_height_ = std::max<size_t>(1, kSparsePanel / (geometry.pool_h * geometry.width));
    else if (sparse)
        tile_height_ = kSparsePanel;
    most_rows_ = tile_height_ * tile_width_ * factor;
    // Blocks begin at whole words of sign bits and at whole panels.
    block_unit_ = least_common_multiple(32, head ? head->lanes : 1);
    cuts_columns_ = !head || (head->groups == 1 && head->route != Route::kDepthwise &&
                              head->route != Route::kSparse);
    result_row_bytes_ = row_bytes(store.type, columns);
    nanoseconds_ = nanoseconds();
    if (head)
        head->select_kernels(most_rows_, {geometry.offsets.size(), geometry.run_length,
                                          geometry.offsets.data()});
    // Without pads and pools, a block of numbers that are not narrowed is the result itself.
    in_place_ = store.operation == Store::kCopy && factor == 1 && cuts_columns_ &&
                (!head || columns % head->lanes == 0);
}

// Columns of one block when a tile has so many rows.
size_t Chain::block_columns(size_t rows) const {
    if (!cuts_columns_) return rounded_up(columns, block_unit_);
    return std::max<size_t>(1, kBlockNumbers / std::max<size_t>(rows, 1) / block_unit_) *
           block_unit_;
}

double Chain::nanoseconds() const {
    const double rows = static_cast<double>(
        geometry.image ? geometry.out_height * geometry.out_width : geometry.rows_per_sample);
    const double results = rows * static_cast<double>(columns);
    if (!head) return 0.5 * results;
    const bool bits = head->route == Route::kBinary;
    double items = static_cast<double>(geometry.run_length * geometry.offsets.size());
    if (bits) items *= 32;
    if (head->route == Route::kSparse)
        return static_cast<double>(head->values.size()) * rows / 4;
    const double rate = bits ? 300 : head->route == Route::kInteger ? 60 : 30;
    return results * items / rate + 0.5 * results;
}

ScratchSize Chain::scratch() const {
    ScratchSize size;
    const size_t lanes = head ? head->lanes : 8;
    const size_t most = std::max(kBlockNumbers, most_rows_ * block_columns(most_rows_));
    size.block = 4 * (most + most_rows_ * (2 * lanes + 64));
    size.rows = most_rows_ * sizeof(void *);
    const size_t joined_row = 4 * rounded_up(columns, 32);
    if (sparse_image_)
        size.extra = 4 * columns * rounded_up(tile_height_ * geometry.pool_h * geometry.width,
                                              kSparseUnit);
    else if (head && head->route == Route::kSparse)
        size.extra = 4 * kSparsePanel * (geometry.pixel_items + kSparseOutputs + 1);
    size.extra = std::max(size.extra, joined_row);
    return size;
}

size_t Chain::pixel_bytes() const {
    return geometry.pixel_items * (source_type == Type::kBits ? 4 : type_bytes(source_type));
}

void Chain::run(Frame &frame, Call &call) const {
    Job job{};
    job.chain = this, job.frame = &frame, job.call = &call;
    job.source = frame.at[source_buffer], job.result = frame.at[result_buffer];
    job.problems = geometry.image ? frame.samples : 1;
    job.height = geometry.image ? geometry.final_height
                                : frame.samples * geometry.rows_per_sample;
    if (padded_buffer) {
        const size_t bytes = geometry.height * geometry.width * pixel_bytes();
        for (size_t sample = 0; sample < frame.samples; ++sample)
            pad(job.source + sample * source_sample_bytes,
                frame.at[padded_buffer] + sample * bytes);
        job.source = frame.at[padded_buffer];
    }
    job.tiles_h = divided_up(job.height, tile_height_);
    job.tiles_w = divided_up(geometry.final_width, tile_width_);
    job.block_columns = block_columns(std::min(job.height, tile_height_) * tile_width_ *
                                      geometry.pool_h * geometry.pool_w);
    const size_t tiles = job.problems * job.tiles_h * job.tiles_w;
    ThreadPool *pool =
        nanoseconds_ * static_cast<double>(frame.samples) > kForkNanoseconds ? call.pool : nullptr;
    if (pool && cuts_columns_ && tiles < 2 * pool->threads()) {
        const size_t share = columns / (4 * pool->threads()) / block_unit_ * block_unit_;
        job.block_columns = std::min(job.block_columns, std::max(2 * block_unit_, share));
    }
    job.blocks = divided_up(columns, job.block_columns);
    const size_t units = tiles * job.blocks;
    if (pool) {
        pool->run(
            units,
            [](void *context, size_t unit, size_t thread) {
                const Job &own = *static_cast<const Job *>(context);
                own.chain->run_unit(own, unit, thread);
            },
            &job);
        return;
    }
    for (size_t unit = 0; unit < units; ++unit) run_unit(job, unit, 0);
}

void Chain::pad(const uint8_t *source, uint8_t *padded) const {
    if (sparse_image_) {
        // Planes of one number a pixel.
        const size_t plane = geometry.height * geometry.width;
        const float border = static_cast<float>(pad_value);
        for (size_t channel = 0; channel < geometry.pixel_items; ++channel) {
            float *to = reinterpret_cast<float *>(padded) + channel * plane;
            const float *from =
                reinterpret_cast<const float *>(source) + channel * image_height * image_width;
            std::fill(to, to + plane, border);
            for (size_t y = 0; y < image_height; ++y)
                std::memcpy(to + (pad_h + y) * geometry.width + pad_w, from + y * image_width,
                            4 * image_width);
        }
        return;
    }
    const size_t items = geometry.pixel_items, width = geometry.width;
    const bool bits = source_type == Type::kBits;
    const size_t pixel = pixel_bytes();
    const size_t row = width * pixel, inner = image_width * pixel;
    // One pixel of the border, written over it.
    const auto fill = [&](uint8_t *at, size_t pixels) {
        if (pad_value == 0 || (bits && pad_value > 0)) {
            std::memset(at, 0, pixels * pixel);
            return;
        }
        for (size_t p = 0; p < pixels; ++p) {
            uint8_t *own = at + p * pixel;
            for (size_t i = 0; i < items; ++i) {
                if (bits) {
                    const size_t left = image_channels - 32 * i;
                    const uint32_t word = left >= 32 ? ~0u : (1u << left) - 1;
                    std::memcpy(own + 4 * i, &word, 4);
                } else if (source_type == Type::kFloat) {
                    const float value = static_cast<float>(pad_value);
                    std::memcpy(own + 4 * i, &value, 4);
                } else if (source_type == Type::kInt16) {
                    const int16_t value = static_cast<int16_t>(pad_value);
                    std::memcpy(own + 2 * i, &value, 2);
                } else {
                    own[i] = static_cast<uint8_t>(pad_value);
                }
            }
        }
    };
    fill(padded, pad_h * width);
    for (size_t y = 0; y < image_height; ++y) {
        uint8_t *line = padded + (pad_h + y) * row;
        fill(line, pad_w);
        std::memcpy(line + pad_w * pixel, source + y * inner, inner);
        fill(line + pad_w * pixel + inner, width - pad_w - image_width);
    }
    fill(padded + (pad_h + image_height) * row, (geometry.height - pad_h - image_height) * width);
}

void Chain::run_unit(const Job &job, size_t unit, size_t thread) const {
    Tile tile{};
    const size_t block = unit % job.blocks, rest = unit / job.blocks;
    tile.first = block * job.block_columns;
    tile.count = std::min(job.block_columns, columns - tile.first);
    tile.x = rest % job.tiles_w * tile_width_;
    tile.y = rest / job.tiles_w % job.tiles_h * tile_height_;
    tile.problem = rest / job.tiles_w / job.tiles_h;
    tile.final_height = std::min(tile_height_, job.height - tile.y);
    tile.final_width = std::min(tile_width_, geometry.final_width - tile.x);
    tile.pooled_h = geometry.pool_h, tile.pooled_w = geometry.pool_w;
    tile.height = tile.final_height * geometry.pool_h;
    tile.width = tile.final_width * geometry.pool_w;
    run_tile(job, tile, job.call->scratch[thread]);
}

void Chain::run_tile(const Job &job, Tile &tile, Scratch &scratch) const {
    Block block{};
    block.data = scratch.block.data();
    block.rows = tile.rows(), block.columns = tile.count;
    block.stride = rounded_up(tile.count, head ? std::max<size_t>(head->lanes, 1) : 8);
    if (head && head->groups > 1) block.stride += head->lanes;
    // Rows of an image tile follow one another only where the tile is as wide as the image.
    const bool in_place =
        in_place_ && (tile.final_width == geometry.final_width || tile.height == 1);
    if (in_place) block.data = destination(job, tile, 0), block.stride = columns;
    if (head) compute(job, tile, block, scratch);
    else load(job, tile, block);
    for (const Stage &stage : stages) apply(job, stage, tile, block, scratch);
    if (!in_place) store_rows(job, tile, block);
}

void Chain::compute(const Job &job, const Tile &tile, Block &block, Scratch &scratch) const {
    if (sparse_image_) return multiply_sparse_image(job, tile, block, scratch);
    if (head->route == Route::kSparse) return multiply_sparse(job, tile, block, scratch);
    const size_t item = head->left == Type::kBits ? 4 : type_bytes(head->left);
    const size_t pixel = pixel_bytes();
    const uint8_t *base = job.source + tile.problem * geometry.height * geometry.width * pixel;
    const void **rows = scratch.rows.as<const void *>();
    const size_t y = tile.y * geometry.pool_h, x = tile.x * geometry.pool_w;
    const Runs runs{geometry.offsets.size(), geometry.run_length, geometry.offsets.data()};
    const bool depthwise = head->route == Route::kDepthwise;  // all of its groups at once
    for (size_t group = 0; group < (depthwise ? 1 : head->groups); ++group) {
        size_t r = 0;
        for (size_t i = 0; i < tile.height; ++i)
            for (size_t j = 0; j < tile.width; ++j)
                rows[r++] = base +
                            ((y + i) * geometry.stride_h * geometry.width +
                             (x + j) * geometry.stride_w) * pixel +
                            group * geometry.group_items * item;
        if (depthwise) {
            kernels->depthwise.multiply(reinterpret_cast<const float *const *>(rows), r,
                                        geometry.offsets.data(), geometry.offsets.size(),
                                        head->panels.as<float>(), columns,
                                        head->bias.empty() ? nullptr : head->bias.data(),
                                        head->floor, block.floats(0), block.stride);
            continue;
        }
        const size_t own = columns / head->groups;
        if (head->groups == 1)
            head->multiply(rows, r, runs, 0, tile.first, tile.count, job.call->planes, block.data,
                           block.stride);
        else
            head->multiply(rows, r, runs, group, 0, own, job.call->planes,
                           static_cast<uint8_t *>(block.data) + 4 * group * own, block.stride);
    }
    if (!head->correction.empty())
        kernels->elementwise->add_integers(block, head->correction.data() + tile.first);
    if (!tap_sums.empty()) correct_border(tile, block);
}

void Chain::multiply_sparse(const Job &job, const Tile &tile, Block &block,
                            Scratch &scratch) const {
    const size_t items = geometry.pixel_items, m = tile.rows();
    const float *x = reinterpret_cast<const float *>(job.source) + tile.y * items;
    const float *bias = head->bias.empty() ? nullptr : head->bias.data();
    if (m < kSparseRows) {
        for (size_t r = 0; r < m; ++r)
            kernels->sparse.multiply_vector(x + r * items, head->begin.data(),
                                            head->columns.data(), head->values.data(), columns,
                                            bias, head->floor, block.floats(r));
        return;
    }
    // Columns of x are made rows, so that one weight meets kSparsePanel numbers side by side.
    float *panel = scratch.extra.as<float>(), *sums = panel + kSparsePanel * items;
    kernels->elementwise->transpose(x, m, items, items, panel, kSparsePanel, 4);
    for (size_t first = 0; first < columns; first += kSparseOutputs) {
        const size_t n = std::min(kSparseOutputs, columns - first);
        kernels->sparse.multiply(panel, m, head->begin.data() + first, head->offsets.data(),
                                 head->values.data(), n, bias ? bias + first : nullptr,
                                 head->floor, sums, kSparsePanel);
        kernels->elementwise->transpose(sums, n, m, kSparsePanel, block.floats(0) + first,
                                        block.stride, 4);
    }
}

// Rows of a planar image follow one another, so that one weight meets the pixels of several rows
// side by side; what it makes of the borders between them is left out afterwards.
void Chain::multiply_sparse_image(const Job &job, const Tile &tile, Block &block,
                                  Scratch &scratch) const {
    const size_t plane = geometry.height * geometry.width;
    const float *x = reinterpret_cast<const float *>(job.source) +
                     tile.problem * plane * geometry.pixel_items +
                     tile.y * geometry.pool_h * geometry.width;
    // Whole vectors: what lies behind the last pixel is left out with the borders.
    const size_t width = rounded_up((tile.height - 1) * geometry.width + tile.width, kSparseUnit);
    const size_t stride = width;
    float *sums = scratch.extra.as<float>();
    kernels->sparse.multiply(x, width, head->begin.data(), head->offsets.data(),
                             head->values.data(), columns,
                             head->bias.empty() ? nullptr : head->bias.data(), head->floor, sums,
                             stride);
    for (size_t i = 0; i < tile.height; ++i)
        kernels->elementwise->transpose(sums + i * geometry.width, columns, tile.width, stride,
                                        block.floats(i * tile.width), block.stride, 4);
}

void Chain::correct_border(const Tile &tile, const Block &block) const {
    const size_t y0 = tile.y * geometry.pool_h, x0 = tile.x * geometry.pool_w;
    for (size_t i = 0; i < tile.height; ++i)
        for (size_t j = 0; j < tile.width; ++j) {
            const size_t top = (y0 + i) * geometry.stride_h, left = (x0 + j) * geometry.stride_w;
            for (size_t kh = 0; kh < kernel_h; ++kh)
                for (size_t kw = 0; kw < kernel_w; ++kw) {
                    const size_t y = top + kh * dilation, x = left + kw * dilation;
                    if (y >= pad_h && y < pad_h + image_height && x >= pad_w &&
                        x < pad_w + image_width)
                        continue;
                    int32_t *sums = block.integers(i * tile.width + j);
                    const int32_t *taps =
                        tap_sums.data() + (kh * kernel_w + kw) * columns + tile.first;
                    for (size_t c = 0; c < tile.count; ++c) sums[c] -= taps[c];
                }
        }
}

void Chain::load(const Job &job, const Tile &tile, Block &block) const {
    const size_t bytes = row_bytes(source_type, columns);
    const uint8_t *base = job.source + tile.problem * geometry.height * geometry.width * bytes +
                          (source_type == Type::kBits ? tile.first / 8
                                                      : tile.first * type_bytes(source_type));
    const auto read = load_whole ? kernels->elementwise->load_integers
                                 : kernels->elementwise->load_floats;
    for (size_t i = 0; i < tile.height; ++i) {
        Block line = block;
        line.data = block.floats(i * tile.width);
        line.rows = tile.width;
        const size_t at = (tile.y * geometry.pool_h + i) * geometry.width + tile.x * geometry.pool_w;
        if (geometry.width == tile.width) {  // the rows of the tile follow one another
            line.rows = tile.rows();
            read(base + at * bytes, bytes, static_cast<size_t>(source_type), line);
            return;
        }
        read(base + at * bytes, bytes, static_cast<size_t>(source_type), line);
    }
}

}  // namespace whit
