// Steps that run by themselves.
#include "planner.h"

namespace whit {

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
