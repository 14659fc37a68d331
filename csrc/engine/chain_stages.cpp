// The stages of a tile, and where its last result goes.
#include "chain_job.h"

namespace whit {

void Chain::apply(const Job &job, const Stage &stage, Tile &tile, Block &block,
                  Scratch &scratch) const {
    if (stage.operation == Stage::kMaxPool) return pool(stage, tile, block);
    if (stage.operation == Stage::kJoinAdd || stage.operation == Stage::kJoinMultiply)
        return join(job, stage, tile, block, scratch);
    if (stage.per == Per::kRow || stage.per == Per::kEach)
        return apply_rows(stage, tile, block);
    apply_once(stage, block, stage.per == Per::kColumn ? tile.first : 0);
}

void Chain::apply_rows(const Stage &stage, const Tile &tile, const Block &block) const {
    const size_t per_sample = geometry.image ? 0 : geometry.rows_per_sample;
    for (size_t r = 0; r < block.rows; ++r) {
        size_t row = tile.y + r / tile.width;
        if (geometry.image) row = row * geometry.final_width + tile.x + r % tile.width;
        else row %= per_sample;
        Block line = block;
        line.data = block.floats(r), line.rows = 1;
        apply_once(stage, line,
                   stage.per == Per::kEach ? row * columns + tile.first
                                           : row / stage.rows_per_constant);
    }
}

// constant: where the constants of the block begin, or of the one row that it holds.
void Chain::apply_once(const Stage &stage, const Block &block, size_t constant) const {
    const ElementwiseKernels &run = *kernels->elementwise;
    const bool per_column = stage.per == Per::kColumn || stage.per == Per::kEach;
    const Spread spread{stage.floats.data() + (stage.floats.empty() ? 0 : constant), per_column};
    const size_t levels = constant * stage.levels;
    const uint8_t *flipped = stage.flipped.empty() ? nullptr : stage.flipped.data() + constant;
    switch (stage.operation) {
        case Stage::kWiden: return run.widen(block);
        case Stage::kMultiply: return run.multiply(block, spread);
        case Stage::kDivide: return run.divide(block, spread);
        case Stage::kAdd: return run.add(block, spread);
        case Stage::kSubtract: return run.subtract(block, spread);
        case Stage::kLeaky: return run.leaky(block, spread);
        case Stage::kClamp: return run.clamp(block, stage.low, stage.high);
        case Stage::kCurve: return run.curve(block, stage.mode, stage.low);
        case Stage::kQuantize:
            return run.quantize(block, stage.shift, stage.factor, static_cast<float>(stage.least),
                                static_cast<float>(stage.most));
        case Stage::kReluIntegers: return run.relu_integers(block);
        case Stage::kLookup: return run.lookup(block, stage.floats.data(), stage.floats.size());
        case Stage::kLevelsFloats:
            return run.levels_floats(block, stage.floats.data() + levels, flipped, stage.levels,
                                     per_column, static_cast<int32_t>(stage.least),
                                     static_cast<int32_t>(stage.step));
        case Stage::kLevelsIntegers:
            return run.levels_integers(block, stage.integers.data() + levels, flipped,
                                       stage.levels, per_column,
                                       static_cast<int32_t>(stage.least),
                                       static_cast<int32_t>(stage.step));
        case Stage::kRequantize: {
            const bool many = stage.integers.size() > 1, far = stage.offsets.size() > 1;
            const bool exact = !stage.exact_multipliers.empty();
            const Requantizing how{stage.integers.data() + (many ? constant : 0),
                                   stage.offsets.empty() ? nullptr
                                                         : stage.offsets.data() + (far ? constant : 0),
                                   many && per_column, far && per_column, stage.exponent,
                                   stage.least, stage.most, stage.narrow,
                                   exact ? stage.exact_multipliers.data() + constant : nullptr,
                                   exact ? stage.exact_offsets.data() + constant : nullptr};
            return run.requantize(block, how);
        }
        default: return;
    }
}

// Windows of a tile to one row each.
void Chain::pool(const Stage &stage, Tile &tile, Block &block) const {
    const size_t height = tile.height / stage.pool_h, width = tile.width / stage.pool_w;
    const auto work = stage.whole ? kernels->elementwise->pool_integers
                                  : kernels->elementwise->pool_floats;
    work(block, tile.width, stage.pool_h, stage.pool_w);
    tile.height = height, tile.width = width;
    tile.pooled_h /= stage.pool_h, tile.pooled_w /= stage.pool_w;
    block.rows = height * width;
}

void Chain::join(const Job &job, const Stage &stage, const Tile &tile, const Block &block,
                 Scratch &scratch) const {
    const size_t bytes = row_bytes(stage.join_type, columns);
    const uint8_t *base = job.frame->at[stage.join_buffer] +
                          (stage.join_type == Type::kBits ? tile.first / 8
                                                          : tile.first * type_bytes(stage.join_type));
    const size_t problem = geometry.image ? geometry.final_height * geometry.final_width : 0;
    Block line = block;
    line.rows = 1, line.data = scratch.extra.data();
    for (size_t r = 0; r < block.rows; ++r) {
        const size_t row = tile.problem * problem +
                           (tile.y + r / tile.width) * geometry.final_width + tile.x + r % tile.width;
        const uint8_t *from = base + row * bytes;
        if (stage.join_type != Type::kFloat) {
            kernels->elementwise->load_floats(from, 0, static_cast<size_t>(stage.join_type), line);
            from = scratch.extra.data();
        }
        const auto work = stage.operation == Stage::kJoinAdd ? kernels->elementwise->add_row
                                                             : kernels->elementwise->multiply_row;
        work(block.floats(r), reinterpret_cast<const float *>(from), block.columns);
    }
}

uint8_t *Chain::destination(const Job &job, const Tile &tile, size_t row) const {
    const size_t problem = geometry.image ? geometry.final_height * geometry.final_width : 0;
    const size_t at = tile.problem * problem +
                      (tile.y + row / tile.final_width) * geometry.final_width + tile.x +
                      row % tile.final_width;
    return job.result + at * result_row_bytes_ +
           (store.type == Type::kBits ? tile.first / 8 : tile.first * type_bytes(store.type));
}

void Chain::store_rows(const Job &job, const Tile &tile, const Block &block) const {
    const ElementwiseKernels &run = *kernels->elementwise;
    const bool together = tile.final_width == geometry.final_width;
    const size_t step = together ? block.rows : tile.final_width;
    for (size_t r = 0; r < block.rows; r += step) {
        Block lines = block;
        lines.data = block.floats(r), lines.rows = step;
        uint8_t *out = destination(job, tile, r);
        const uint32_t *flipped =
            store.flipped.empty() ? nullptr : store.flipped.data() + tile.first / 32;
        if (store.operation == Store::kSignFloats)
            run.sign_floats(lines, store.floats.data() + tile.first, flipped,
                            reinterpret_cast<uint32_t *>(out), result_row_bytes_ / 4);
        else if (store.operation == Store::kSignIntegers)
            run.sign_integers(lines, store.integers.data() + tile.first, flipped,
                              reinterpret_cast<uint32_t *>(out), result_row_bytes_ / 4);
        else
            run.store(lines, static_cast<size_t>(store.type), out, result_row_bytes_);
    }
}

}  // namespace whit
