#include "planner.h"

#include <cmath>
#include <limits>

namespace whit {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// At most so many weights are not zero: below, the kernels of sparse matrices are faster. Pixels
// lie side by side, while one sample of a vector leaves them a single number for each weight.
constexpr float kSparseVector = 0.10f, kSparseImage = 0.30f;

float density(const Weight &weight) {
    return static_cast<float>(weight.nonzero) / static_cast<float>(weight.rows * weight.columns);
}

bool joins_values(Kind kind) {
    return kind == Kind::kAdd || kind == Kind::kMultiply || kind == Kind::kConcat ||
           kind == Kind::kRoute;
}

bool same_memory(const Shape &shape, Type type) {
    // With one channel, or one pixel, both orders are the same bytes.
    return type != Type::kBits && shape.rank == 3 &&
           (shape.axes[0] == 1 || shape.axes[1] * shape.axes[2] == 1);
}

// Division by a power of two is multiplication by its inverse, bit for bit, and several times slower.
void multiply_instead(Stage &divide) {
    for (float divisor : divide.floats) {
        int exponent;
        const bool power = std::abs(std::frexp(divisor, &exponent)) == 0.5f;
        if (!power || exponent < -100 || exponent > 100) return;
    }
    divide.operation = Stage::kMultiply;
    for (float &divisor : divide.floats) divisor = 1.0f / divisor;
}

bool apart(const Step &step) {  // windows that neither overlap nor leave the image
    return step.size_h == step.stride_h && step.size_w == step.stride_w && step.pad_h == 0 &&
           step.pad_w == 0 && step.size_h * step.size_w <= 64;
}

}  // namespace

Planner::Planner(const Network &network, size_t own, Type own_type, size_t samples,
                 const KernelTable &kernels, Plan &plan)
    : network_(network), own_(own), samples_(samples), kernels_(kernels), plan_(plan) {
    const size_t bytes = sample_bytes(shape(own), {own_type, Order::kPlanar});
    plan_.buffers_.push_back({bytes, 0, 0, 0, 0});
    reads_.push_back(0);
    hold(own, {own_type, Order::kPlanar}, 0);
}

const Shape &Planner::shape(size_t value) const {
    return value ? network_.steps[value - 1].shape : network_.input;
}
Domain Planner::domain(size_t value) const {
    return value ? network_.steps[value - 1].domain : network_.input_domain;
}

// ---- buffers and forms ---------------------------------------------------------------------

size_t Planner::new_buffer(size_t sample_bytes) {
    plan_.buffers_.push_back({sample_bytes, 0, SIZE_MAX, 0, 0});
    reads_.push_back(0);
    return plan_.buffers_.size() - 1;
}

void Planner::add(std::unique_ptr<Node> node, std::initializer_list<size_t> reads, size_t write) {
    const size_t index = plan_.nodes_.size();
    const auto touch = [&](size_t buffer) {
        Buffer &own = plan_.buffers_[buffer];
        own.first = std::min(own.first, index);
        own.last = std::max(own.last, index);
    };
    for (size_t buffer : reads) touch(buffer), ++reads_[buffer];
    touch(write);
    plan_.nodes_.push_back(std::move(node));
}

// A value that is another one's numbers in a new shape: planar, and not as bits, whose rows differ.
void Planner::adopt_alias(size_t value) {
    const auto found = alias_.find(value);
    if (!held_[value].empty() || found == alias_.end()) return;
    const Type natural = natural_type(domain(value));
    const Type type = natural == Type::kBits ? Type::kSigns : natural;
    hold(value, {type, Order::kPlanar}, require(found->second, {type, Order::kPlanar}));
}

Form Planner::primary(size_t value) {
    adopt_alias(value);
    return held_[value].front().form;
}

size_t Planner::require(size_t value, Form form) {
    adopt_alias(value);
    for (const Held &held : held_[value])
        if (held.form == form) return held.buffer;
    for (const Held &held : held_[value])
        if (held.form.type == form.type && same_memory(shape(value), form.type)) {
            hold(value, form, held.buffer);
            return held_[value].back().buffer;
        }
    for (const Held &held : held_[value])
        if (held.form.order == form.order) return convert(value, Held(held), form);
    const Held first = held_[value].front();
    const Type type = first.form.type == Type::kBits ? Type::kSigns : first.form.type;
    require(value, {type, first.form.order});
    for (const Held &held : held_[value])
        if (held.form == Form{type, first.form.order}) {
            convert(value, Held(held), {type, form.order});
            break;
        }
    return require(value, form);
}

// Either the type or the order changes.
size_t Planner::convert(size_t value, const Held &from, Form to) {
    const Shape &own = shape(value);
    const size_t buffer = new_buffer(sample_bytes(own, to));
    if (from.form.order == to.order) {
        add(std::make_unique<ConvertType>(kernels_, grid_of(own, to.order), from.form.type, to.type,
                                          from.buffer, buffer),
            {from.buffer}, buffer);
    } else {
        const Grid grid = grid_of(own, Order::kChannelsLast);
        const bool last = to.order == Order::kChannelsLast;
        add(std::make_unique<ConvertOrder>(kernels_, last ? grid.columns : grid.rows,
                                           last ? grid.rows : grid.columns, type_bytes(to.type),
                                           from.buffer, buffer),
            {from.buffer}, buffer);
    }
    hold(value, to, buffer);
    return buffer;
}

// ---- which steps run together --------------------------------------------------------------

void Planner::count_uses(size_t first, size_t last) {
    for (size_t index = first; index < last; ++index) {
        const Step &own = step(index);
        ++uses_[own.source], reader_[own.source] = index;
        if (own.kind == Kind::kMember) {
            index += own.body;
            continue;
        }
        if (joins_values(own.kind)) ++uses_[own.other], reader_[own.other] = index;
    }
    ++uses_[last];  // the result of the scope is the result of its last step
    reader_[last] = SIZE_MAX;
}

bool Planner::starts_chain(size_t index) {
    const Step &own = step(index);
    switch (own.kind) {
        case Kind::kLinear:
        case Kind::kConv2d:
        case Kind::kAffine:
        case Kind::kNormalize:
        case Kind::kRelu:
        case Kind::kSign:
        case Kind::kThreshold:
        case Kind::kLeakyRelu:
        case Kind::kClamp:
        case Kind::kCurve:
        case Kind::kQuantize:
        case Kind::kRequantize:
        case Kind::kLevels:
        case Kind::kLookup: return true;
        case Kind::kMaxPool: return apart(own);
        case Kind::kAdd:
        case Kind::kMultiply: return shape(own.source) == shape(own.other);
        default: return false;
    }
}

void Planner::grow(size_t index) {
    Growth growth{};
    growth.head = growth.last = index;
    claimed_.insert(index);
    const Step &own = step(index);
    if (own.kind == Kind::kConv2d) {
        growth.order = Order::kChannelsLast;
        growth.pools_allowed = true;
    } else if (own.kind != Kind::kLinear) {
        const bool image = shape(own.source).rank == 3;
        growth.order = image ? Order::kChannelsLast : Order::kPlanar;
        growth.pools_allowed = image;
        joins(growth, index);
        growth.steps.push_back(index);
    }
    for (;;) {
        const size_t value = growth.last + 1;
        if (uses_[value] != 1 || reader_[value] == SIZE_MAX) break;
        const size_t next = reader_[value];
        // A step with two values can follow only one of them.
        if (claimed_.count(next) || step(next).kind == Kind::kLinear ||
            step(next).kind == Kind::kConv2d || !starts_chain(next) || !joins(growth, next))
            break;
        growth.steps.push_back(next);
        claimed_.insert(next);
        growth.last = next;
    }
    pending_[growth.last] = growth;
}

// Whether a step can follow in a chain, and what the chain is then.
bool Planner::joins(Growth &growth, size_t index) {
    const Step &own = step(index);
    if (own.kind == Kind::kMaxPool) return growth.pools_allowed && apart(own);
    const bool each = own.scale.granularity == kFeature || own.shift.granularity == kFeature;
    // A constant for each pixel, or another image, is found by its place in the last image.
    if (each || own.kind == Kind::kAdd || own.kind == Kind::kMultiply) growth.pools_allowed = false;
    return true;
}

void Planner::plan(size_t first, size_t last) {
    if (first == last) {
        plan_.result_ = require(own_, {Type::kFloat, Order::kPlanar});
        plan_.result_bytes_ = shape(own_).elements() * 4;
        plan_.buffers_[plan_.result_].last = plan_.nodes_.size();
        return;
    }
    count_uses(first, last);
    std::vector<size_t> members;
    for (size_t index = first; index < last; ++index) {
        if (step(index).kind == Kind::kMember) {
            members.push_back(index);
            index += step(index).body;
            continue;
        }
        if (!claimed_.count(index) && starts_chain(index)) grow(index);
        const auto found = pending_.find(index);
        if (found != pending_.end()) materialise(found->second);
        else if (!claimed_.count(index)) add_other(index, members);
    }
    plan_.result_ = require(last, {Type::kFloat, Order::kPlanar});
    plan_.result_bytes_ = shape(last).elements() * 4;
    plan_.result_outside_ = plan_.result_ != 0 && reads_[plan_.result_] == 0;
    plan_.buffers_[plan_.result_].last = plan_.nodes_.size();
}

// ---- chains --------------------------------------------------------------------------------

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
    const bool image = in.rank == 1 && found != alias_.end() && held_[own.source].empty() &&
                       shape(found->second).rank == 3 &&
                       primary(found->second).order == Order::kChannelsLast;
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

Per Planner::per(Granularity granularity, const Growth &growth, const Shape &own,
                 size_t &rows_per_constant) const {
    const Grid grid = grid_of(own, growth.order);
    if (granularity == kScalar) return Per::kOne;
    if (own.rank == 1) return Per::kColumn;
    if (granularity == kFeature) return Per::kEach;
    if (growth.order == Order::kChannelsLast) return Per::kColumn;
    rows_per_constant = grid.rows / own.axes[0];
    return Per::kRow;
}

Stage Planner::constants(Stage::Operation operation, const Growth &growth, const Step &own,
                         const Constants &given) const {
    Stage stage;
    stage.operation = operation;
    stage.floats = given.values;
    stage.per = per(given.granularity, growth, own.shape, stage.rows_per_constant);
    if (stage.per == Per::kEach && growth.order == Order::kChannelsLast) {
        const size_t channels = own.shape.axes[0], pixels = stage.floats.size() / channels;
        for (size_t pixel = 0; pixel < pixels; ++pixel)
            for (size_t channel = 0; channel < channels; ++channel)
                stage.floats[pixel * channels + channel] = given.values[channel * pixels + pixel];
    }
    return stage;
}

void Planner::add_threshold(Chain &chain, const Growth &growth, const Step &own, bool &whole) {
    Stage stage;
    const bool sign = own.kind != Kind::kLevels;
    stage.levels = sign ? 1 : own.levels;
    stage.least = sign ? -1 : own.least;
    stage.step = sign ? 2 : static_cast<int64_t>(own.step);
    stage.flipped = own.flipped;
    stage.floats = own.float_thresholds;
    stage.integers = own.whole_thresholds;
    if (own.kind == Kind::kSign) {
        if (whole) stage.integers = {0};
        else stage.floats = {0.0f};
    }
    if (stage.integers.empty() && whole) {
        Stage widen;
        widen.operation = Stage::kWiden;
        chain.stages.push_back(widen);
    }
    stage.operation = stage.integers.empty() ? Stage::kLevelsFloats : Stage::kLevelsIntegers;
    const size_t count = std::max(stage.floats.size(), stage.integers.size()) / stage.levels;
    stage.per = per(count == 1 ? kScalar : kChannel, growth, own.shape, stage.rows_per_constant);
    chain.stages.push_back(stage);
    whole = true;
}

void Planner::add_stages(Chain &chain, const Growth &growth, const Step &own, bool &whole) {
    std::vector<Stage> &stages = chain.stages;
    const auto widen = [&] {
        if (!whole) return;
        Stage stage;
        stage.operation = Stage::kWiden;
        stages.push_back(stage);
        whole = false;
    };
    const auto clamp = [&](float low, float high) {
        widen();
        Stage stage;
        stage.operation = Stage::kClamp;
        stage.low = low, stage.high = high;
        stages.push_back(stage);
    };
    switch (own.kind) {
        case Kind::kAffine:
            widen();
            if (!own.scale.empty())
                stages.push_back(constants(Stage::kMultiply, growth, own, own.scale));
            if (!own.shift.empty()) stages.push_back(constants(Stage::kAdd, growth, own, own.shift));
            return;
        case Kind::kNormalize:
            widen();
            if (!own.shift.empty())
                stages.push_back(constants(Stage::kSubtract, growth, own, own.shift));
            if (!own.scale.empty()) {
                stages.push_back(constants(Stage::kDivide, growth, own, own.scale));
                multiply_instead(stages.back());
            }
            return;
        case Kind::kRelu: {
            const bool kept = domain(own.source) != Domain::kFloat &&
                              domain(own.source) != Domain::kSign;
            if (kept && whole) {
                Stage stage;
                stage.operation = Stage::kReluIntegers;
                stages.push_back(stage);
                return;
            }
            const bool fused = chain.head && stages.empty() && !chain.head->sums_are_whole &&
                               chain.head->route != Route::kPlaneBytes &&
                               chain.head->route != Route::kPlaneFloats &&
                               chain.head->route != Route::kNaive;
            if (fused) chain.head->floor = 0.0f;
            else clamp(0.0f, kInfinity);
            return;
        }
        case Kind::kSign:
        case Kind::kThreshold:
        case Kind::kLevels: return add_threshold(chain, growth, own, whole);
        case Kind::kLeakyRelu:
            widen();
            stages.push_back(constants(Stage::kLeaky, growth, own, own.scale));
            return;
        case Kind::kClamp: return clamp(own.low, own.high);
        case Kind::kCurve: {
            widen();
            Stage stage;
            stage.operation = Stage::kCurve;
            stage.mode = own.mode, stage.low = own.low;
            stages.push_back(stage);
            return;
        }
        case Kind::kQuantize: {
            widen();
            Stage stage;
            stage.operation = Stage::kQuantize;
            stage.shift = own.low, stage.factor = own.factor;
            stage.least = own.least, stage.most = own.most;
            stages.push_back(stage);
            whole = true;
            return;
        }
        case Kind::kRequantize: {
            Stage stage;
            stage.operation = Stage::kRequantize;
            stage.integers = own.multipliers, stage.offsets = own.offsets;
            stage.exponent = own.exponent, stage.least = own.least, stage.most = own.most;
            const size_t many = std::max(own.multipliers.size(), own.offsets.size());
            stage.per = per(many == 1 ? kScalar : kChannel, growth, own.shape,
                            stage.rows_per_constant);
            long double bound = 0;
            for (int32_t multiplier : own.multipliers)
                bound = std::max(bound, static_cast<long double>(multiplier));
            bound *= static_cast<long double>(
                std::max(-lowest(domain(own.source)), highest(domain(own.source))));
            long double far = 0;
            for (int64_t offset : own.offsets)
                far = std::max(far, std::abs(static_cast<long double>(offset)));
            bound += far + std::pow(2.0L, static_cast<long double>(own.exponent));
            stage.narrow = bound < std::pow(2.0L, 62) &&
                           bound / std::pow(2.0L, static_cast<long double>(own.exponent)) <
                               2147483000.0L;
            stages.push_back(stage);
            return;
        }
        case Kind::kLookup: {
            Stage stage;
            stage.operation = Stage::kLookup;
            stage.floats = own.table;
            stages.push_back(stage);
            whole = false;
            return;
        }
        case Kind::kMaxPool: {
            Stage stage;
            stage.operation = Stage::kMaxPool;
            stage.whole = whole;
            stage.pool_h = own.size_h, stage.pool_w = own.size_w;
            chain.geometry.pool_h *= own.size_h, chain.geometry.pool_w *= own.size_w;
            chain.geometry.final_height = own.shape.axes[1];
            chain.geometry.final_width = own.shape.axes[2];
            stages.push_back(stage);
            return;
        }
        default: {  // add, multiply: the other of the two values is joined
            widen();
            Stage stage;
            stage.operation = own.kind == Kind::kAdd ? Stage::kJoinAdd : Stage::kJoinMultiply;
            const size_t index = static_cast<size_t>(&own - network_.steps.data());
            const bool first = growth.head == index;
            const bool left = first || own.source == growth.value_before(index);
            const size_t value = left ? own.other : own.source;
            Form form = primary(value);
            if (form.order != growth.order) form = {natural_type(domain(value)), growth.order};
            stage.join_type = form.type;
            stage.join_buffer = require(value, form);
            stages.push_back(stage);
            return;
        }
    }
}

void Planner::finish_store(Chain &chain, const Growth &growth, bool whole) {
    const Step &last = step(growth.last);
    Store &store = chain.store;
    store.type = natural_type(last.domain);
    std::vector<Stage> &stages = chain.stages;
    if (!chain.head && !stages.empty() && stages.front().operation == Stage::kWiden) {
        chain.load_whole = false;  // loaded as floats at once
        stages.erase(stages.begin());
    }
    if (store.type == Type::kFloat) {
        if (whole) {
            Stage widen;
            widen.operation = Stage::kWiden;
            stages.push_back(widen);
        }
        return;
    }
    store.operation = store.type == Type::kInt32 ? Store::kCopy : Store::kNarrow;
    if (store.type != Type::kBits || stages.empty()) return;
    const Stage sign = stages.back();
    const bool levels = sign.operation == Stage::kLevelsFloats ||
                        sign.operation == Stage::kLevelsIntegers;
    if (!levels || sign.levels != 1 || sign.per == Per::kRow || last.kind == Kind::kMaxPool) return;
    // One threshold for each column, in whole words of bits.
    const size_t columns = rounded_up(chain.columns, 32);
    const bool many = sign.per == Per::kColumn;
    const auto spread = [&](const auto &from, auto &to) {
        for (size_t i = 0; i < (from.empty() ? 0 : columns); ++i)
            to.push_back(from[many ? std::min(i, from.size() - 1) : 0]);
    };
    spread(sign.floats, store.floats);
    spread(sign.integers, store.integers);
    if (!sign.flipped.empty()) {
        store.flipped.assign(columns / 32, 0);
        for (size_t i = 0; i < chain.columns; ++i)
            if (sign.flipped[many ? i : 0]) store.flipped[i / 32] |= 1u << (i % 32);
    }
    store.operation = sign.operation == Stage::kLevelsFloats ? Store::kSignFloats
                                                             : Store::kSignIntegers;
    stages.pop_back();
}

// ---- all other steps -----------------------------------------------------------------------

void Planner::add_other(size_t index, std::vector<size_t> &members) {
    const Step &own = step(index);
    const size_t value = index + 1;
    const Form floats{Type::kFloat, Order::kPlanar};
    const auto planar = [&](size_t read) {
        const Type type = natural_type(domain(read));
        return Form{type == Type::kBits ? Type::kSigns : type, Order::kPlanar};
    };
    const auto simple = [&](auto make, size_t source, Form form) {
        const size_t result = new_buffer(sample_bytes(own.shape, form));
        add(make(source, result), {source}, result);
        hold(value, form, result);
    };
    switch (own.kind) {
        case Kind::kFlatten:
        case Kind::kReshape: alias_[value] = own.source; return;
        case Kind::kMaxPool:
        case Kind::kAvgPool: return add_pool(index);
        case Kind::kReduce: return add_reduce(index);
        case Kind::kConcat: return add_concat(index);
        case Kind::kPad2d: return add_border(index);
        case Kind::kRoute:
            add_route(index, members);
            members.clear();
            return;
        case Kind::kSoftmax:
            return simple(
                [&](size_t source, size_t result) {
                    return std::make_unique<Softmax>(kernels_, own, source, result);
                },
                require(own.source, floats), floats);
        case Kind::kLayerNorm:
        case Kind::kGroupNorm:
            return simple(
                [&](size_t source, size_t result) {
                    return std::make_unique<Norm>(own, source, result);
                },
                require(own.source, floats), floats);
        case Kind::kEmbedding: {
            const Form form = planar(own.source);
            return simple(
                [&](size_t source, size_t result) {
                    return std::make_unique<Embedding>(own, shape(own.source).elements(),
                                                       form.type, source, result);
                },
                require(own.source, form), floats);
        }
        case Kind::kTranspose: {
            const Form form = planar(own.source);
            return simple(
                [&](size_t source, size_t result) {
                    return std::make_unique<Transpose>(own, shape(own.source),
                                                       type_bytes(form.type), source, result);
                },
                require(own.source, form), form);
        }
        default: {  // add and multiply with repeated axes
            const size_t source = require(own.source, floats), other = require(own.other, floats);
            const size_t result = new_buffer(sample_bytes(own.shape, floats));
            add(std::make_unique<Broadcast>(own, shape(own.other), source, other, result),
                {source, other}, result);
            hold(value, floats, result);
            return;
        }
    }
}

void Planner::add_pool(size_t index) {
    const Step &own = step(index);
    const Type type = own.kind == Kind::kAvgPool ? Type::kFloat : natural_type(domain(own.source));
    const Form form{type, Order::kChannelsLast};
    const size_t source = require(own.source, form);
    const size_t result = new_buffer(sample_bytes(own.shape, form));
    add(std::make_unique<Pool>(kernels_, own, shape(own.source), type, source, result), {source},
        result);
    hold(index + 1, form, result);
}

void Planner::add_reduce(size_t index) {
    const Step &own = step(index);
    Type type = own.mode == 1 ? natural_type(domain(own.source)) : Type::kFloat;
    if (type == Type::kBits) type = Type::kSigns;
    const bool spatial = shape(own.source).rank == 3 && own.axes == 6 &&
                         primary(own.source).order == Order::kChannelsLast;
    const Form form{type, spatial ? Order::kChannelsLast : Order::kPlanar};
    const size_t source = require(own.source, form);
    const Form planar{type, Order::kPlanar};
    const size_t result = new_buffer(sample_bytes(own.shape, planar));
    add(std::make_unique<Reduce>(kernels_, own, shape(own.source), form, source, result), {source},
        result);
    hold(index + 1, planar, result);
}

void Planner::add_concat(size_t index) {
    const Step &own = step(index);
    const Shape &left = shape(own.source), &right = shape(own.other);
    Type type = natural_type(own.domain);
    const bool words = type == Type::kBits && left.axes[0] % 32 == 0;
    const bool last = left.rank == 3 && own.axis == 0 && (type != Type::kBits || words) &&
                      primary(own.source).order == Order::kChannelsLast;
    if (type == Type::kBits && !(last && words)) type = Type::kSigns;
    const Form form{type, last ? Order::kChannelsLast : Order::kPlanar};
    size_t turns = 1, first_items = 1, second_items = 1;
    if (last) {
        turns = left.axes[1] * left.axes[2];
        first_items = left.axes[0], second_items = right.axes[0];
    } else {
        for (size_t axis = 0; axis < left.rank; ++axis) {
            if (axis < own.axis) turns *= left.axes[axis];
            else first_items *= left.axes[axis], second_items *= right.axes[axis];
        }
    }
    const size_t first = require(own.source, form), second = require(own.other, form);
    const size_t result = new_buffer(sample_bytes(own.shape, form));
    add(std::make_unique<Concat>(turns, row_bytes(type, first_items), row_bytes(type, second_items),
                                 first, second, result),
        {first, second}, result);
    hold(index + 1, form, result);
}

void Planner::add_border(size_t index) {
    const Step &own = step(index);
    const Shape &in = shape(own.source);
    Type type = natural_type(own.domain);
    const bool last = primary(own.source).order == Order::kChannelsLast;
    if (type == Type::kBits && !last) type = Type::kSigns;
    const Form form{type, last ? Order::kChannelsLast : Order::kPlanar};
    const size_t items = last ? in.axes[0] : 1;
    std::vector<uint8_t> pixel(row_bytes(type, items), 0);
    for (size_t i = 0; i < items; ++i) {
        const int32_t whole = own.domain == Domain::kFloat ? 0 : static_cast<int32_t>(own.low);
        const int16_t half = static_cast<int16_t>(whole);
        if (type == Type::kFloat) std::memcpy(&pixel[4 * i], &own.low, 4);
        else if (type == Type::kInt32) std::memcpy(&pixel[4 * i], &whole, 4);
        else if (type == Type::kInt16) std::memcpy(&pixel[2 * i], &half, 2);
        else if (type != Type::kBits) pixel[i] = static_cast<uint8_t>(whole);
        else if (own.low < 0) pixel[i / 8] = static_cast<uint8_t>(pixel[i / 8] | 1u << (i % 8));
    }
    const size_t source = require(own.source, form);
    const size_t result = new_buffer(sample_bytes(own.shape, form));
    add(std::make_unique<Border>(last ? 1 : in.axes[0], Grid{in.axes[1], in.axes[2]},
                                 Grid{own.shape.axes[1], own.shape.axes[2]}, own.pad_h, own.pad_w,
                                 std::move(pixel), source, result),
        {source}, result);
    hold(index + 1, form, result);
}

void Planner::add_route(size_t index, const std::vector<size_t> &members) {
    const Step &own = step(index);
    Type type = natural_type(domain(own.other));
    if (type == Type::kBits) type = Type::kSigns;
    const Form form{type, Order::kPlanar}, floats{Type::kFloat, Order::kPlanar};
    const size_t bytes = sample_bytes(shape(own.other), form);
    std::vector<std::unique_ptr<Plan>> bodies;
    const size_t first_body = plan_.bodies_.size();
    for (size_t member : members) {
        bodies.push_back(std::make_unique<Plan>(network_, member + 1, member + 1 + step(member).body,
                                                member + 1, type, samples_, kernels_));
        plan_.bodies_.push_back(bodies.back().get());
    }
    const size_t scores = require(own.source, floats), input = require(own.other, form);
    const size_t gathered = new_buffer(bytes), answers = new_buffer(own.shape.elements() * 4);
    const size_t situations = new_buffer(4), result = new_buffer(own.shape.elements() * 4);
    add(std::make_unique<RouteNode>(kernels_, own, std::move(bodies), first_body, bytes, scores,
                                    input, gathered, answers, situations, result),
        {scores, input, gathered, answers, situations}, result);
    hold(index + 1, floats, result);
}

}  // namespace whit
