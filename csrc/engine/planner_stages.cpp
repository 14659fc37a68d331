// The stages of chains: what follows a matrix number by number, and how its result is stored.
#include <cmath>
#include <limits>

#include "planner.h"

namespace whit {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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

double largest_magnitude(int64_t least, int64_t most) {
    return static_cast<double>(std::max(std::abs(least), std::abs(most)));
}

// How large the numbers of a requantisation get decides in which arithmetic it is exact.
void bound_requantisation(const Step &own, const Chain &chain, Stage &stage) {
    long double most = 0, far = 0;
    for (int32_t multiplier : own.multipliers)
        most = std::max(most, static_cast<long double>(multiplier));
    for (int64_t offset : own.offsets)
        far = std::max(far, std::abs(static_cast<long double>(offset)));
    const long double divisor = std::pow(2.0L, static_cast<long double>(own.exponent));
    const long double bound = most * static_cast<long double>(chain.bound) + far + divisor;
    stage.narrow = bound < std::pow(2.0L, 62) && bound / divisor < 2147483000.0L;
    const bool columns = stage.per == Per::kOne || stage.per == Per::kColumn;
    if (!stage.narrow || bound >= std::pow(2.0L, 53) || !columns) return;
    for (size_t column = 0; column < chain.columns; ++column) {
        const size_t m = own.multipliers.size() > 1 ? column : 0;
        const size_t o = own.offsets.size() > 1 ? column : 0;
        const double offset = own.offsets.empty() ? 0 : static_cast<double>(own.offsets[o]);
        stage.exact_multipliers.push_back(static_cast<double>(own.multipliers[m]) /
                                          static_cast<double>(divisor));
        stage.exact_offsets.push_back(offset / static_cast<double>(divisor));
    }
}

}  // namespace

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
    const int64_t last = stage.least + stage.step * static_cast<int64_t>(stage.levels);
    chain.bound = largest_magnitude(stage.least, last);
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
            chain.bound = largest_magnitude(own.least, own.most);
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
            bound_requantisation(own, chain, stage);
            stages.push_back(stage);
            chain.bound = largest_magnitude(own.least, own.most);
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

// The type in which the only reader of a value wants it, where that is a matrix; else its own.
Type Planner::wanted_type(size_t value) {
    const Type natural = natural_type(domain(value));
    size_t read = value;
    for (;;) {
        if (uses_[read] != 1 || reader_[read] == SIZE_MAX) return natural;
        const Step &reader = step(reader_[read]);
        if (reader.kind == Kind::kFlatten) {
            read = reader_[read] + 1;
            continue;
        }
        if (reader.kind != Kind::kLinear && reader.kind != Kind::kConv2d) return natural;
        const size_t channels = shape(read).axes[0], taps = reader.size_h * reader.size_w;
        const size_t groups =
            reader.kind == Kind::kConv2d ? channels * taps / reader.weight.columns : 1;
        const Route route = choose_route(reader.weight, !reader.bias.empty(), domain(value), groups,
                                         groups == channels && groups > 1);
        const Type left = left_type(route, reader.weight, domain(value), kernels_);
        return left == Type::kFloat || left == Type::kBits ? natural : left;
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
    // A matrix that reads the value in another type gets it so, without a conversion between.
    store.type = wanted_type(growth.last + 1);
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

}  // namespace whit
