// The heads of chains: matrices packed for their kernels, and values that are loaded.
#include "planner.h"

namespace whit {

namespace {

// At most so many weights are not zero: below, the kernels of sparse matrices are faster. Pixels
// lie side by side, while one sample of a vector leaves them a single number for each weight.
constexpr float kSparseVector = 0.10f, kSparseImage = 0.30f;

float density(const Weight &weight) {
    return static_cast<float>(weight.nonzero) / static_cast<float>(weight.rows * weight.columns);
}

}  // namespace

void Planner::materialise(const Growth &growth) {
    auto owned = std::make_unique<Chain>();
    Chain &chain = *owned;
    chain.kernels = &kernels_;
    const Step &first = step(growth.head);
    bool whole = false;
    if (first.kind == Kind::kLinear) add_linear(chain, first);
    else if (first.kind == Kind::kConv2d) add_conv2d(chain, first);
    else add_load(chain, growth);
    if (chain.head) finish_head(chain, first, whole);
    else whole = chain.load_whole = domain(first.source) != Domain::kFloat;
    if (!chain.head && whole)
        chain.bound = static_cast<double>(
            std::max(-lowest(domain(first.source)), highest(domain(first.source))));
    chain.geometry.final_height = chain.geometry.out_height;
    chain.geometry.final_width = chain.geometry.out_width;
    std::vector<size_t> joined;
    for (size_t index : growth.steps) {
        add_stages(chain, growth, step(index), whole);
        const Stage::Operation last = chain.stages.empty() ? Stage::kWiden
                                                           : chain.stages.back().operation;
        if (last == Stage::kJoinAdd || last == Stage::kJoinMultiply)
            joined.push_back(chain.stages.back().join_buffer);
    }
    finish_store(chain, growth, whole);
    const Form form{chain.store.type, growth.order};
    chain.result_buffer = new_buffer(sample_bytes(shape(growth.last + 1), form));
    chain.finish();
    const size_t source = chain.source_buffer, padded = chain.padded_buffer,
                 result = chain.result_buffer;
    add(std::move(owned), {source}, result);
    for (size_t buffer : joined) {
        ++reads_[buffer];
        plan_.buffers_[buffer].last = plan_.nodes_.size() - 1;
    }
    if (padded) {
        plan_.buffers_[padded].first = plan_.buffers_[padded].last = plan_.nodes_.size() - 1;
    }
    hold(growth.last + 1, form, result);
}

void Planner::add_linear(Chain &chain, const Step &own) {
    const Weight &weight = own.weight;
    const Shape &in = shape(own.source);
    Route route = choose_route(weight, !own.bias.empty(), domain(own.source), 1, false);
    if (route == Route::kFloats && density(weight) <= kSparseVector && weight.columns < 65536)
        route = Route::kSparse;
    const Type left = left_type(route, weight, domain(own.source), kernels_);
    const bool bits = left == Type::kBits;

    // The flattening of an image is read as the image lies: the columns of the weight move.
    ColumnOrder order;
    const auto found = alias_.find(own.source);
    const bool image_lies = in.rank == 1 && found != alias_.end() && held_[own.source].empty() &&
                       shape(found->second).rank == 3 &&
                       primary(found->second).order == Order::kChannelsLast;
    // Bits of few channels lie in whole words of their pixel: mostly pads. Then they are packed anew.
    const size_t depth = image_lies ? shape(found->second).axes[0] : 0;
    const bool image = image_lies && !(bits && 4 * rounded_up(depth, 32) > 5 * depth);
    const size_t pixels = image ? shape(found->second).axes[1] * shape(found->second).axes[2] : 1;
    const size_t channels = image ? shape(found->second).axes[0] : weight.columns;
    const size_t items = bits ? rounded_up(channels, 32) : channels;
    for (size_t pixel = 0; pixel < pixels; ++pixel)
        for (size_t channel = 0; channel < items; ++channel)
            order.column.push_back(channel < channels ? channel * pixels + pixel : SIZE_MAX);
    order.length = order.column.size();
    if (route == Route::kTwoFour && order.length % 4) {
        // Groups of four run along the columns; their last one is filled up.
        route = Route::kFloats;
    }

    chain.head = std::make_unique<MatrixHead>(pack_matrix(weight, own.bias, domain(own.source), 1,
                                                          route, order, kernels_));
    chain.source_type = left;
    chain.source_buffer =
        image ? require(found->second, {left, Order::kChannelsLast})
              : require(own.source, {left, Order::kPlanar});
    chain.columns = weight.rows;
    Geometry &geometry = chain.geometry;
    geometry.rows_per_sample = in.elements() / in.last();
    geometry.pixel_items = bits ? order.length / 32 : order.length;
    geometry.run_length = geometry.pixel_items;
    geometry.offsets = {0};
}

void Planner::add_conv2d(Chain &chain, const Step &own) {
    const Weight &weight = own.weight;
    const Shape &in = shape(own.source);
    const size_t taps = own.size_h * own.size_w, channels = in.axes[0];
    const size_t per_group = weight.columns / taps, groups = channels / per_group;
    const bool depthwise = per_group == 1 && weight.rows == channels && channels > 1;
    Route route = choose_route(weight, !own.bias.empty(), domain(own.source), groups, depthwise);
    const bool sparse = route == Route::kFloats && groups == 1 && own.stride_h == 1 &&
                        own.stride_w == 1 && density(weight) <= kSparseImage &&
                        in.axes[2] <= 256 && channels * in.axes[1] * in.axes[2] < size_t{1} << 28;
    if (sparse) route = Route::kSparse;
    const Type left = left_type(route, weight, domain(own.source), kernels_);
    const bool bits = left == Type::kBits;
    const size_t padded_items = bits ? rounded_up(per_group, 32) : per_group;

    // A row of taps is one run where its pixels and their channels follow one another.
    const bool together = groups == 1 && (own.dilation == 1 || own.size_w == 1);
    ColumnOrder order;
    for (size_t tap = 0; tap < taps; ++tap)
        for (size_t channel = 0; channel < padded_items; ++channel)
            order.column.push_back(channel < per_group ? channel * taps + tap : SIZE_MAX);
    order.runs = together ? own.size_h : taps;
    order.length = order.column.size() / order.runs;
    const bool uneven = route == Route::kTwoFour && order.length % 4;
    chain.head = std::make_unique<MatrixHead>(
        pack_matrix(weight, own.bias, domain(own.source), groups, uneven ? Route::kFloats : route,
                    order, kernels_));

    Geometry &geometry = chain.geometry;
    geometry.image = true;
    geometry.height = in.axes[1] + 2 * own.pad_h, geometry.width = in.axes[2] + 2 * own.pad_w;
    geometry.pixel_items = bits ? (channels + 31) / 32 : channels;
    geometry.stride_h = own.stride_h, geometry.stride_w = own.stride_w;
    geometry.out_height = own.shape.axes[1], geometry.out_width = own.shape.axes[2];
    geometry.group_items = per_group;
    geometry.run_length = bits ? order.length / 32 : order.length;
    for (size_t run = 0; run < order.runs; ++run) {
        const size_t row = together ? run : run / own.size_w;
        const size_t column = together ? 0 : run % own.size_w;
        geometry.offsets.push_back(static_cast<ptrdiff_t>(
            (row * geometry.width + column) * own.dilation * geometry.pixel_items));
    }
    chain.columns = weight.rows;
    chain.source_type = left;
    const Form form{left, sparse ? Order::kPlanar : Order::kChannelsLast};
    chain.source_buffer = require(own.source, form);
    chain.source_sample_bytes = sample_bytes(in, form);
    if (sparse) {
        // Where the number of a channel and tap lies in a planar image, seen from a pixel.
        const size_t plane = geometry.height * geometry.width;
        for (uint32_t &offset : chain.head->offsets) {
            const size_t item = offset / kSparsePanel, tap = item / channels;
            offset = static_cast<uint32_t>(
                item % channels * plane +
                (tap / own.size_w * geometry.width + tap % own.size_w) * own.dilation);
        }
    }
    chain.image_height = in.axes[1], chain.image_width = in.axes[2];
    chain.image_channels = channels;
    chain.pad_h = own.pad_h, chain.pad_w = own.pad_w;
    chain.kernel_h = own.size_h, chain.kernel_w = own.size_w, chain.dilation = own.dilation;
    // A sparse convolution reads whole vectors of pixels, also behind the last one.
    if (sparse) plan_.buffers_[chain.source_buffer].fixed_bytes = 256;
    if (!own.pad_h && !own.pad_w) return;
    chain.pad_value = own.pad_value + (bits ? 0 : left_offset(left));
    chain.padded_buffer = new_buffer(geometry.height * geometry.width *
                                     row_bytes(left, bits ? 32 * geometry.pixel_items : channels));
    if (sparse) plan_.buffers_[chain.padded_buffer].fixed_bytes = 256;
    if (!bits || own.pad_value != 0) return;
    chain.tap_sums.assign(taps * weight.rows, 0);
    for (size_t row = 0; row < weight.rows; ++row)
        for (size_t column = 0; column < weight.columns; ++column)
            chain.tap_sums[column % taps * weight.rows + row] +=
                weight.integers[row * weight.columns + column];
}

void Planner::add_load(Chain &chain, const Growth &growth) {
    const size_t value = step(growth.head).source;
    const Shape &in = shape(value);
    const Grid grid = grid_of(in, growth.order);
    Form form = primary(value);
    if (form.order != growth.order) form = {natural_type(domain(value)), growth.order};
    chain.source_type = form.type;
    chain.source_buffer = require(value, form);
    chain.columns = grid.columns;
    Geometry &geometry = chain.geometry;
    geometry.image = growth.order == Order::kChannelsLast;
    geometry.pixel_items = form.type == Type::kBits ? (grid.columns + 31) / 32 : grid.columns;
    if (geometry.image) {
        geometry.height = geometry.out_height = in.axes[1];
        geometry.width = geometry.out_width = in.axes[2];
    } else {
        geometry.rows_per_sample = grid.rows;
    }
}

// Scales and bias of sums of integers; floats have them in the kernel.
void Planner::finish_head(Chain &chain, const Step &own, bool &whole) {
    const MatrixHead &head = *chain.head;
    whole = head.sums_are_whole;
    if (own.weight.whole() && domain(own.source) != Domain::kFloat)
        chain.bound = std::min(chain.bound, largest_sum(own.weight, domain(own.source)));
    const bool floats = head.route == Route::kFloats || head.route == Route::kTwoFour ||
                        head.route == Route::kSparse || head.route == Route::kDepthwise;
    if (floats || head.exact) return;
    if (whole) {
        Stage widen;
        widen.operation = Stage::kWiden;
        chain.stages.push_back(widen);
        whole = false;
    }
    if (!own.weight.scale.empty()) {
        Stage scale;
        scale.operation = Stage::kMultiply;
        scale.floats = own.weight.scale;
        scale.per = scale.floats.size() == 1 ? Per::kOne : Per::kColumn;
        chain.stages.push_back(scale);
    }
    if (!own.bias.empty()) {
        Stage bias;
        bias.operation = Stage::kAdd;
        bias.floats = own.bias;
        bias.per = Per::kColumn;
        chain.stages.push_back(bias);
    }
}

}  // namespace whit
