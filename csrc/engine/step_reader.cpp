#include "step_reader.h"

#include <cmath>
#include <cstring>

namespace whit {

void check_shape(const Shape &shape) {
    size_t total = 1;
    for (size_t axis = 0; axis < shape.rank; ++axis) {
        expect(shape.axes[axis] > 0 && shape.axes[axis] <= kMaxElements / total,
               "a shape of the program is empty or too large");
        total *= shape.axes[axis];
    }
}

namespace {

__extension__ typedef __int128 Wide;

size_t count_of(uint8_t granularity, const Shape &shape) {
    switch (granularity) {
        case kNone: return 0;
        case kScalar: return 1;
        case kChannel: return shape.axes[0];
        case kFeature: return shape.elements();
        default: refuse("an operand has an unknown granularity");
    }
}

Constants read_constants(const Data &data, uint32_t offset, uint8_t granularity,
                         const Shape &shape) {
    return {static_cast<Granularity>(granularity),
            data.floats(offset, count_of(granularity, shape))};
}

size_t windows(size_t length, size_t size, size_t stride, size_t pad, size_t dilation) {
    expect(size > 0 && stride > 0 && dilation > 0, "a window has a size of 0");
    const size_t reach = dilation * (size - 1) + 1;
    expect(length + 2 * pad >= reach, "a window is larger than its input");
    return (length + 2 * pad - reach) / stride + 1;
}

void read_window(const Record &record, Step &step) {
    step.size_h = record.size_h, step.size_w = record.size_w;
    step.stride_h = record.stride_h, step.stride_w = record.stride_w;
    step.pad_h = record.pad_h, step.pad_w = record.pad_w;
    step.pad_value = record.pad_value;
}

// One operator, read against the values before it.
class StepReader {
  public:
    StepReader(const Data &data, const Record &record, const Shape &source, Domain domain,
               const Shape &other, Domain other_domain)
        : data_(data), r_(record), in_(source), other_(other), domain_(domain),
          other_domain_(other_domain) {
        step_.kind = static_cast<Kind>(record.kind);
        step_.source = record.source, step_.other = record.other;
        step_.shape = source, step_.domain = Domain::kFloat;
    }

    Step read() {
        switch (step_.kind) {
            case Kind::kLinear: linear(); break;
            case Kind::kConv2d: conv2d(); break;
            case Kind::kAffine:
            case Kind::kNormalize:
                step_.scale = read_constants(data_, r_.first, r_.scale, in_);
                step_.shift = read_constants(data_, r_.second, r_.operand, in_);
                break;
            case Kind::kRelu:
                step_.domain = domain_ == Domain::kSign ? Domain::kFloat : domain_;
                break;
            case Kind::kSign: step_.domain = Domain::kSign; break;
            case Kind::kThreshold: thresholds(1); step_.domain = Domain::kSign; break;
            case Kind::kMaxPool: pool(); step_.domain = domain_; break;
            case Kind::kAvgPool: pool(); step_.inside_only = r_.pad_value == 1; break;
            case Kind::kFlatten:
                step_.shape = Shape{1, {in_.elements(), 1, 1, 1}};
                step_.domain = domain_;
                break;
            case Kind::kReshape: reshape(); break;
            case Kind::kPad2d: pad2d(); break;
            case Kind::kAdd:
            case Kind::kMultiply: broadcast(); break;
            case Kind::kConcat: concat(); break;
            case Kind::kReduce: reduce(); break;
            case Kind::kLeakyRelu:
                expect(r_.operand == kScalar || r_.operand == kChannel, "leaky_relu has no slope");
                step_.scale = read_constants(data_, r_.second, r_.operand, in_);
                break;
            case Kind::kClamp: {
                const std::vector<float> limits = data_.floats(r_.first, 2);
                step_.low = limits[0], step_.high = limits[1];
                break;
            }
            case Kind::kCurve:
                step_.mode = r_.size_h;
                expect(step_.mode <= 10, "a curve is unknown");
                if (step_.mode == 5) step_.low = data_.floats(r_.first, 1)[0];
                break;
            case Kind::kSoftmax:
                step_.axis = r_.size_h, step_.mode = r_.size_w;
                expect(step_.axis < in_.rank && step_.mode <= 1, "softmax has no such axis");
                break;
            case Kind::kLayerNorm: layer_norm(); break;
            case Kind::kGroupNorm: group_norm(); break;
            case Kind::kEmbedding: embedding(); break;
            case Kind::kTranspose: transpose(); break;
            case Kind::kQuantize: quantize(); break;
            case Kind::kRequantize: requantize(); break;
            case Kind::kLevels: levels(); break;
            case Kind::kLookup:
                expect(domain_ == Domain::kByte && r_.columns >= 1 && r_.columns <= 256,
                       "lookup reads uint8 and has 1 to 256 entries");
                step_.table = data_.floats(r_.first, r_.columns);
                break;
            case Kind::kMember: step_.body = r_.rows; step_.domain = domain_; break;
            case Kind::kRoute: read_route(data_, r_, in_, step_); break;
            default: refuse("the program holds an unknown operator");
        }
        check_shape(step_.shape);
        return std::move(step_);
    }

  private:
    void matrix(size_t taps) {
        expect(r_.scale <= kChannel, "a weight has an unknown number of scales");
        const size_t scales = r_.scale == kNone ? 0 : r_.scale == kScalar ? 1 : r_.rows;
        step_.weight =
            read_weight(data_, r_.first, r_.format, scales, r_.rows, r_.columns, taps);
        if (r_.operand != kNone && step_.kind != Kind::kEmbedding)
            step_.bias = data_.floats(r_.second, r_.rows);
    }

    // int32 for whole numbers times bare integers, else float32.
    Domain sum_domain() const {
        const Weight &weight = step_.weight;
        if (domain_ == Domain::kFloat || !weight.whole()) return Domain::kFloat;
        if (!weight.scale.empty() || !step_.bias.empty()) return Domain::kFloat;
        const int64_t largest = std::max(-lowest(domain_), highest(domain_));
        expect(static_cast<int64_t>(weight.columns) * weight.largest < (int64_t{1} << 31) / largest ||
                   static_cast<Wide>(weight.columns) * weight.largest * largest <
                       (int64_t{1} << 31),
               "a sum of whole numbers could leave int32");
        return Domain::kInteger;
    }

    void linear() {
        matrix(1);
        expect(in_.last() == step_.weight.columns, "linear does not fit its input");
        step_.shape.axes[in_.rank - 1] = step_.weight.rows;
        step_.domain = sum_domain();
    }

    void conv2d() {
        read_window(r_, step_);
        step_.dilation = r_.dilation;
        expect(in_.rank == 3, "conv2d needs [channel, height, width]");
        const size_t taps = step_.size_h * step_.size_w;
        expect(taps > 0, "conv2d has a size of 0");
        matrix(taps);
        const size_t per_group = step_.weight.columns / taps;
        expect(per_group > 0 && in_.axes[0] % per_group == 0 &&
                   step_.weight.rows % (in_.axes[0] / per_group) == 0,
               "conv2d does not fit its channels");
        const int64_t least = domain_ == Domain::kFloat ? -1 : lowest(domain_);
        const int64_t most = domain_ == Domain::kFloat ? 1 : highest(domain_);
        expect(least <= step_.pad_value && step_.pad_value <= most,
               "conv2d pads with a number outside of its domain");
        step_.shape = Shape{3,
                            {step_.weight.rows,
                             windows(in_.axes[1], step_.size_h, step_.stride_h, step_.pad_h,
                                     step_.dilation),
                             windows(in_.axes[2], step_.size_w, step_.stride_w, step_.pad_w,
                                     step_.dilation),
                             1}};
        step_.domain = sum_domain();
    }

    void thresholds(size_t levels) {
        expect(r_.operand == kScalar || r_.operand == kChannel, "thresholds are one or one a channel");
        const size_t channels = count_of(r_.operand, in_), count = channels * levels;
        step_.levels = levels;
        if (r_.format == 0) {
            step_.float_thresholds = data_.floats(r_.first, count);
        } else {
            expect(r_.format <= 3 && domain_ != Domain::kFloat,
                   "integer thresholds compare with integers only");
            step_.whole_thresholds.resize(count);
            const size_t width = r_.format == 3 ? 4 : r_.format;
            const uint8_t *bytes = data_.at(r_.first, count, width);
            for (size_t i = 0; i < count; ++i) {
                const uint8_t *at = bytes + i * width;
                step_.whole_thresholds[i] = width == 1   ? static_cast<int8_t>(*at)
                                            : width == 2 ? static_cast<int16_t>(half_word(at))
                                                         : static_cast<int32_t>(word(at));
            }
        }
        if (r_.second == kAbsent) return;
        const uint8_t *bits = data_.at(r_.second, (channels + 7) / 8, 1);
        for (size_t i = 0; i < channels; ++i) step_.flipped.push_back(bits[i / 8] >> (i % 8) & 1);
    }

    void levels() {
        expect(r_.size_h > 0 && r_.dilation > 0, "levels has no thresholds or no step");
        thresholds(r_.size_h);
        step_.least = r_.pad_value, step_.step = r_.dilation;
        step_.most = step_.least + static_cast<int64_t>(step_.step * step_.levels);
        step_.domain = domain_of_range(step_.least, step_.most);
    }

    void pool() {
        read_window(r_, step_);
        expect(in_.rank == 3 && 2 * step_.pad_h <= step_.size_h && 2 * step_.pad_w <= step_.size_w,
               "a pool needs [channel, height, width] and at most half a window of padding");
        step_.shape.axes[1] = windows(in_.axes[1], step_.size_h, step_.stride_h, step_.pad_h, 1);
        step_.shape.axes[2] = windows(in_.axes[2], step_.size_w, step_.stride_w, step_.pad_w, 1);
    }

    void reshape() {
        expect(r_.rows >= 1 && r_.rows <= 4, "reshape to an impossible number of axes");
        const std::vector<int32_t> sizes = data_.int32s(r_.first, r_.rows);
        step_.shape = Shape{};
        step_.shape.rank = r_.rows;
        for (size_t axis = 0; axis < r_.rows; ++axis)
            step_.shape.axes[axis] = static_cast<uint32_t>(sizes[axis]);
        check_shape(step_.shape);
        expect(step_.shape.elements() == in_.elements(), "reshape changes the number of elements");
        step_.domain = domain_;
    }

    void pad2d() {
        expect(in_.rank == 3, "pad2d needs [channel, height, width]");
        step_.low = data_.floats(r_.first, 1)[0];
        step_.pad_h = r_.pad_h, step_.pad_w = r_.pad_w;
        step_.shape.axes[1] += r_.pad_h + size_t{r_.size_h};
        step_.shape.axes[2] += r_.pad_w + size_t{r_.size_w};
        const float value = step_.low;
        const bool whole = std::floor(value) == value && std::abs(value) < 3e9f;
        const bool holds = domain_ != Domain::kFloat && whole &&
                           static_cast<double>(lowest(domain_)) <= value &&
                           value <= static_cast<double>(highest(domain_)) &&
                           (domain_ != Domain::kSign || value != 0);
        step_.domain = holds ? domain_ : Domain::kFloat;
    }

    void broadcast() {
        expect(other_.rank == in_.rank, "two values of different rank are joined");
        for (size_t axis = 0; axis < in_.rank; ++axis)
            expect(other_.axes[axis] == in_.axes[axis] || other_.axes[axis] == 1,
                   "two values do not fit each other");
    }

    void concat() {
        step_.axis = r_.size_h;
        expect(step_.axis < in_.rank && other_.rank == in_.rank, "concat has no such axis");
        for (size_t axis = 0; axis < in_.rank; ++axis)
            expect(axis == step_.axis || in_.axes[axis] == other_.axes[axis],
                   "concat joins values of different shapes");
        step_.shape.axes[step_.axis] += other_.axes[step_.axis];
        step_.domain = domain_ == other_domain_ ? domain_ : Domain::kFloat;
    }

    void reduce() {
        step_.mode = r_.size_h, step_.axes = r_.size_w, step_.keep = r_.stride_h == 1;
        expect(step_.mode <= 2 && step_.axes > 0 && step_.axes < size_t{1} << in_.rank,
               "reduce has an unknown mode or axis");
        Shape shape;
        shape.rank = 0;
        for (size_t axis = 0; axis < in_.rank; ++axis) {
            const bool taken = step_.axes >> axis & 1;
            if (!taken || step_.keep) shape.axes[shape.rank++] = taken ? 1 : in_.axes[axis];
        }
        expect(shape.rank > 0, "reduce leaves no axis");
        step_.shape = shape;
        if (step_.mode == 1) step_.domain = domain_;
    }

    void layer_norm() {
        step_.axes = r_.rows;
        expect(step_.axes >= 1 && step_.axes <= in_.rank, "layer_norm has no such axes");
        size_t elements = 1;
        for (size_t axis = in_.rank - step_.axes; axis < in_.rank; ++axis)
            elements *= in_.axes[axis];
        expect(elements == r_.columns, "layer_norm does not fit");
        read_norm(elements);
    }

    void group_norm() {
        step_.axes = r_.rows;
        expect(step_.axes > 0 && in_.axes[0] % step_.axes == 0, "group_norm has uneven groups");
        read_norm(in_.axes[0]);
    }

    void read_norm(size_t count) {
        const std::vector<float> first = data_.floats(r_.first, 1 + (r_.scale ? count : 0));
        step_.low = first[0];
        if (r_.scale) step_.scale.values.assign(first.begin() + 1, first.end());
        if (r_.operand) step_.shift.values = data_.floats(r_.second, count);
    }

    void embedding() {
        expect(domain_ != Domain::kFloat && domain_ != Domain::kSign && in_.rank < 4,
               "embedding reads indices of at most 3 axes");
        matrix(1);
        step_.shape.axes[step_.shape.rank++] = step_.weight.columns;
    }

    void transpose() {
        const size_t order[4] = {r_.size_h, r_.size_w, r_.stride_h, r_.stride_w};
        size_t seen = 0;
        for (size_t axis = 0; axis < in_.rank; ++axis) {
            expect(order[axis] < in_.rank, "transpose names an axis that is not there");
            seen |= size_t{1} << order[axis];
            step_.order[axis] = order[axis];
            step_.shape.axes[axis] = in_.axes[order[axis]];
        }
        expect(seen + 1 == size_t{1} << in_.rank, "transpose names an axis twice");
        step_.domain = domain_;
    }

    void limits() {
        step_.least = static_cast<int32_t>(r_.rows), step_.most = static_cast<int32_t>(r_.columns);
        step_.domain = domain_of_range(step_.least, step_.most);
    }

    void quantize() {
        const std::vector<float> constants = data_.floats(r_.first, 2);
        step_.low = constants[0], step_.factor = constants[1];
        limits();
    }

    void requantize() {
        limits();
        step_.exponent = r_.dilation;
        expect(domain_ != Domain::kFloat && step_.exponent >= 1 && step_.exponent <= 62,
               "requantize reads whole numbers and shifts by 1 to 62");
        expect((r_.scale == kScalar || r_.scale == kChannel) && r_.operand <= kChannel,
               "requantize has an unknown granularity");
        step_.multipliers = data_.int32s(r_.first, count_of(r_.scale, in_));
        const size_t offsets = count_of(r_.operand, in_);
        step_.offsets.resize(offsets);
        if (offsets)
            std::memcpy(step_.offsets.data(), data_.at(r_.second, offsets, 8), 8 * offsets);
        const int64_t largest = std::max(-lowest(domain_), highest(domain_));
        Wide bound = static_cast<Wide>(1) << step_.exponent, most = 0, far = 0;
        for (int32_t multiplier : step_.multipliers) {
            expect(multiplier >= 0, "requantize has a negative multiplier");
            most = std::max<Wide>(most, multiplier);
        }
        for (int64_t offset : step_.offsets)
            far = std::max<Wide>(far, offset < 0 ? -static_cast<Wide>(offset) : offset);
        bound += most * largest + far;
        expect(bound < static_cast<Wide>(1) << 63, "requantize can leave 64 bits");
    }

    const Data &data_;
    const Record &r_;
    const Shape &in_, &other_;
    Domain domain_, other_domain_;
    Step step_;
};

}  // namespace

Step read_step(const Data &data, const Record &record, const Shape &source, Domain domain,
               const Shape &other, Domain other_domain) {
    return StepReader(data, record, source, domain, other, other_domain).read();
}

}  // namespace whit
