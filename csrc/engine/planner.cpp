#include "planner.h"

namespace whit {

namespace {

bool joins_values(Kind kind) {
    return kind == Kind::kAdd || kind == Kind::kMultiply || kind == Kind::kConcat ||
           kind == Kind::kRoute;
}

bool same_memory(const Shape &shape, Type type) {
    // With one channel, or one pixel, both orders are the same bytes.
    return type != Type::kBits && shape.rank == 3 &&
           (shape.axes[0] == 1 || shape.axes[1] * shape.axes[2] == 1);
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

}  // namespace whit
