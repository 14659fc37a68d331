#include "nodes.h"

#include <cmath>
#include <limits>

#include "plan.h"

namespace whit {

namespace {

// Strides of a shape, the last axis fastest.
void strides_of(const size_t *axes, size_t rank, size_t *strides) {
    size_t step = 1;
    for (size_t axis = rank; axis-- > 0;) {
        strides[axis] = step;
        step *= axes[axis];
    }
}

// Calls visit(offset) for all places of four axes in order, with any steps.
template <typename Visit>
void walk(const size_t (&axes)[4], const size_t (&steps)[4], Visit visit) {
    for (size_t a = 0; a < axes[0]; ++a)
        for (size_t b = 0; b < axes[1]; ++b)
            for (size_t c = 0; c < axes[2]; ++c) {
                const size_t base = a * steps[0] + b * steps[1] + c * steps[2];
                for (size_t d = 0; d < axes[3]; ++d) visit(base + d * steps[3]);
            }
}

void four_axes(const Shape &shape, size_t (&axes)[4]) {
    for (size_t axis = 0; axis < 4; ++axis) axes[axis] = axis < shape.rank ? shape.axes[axis] : 1;
}

template <typename Item>
void larger_rows(void *x, const void *y, size_t n) {
    Item *to = static_cast<Item *>(x);
    const Item *from = static_cast<const Item *>(y);
    for (size_t i = 0; i < n; ++i) to[i] = to[i] > from[i] ? to[i] : from[i];
}

// The larger numbers of two rows of any type, to the first.
void keep_larger(const KernelTable &kernels, Type type, void *x, const void *y, size_t n) {
    switch (type) {
        case Type::kFloat:
            return kernels.elementwise->larger_floats(static_cast<float *>(x),
                                                      static_cast<const float *>(y), n);
        case Type::kInt32:
            return kernels.elementwise->larger_integers(static_cast<int32_t *>(x),
                                                        static_cast<const int32_t *>(y), n);
        case Type::kInt16: return larger_rows<int16_t>(x, y, n);
        case Type::kByte: return larger_rows<uint8_t>(x, y, n);
        case Type::kBits: {  // -1, a bit of 1, only where all are -1
            uint32_t *to = static_cast<uint32_t *>(x);
            const uint32_t *from = static_cast<const uint32_t *>(y);
            for (size_t i = 0; i < (n + 31) / 32; ++i) to[i] &= from[i];
            return;
        }
        default: return larger_rows<int8_t>(x, y, n);
    }
}

}  // namespace

// ---- types and orders ----------------------------------------------------------------------

void ConvertType::run(Frame &frame, Call &call) const {
    const ElementwiseKernels &run = *kernels_.elementwise;
    const bool bits = from_ == Type::kBits || to_ == Type::kBits;
    // Without pads between rows everything is one long row, cut into pieces of the scratch.
    const size_t total = frame.samples * grid_.rows * grid_.columns;
    const size_t columns = bits ? grid_.columns : std::min<size_t>(total, 1024);
    const size_t rows = bits ? frame.samples * grid_.rows : (total + columns - 1) / columns;
    const size_t from_bytes = row_bytes(from_, columns), to_bytes = row_bytes(to_, columns);
    for (size_t row = 0; row < rows; ++row) {
        const uint8_t *from = frame.at[source_] + row * from_bytes;
        uint8_t *to = frame.at[result_] + row * to_bytes;
        const size_t n = bits ? columns : std::min(columns, total - row * columns);
        Block block{to, 1, n, n};
        if (to_ == Type::kFloat) {
            run.load_floats(from, from_bytes, static_cast<size_t>(from_), block);
            continue;
        }
        block.data = call.scratch[0].block.data();
        run.load_integers(from, from_bytes, static_cast<size_t>(from_), block);
        run.store(block, static_cast<size_t>(to_), to, to_bytes);
    }
}

ScratchSize ConvertType::scratch() const { return {4 * std::max<size_t>(1024, grid_.columns), 0, 0}; }

void ConvertOrder::run(Frame &frame, Call &) const {
    const size_t bytes = rows_ * columns_ * width_;
    for (size_t sample = 0; sample < frame.samples; ++sample)
        kernels_.elementwise->transpose(frame.at[source_] + sample * bytes, rows_, columns_,
                                        columns_, frame.at[result_] + sample * bytes, rows_, width_);
}

// ---- pools and reductions ------------------------------------------------------------------

void Pool::window(const uint8_t *image, size_t y, size_t x, uint8_t *out) const {
    const size_t channels = input_.axes[0], height = input_.axes[1], width = input_.axes[2];
    const size_t bytes = row_bytes(type_, channels);
    const bool mean = step_.kind == Kind::kAvgPool;
    size_t inside = 0;
    for (size_t h = 0; h < step_.size_h; ++h)
        for (size_t w = 0; w < step_.size_w; ++w) {
            const size_t row = y * step_.stride_h + h, column = x * step_.stride_w + w;
            if (row < step_.pad_h || row >= step_.pad_h + height || column < step_.pad_w ||
                column >= step_.pad_w + width)
                continue;
            const uint8_t *pixel =
                image + ((row - step_.pad_h) * width + column - step_.pad_w) * bytes;
            if (inside++ == 0) std::memcpy(out, pixel, bytes);
            else if (mean)
                kernels_.elementwise->add_row(reinterpret_cast<float *>(out),
                                              reinterpret_cast<const float *>(pixel), channels);
            else keep_larger(kernels_, type_, out, pixel, channels);
        }
    if (!mean) return;
    const float count =
        static_cast<float>(step_.inside_only ? inside : step_.size_h * step_.size_w);
    kernels_.elementwise->divide(Block{out, 1, channels, channels}, Spread{&count, 0, false});
}

void Pool::run(Frame &frame, Call &) const {
    const size_t in = sample_bytes(input_, {type_, Order::kChannelsLast});
    const size_t out = sample_bytes(step_.shape, {type_, Order::kChannelsLast});
    const size_t bytes = row_bytes(type_, input_.axes[0]);
    for (size_t sample = 0; sample < frame.samples; ++sample)
        for (size_t y = 0; y < step_.shape.axes[1]; ++y)
            for (size_t x = 0; x < step_.shape.axes[2]; ++x)
                window(frame.at[source_] + sample * in, y, x,
                       frame.at[result_] + sample * out + (y * step_.shape.axes[2] + x) * bytes);
}

Reduce::Reduce(const KernelTable &kernels, const Step &step, const Shape &input, Form form,
               size_t source, size_t result)
    : kernels_(kernels), mode_(step.mode), type_(form.type), source_(source), result_(result) {
    size_t kept[4], strides[4], rank = 0;
    bool gone[4];
    four_axes(input, axes_);
    for (size_t axis = 0; axis < 4; ++axis) {
        gone[axis] = axis < input.rank && (step.axes >> axis & 1);
        if (gone[axis]) count_ *= axes_[axis];
        else kept[rank++] = axes_[axis], results_ *= axes_[axis];
    }
    strides_of(kept, rank, strides);
    rank = 0;
    for (size_t axis = 0; axis < 4; ++axis) steps_[axis] = gone[axis] ? 0 : strides[rank++];
    if (form.order == Order::kChannelsLast) {
        const size_t channel = axes_[0], step_of_channel = steps_[0];
        axes_[0] = axes_[1], steps_[0] = steps_[1];
        axes_[1] = axes_[2], steps_[1] = steps_[2];
        axes_[2] = channel, steps_[2] = step_of_channel;
    }
    // The fastest axis last, where the row kernels want it.
    for (size_t turn = 0; turn < 3 && axes_[3] == 1; ++turn) {
        for (size_t axis = 3; axis > 0; --axis)
            axes_[axis] = axes_[axis - 1], steps_[axis] = steps_[axis - 1];
        axes_[0] = 1, steps_[0] = 0;
    }
}

void Reduce::run(Frame &frame, Call &) const {
    const size_t width = type_bytes(type_), elements = results_ * count_;
    for (size_t sample = 0; sample < frame.samples; ++sample) {
        const uint8_t *from = frame.at[source_] + sample * elements * width;
        uint8_t *to = frame.at[result_] + sample * results_ * width;
        float *sums = reinterpret_cast<float *>(to);
        if (mode_ != 1) std::memset(to, 0, results_ * width);
        size_t at = 0;
        for (size_t a = 0; a < axes_[0]; ++a)
            for (size_t b = 0; b < axes_[1]; ++b)
                for (size_t c = 0; c < axes_[2]; ++c, at += axes_[3]) {
                    const size_t place = a * steps_[0] + b * steps_[1] + c * steps_[2];
                    const uint8_t *row = from + at * width;
                    const float *values = reinterpret_cast<const float *>(row);
                    // The first time that a place is met: all indices of axes that go are 0.
                    const bool first = (steps_[0] || a == 0) && (steps_[1] || b == 0) &&
                                       (steps_[2] || c == 0);
                    if (mode_ == 1 && steps_[3]) {
                        if (first) std::memcpy(to + place * width, row, axes_[3] * width);
                        else keep_larger(kernels_, type_, to + place * width, row, axes_[3]);
                    } else if (mode_ == 1) {
                        size_t d = 0;
                        if (first) std::memcpy(to + place * width, row, width), d = 1;
                        for (; d < axes_[3]; ++d)
                            keep_larger(kernels_, type_, to + place * width, row + d * width, 1);
                    } else if (steps_[3]) {
                        kernels_.elementwise->add_row(sums + place, values, axes_[3]);
                    } else {
                        double sum = 0;
                        for (size_t d = 0; d < axes_[3]; ++d) sum += values[d];
                        sums[place] += static_cast<float>(sum);
                    }
                }
        if (mode_ == 0) {
            const float count = static_cast<float>(count_);
            kernels_.elementwise->divide(Block{to, 1, results_, results_},
                                         Spread{&count, 0, false});
        }
    }
}

// ---- softmax, norms ------------------------------------------------------------------------

Softmax::Softmax(const KernelTable &kernels, const Step &step, size_t source, size_t result)
    : kernels_(kernels), length_(step.shape.axes[step.axis]), logarithm_(step.mode == 1),
      source_(source), result_(result) {
    for (size_t axis = 0; axis < step.shape.rank; ++axis)
        if (axis < step.axis) outer_ *= step.shape.axes[axis];
        else if (axis > step.axis) inner_ *= step.shape.axes[axis];
}

ScratchSize Softmax::scratch() const { return {8 * length_, 0, 0}; }

void Softmax::run(Frame &frame, Call &call) const {
    const float *from = reinterpret_cast<const float *>(frame.at[source_]);
    float *to = reinterpret_cast<float *>(frame.at[result_]);
    float *shifted = call.scratch[0].block.as<float>(), *powers = shifted + length_;
    for (size_t outer = 0; outer < frame.samples * outer_; ++outer)
        for (size_t inner = 0; inner < inner_; ++inner) {
            const size_t base = outer * length_ * inner_ + inner;
            float most = from[base];
            for (size_t i = 1; i < length_; ++i) {
                const float value = from[base + i * inner_];
                most = value > most || value != value ? value : most;
            }
            for (size_t i = 0; i < length_; ++i)
                powers[i] = shifted[i] = from[base + i * inner_] - most;
            kernels_.elementwise->curve(Block{powers, 1, length_, length_}, kExponential, 0);
            float sum = 0;
            for (size_t i = 0; i < length_; ++i) sum += powers[i];
            const float logarithm = logarithm_ ? std::log(sum) : 0;
            for (size_t i = 0; i < length_; ++i)
                to[base + i * inner_] = logarithm_ ? shifted[i] - logarithm : powers[i] / sum;
        }
}

Norm::Norm(const Step &step, size_t source, size_t result)
    : weight_(step.scale.values), shift_(step.shift.values), epsilon_(step.low), source_(source),
      result_(result) {
    const size_t elements = step.shape.elements();
    if (step.kind == Kind::kGroupNorm) {
        rows_ = rows_per_weight_ = step.axes;
        per_channel_ = elements / step.shape.axes[0];
    } else {
        rows_ = 1;
        for (size_t axis = 0; axis < step.shape.rank - step.axes; ++axis)
            rows_ *= step.shape.axes[axis];
    }
    length_ = elements / rows_;
}

void Norm::run(Frame &frame, Call &) const {
    for (size_t row = 0; row < frame.samples * rows_; ++row) {
        const float *x = reinterpret_cast<const float *>(frame.at[source_]) + row * length_;
        float *y = reinterpret_cast<float *>(frame.at[result_]) + row * length_;
        double sum = 0, squares = 0;
        for (size_t i = 0; i < length_; ++i) sum += x[i];
        const float mean = static_cast<float>(sum / static_cast<double>(length_));
        for (size_t i = 0; i < length_; ++i) {
            const float centred = x[i] - mean;
            squares += static_cast<double>(centred) * centred;
        }
        const float variance = static_cast<float>(squares / static_cast<double>(length_));
        const float deviation = std::sqrt(variance + epsilon_);
        const size_t base = rows_per_weight_ ? row % rows_ * length_ : 0;
        for (size_t i = 0; i < length_; ++i) {
            const size_t constant = rows_per_weight_ ? (base + i) / per_channel_ : i;
            float value = (x[i] - mean) / deviation;
            if (!weight_.empty()) value *= weight_[constant];
            if (!shift_.empty()) value += shift_[constant];
            y[i] = value;
        }
    }
}

// ---- tables and places ---------------------------------------------------------------------

void Embedding::run(Frame &frame, Call &call) const {
    const size_t count = frame.samples * indices_, columns = weight_.columns;
    const auto index = [&](size_t i) -> int64_t {
        const uint8_t *at = frame.at[source_] + i * type_bytes(type_);
        switch (type_) {
            case Type::kInt32: {
                int32_t value;
                std::memcpy(&value, at, 4);
                return value;
            }
            case Type::kInt16: {
                int16_t value;
                std::memcpy(&value, at, 2);
                return value;
            }
            case Type::kByte: return *at;
            default: return static_cast<int8_t>(*at);
        }
    };
    int64_t low = count ? index(0) : 0, high = low;
    for (size_t i = 1; i < count; ++i) low = std::min(low, index(i)), high = std::max(high, index(i));
    float *out = reinterpret_cast<float *>(frame.at[result_]);
    if (low < 0 || high >= static_cast<int64_t>(weight_.rows)) {
        if (!call.bad_rows)
            call.bad_low = low, call.bad_high = high,
            call.bad_rows = static_cast<int64_t>(weight_.rows);
        std::memset(out, 0, count * columns * 4);
        return;
    }
    const size_t used = call.planes ? std::min(call.planes, weight_.planes) : weight_.planes;
    const float step = weight_.planes ? static_cast<float>(1 << (weight_.planes - used)) : 1;
    for (size_t i = 0; i < count; ++i) {
        const size_t row = static_cast<size_t>(index(i));
        for (size_t column = 0; column < columns; ++column) {
            float value = weight_.value(row, column);
            if (step > 1) {
                const float whole = static_cast<float>(weight_.integers[row * columns + column]);
                value = (std::floor(whole / step) * step + (step - 1) / 2) * weight_.scale_of(row);
            }
            out[i * columns + column] = value;
        }
    }
}

Transpose::Transpose(const Step &step, const Shape &input, size_t width, size_t source,
                     size_t result)
    : width_(width), elements_(input.elements()), source_(source), result_(result) {
    size_t strides[4] = {0, 0, 0, 0};
    strides_of(input.axes, input.rank, strides);
    four_axes(step.shape, axes_);
    for (size_t axis = 0; axis < 4; ++axis)
        steps_[axis] = axis < input.rank ? strides[step.order[axis]] : 0;
}

void Transpose::run(Frame &frame, Call &) const {
    for (size_t sample = 0; sample < frame.samples; ++sample) {
        const uint8_t *from = frame.at[source_] + sample * elements_ * width_;
        uint8_t *to = frame.at[result_] + sample * elements_ * width_;
        walk(axes_, steps_, [&](size_t offset) {
            std::memcpy(to, from + offset * width_, width_);
            to += width_;
        });
    }
}

void Concat::run(Frame &frame, Call &) const {
    const uint8_t *first = frame.at[first_], *second = frame.at[second_];
    uint8_t *to = frame.at[result_];
    for (size_t turn = 0; turn < frame.samples * turns_; ++turn) {
        std::memcpy(to, first, first_bytes_);
        std::memcpy(to + first_bytes_, second, second_bytes_);
        first += first_bytes_, second += second_bytes_, to += first_bytes_ + second_bytes_;
    }
}

void Border::run(Frame &frame, Call &) const {
    const size_t pixel = pixel_.size(), line = input_.columns * pixel;
    for (size_t plane = 0; plane < frame.samples * planes_; ++plane) {
        const uint8_t *from = frame.at[source_] + plane * input_.rows * line;
        uint8_t *to = frame.at[result_] + plane * output_.rows * output_.columns * pixel;
        for (size_t i = 0; i < output_.rows * output_.columns; ++i)
            std::memcpy(to + i * pixel, pixel_.data(), pixel);
        for (size_t row = 0; row < input_.rows; ++row)
            std::memcpy(to + ((top_ + row) * output_.columns + left_) * pixel, from + row * line,
                        line);
    }
}

Broadcast::Broadcast(const Step &step, const Shape &other, size_t source, size_t second,
                     size_t result)
    : multiply_(step.kind == Kind::kMultiply), elements_(step.shape.elements()),
      other_elements_(other.elements()), source_(source), other_(second), result_(result) {
    size_t strides[4] = {0, 0, 0, 0};
    strides_of(other.axes, other.rank, strides);
    four_axes(step.shape, axes_);
    for (size_t axis = 0; axis < 4; ++axis)
        steps_[axis] = axis < other.rank && other.axes[axis] > 1 ? strides[axis] : 0;
}

void Broadcast::run(Frame &frame, Call &) const {
    for (size_t sample = 0; sample < frame.samples; ++sample) {
        const float *x = reinterpret_cast<const float *>(frame.at[source_]) + sample * elements_;
        const float *y =
            reinterpret_cast<const float *>(frame.at[other_]) + sample * other_elements_;
        float *to = reinterpret_cast<float *>(frame.at[result_]) + sample * elements_;
        size_t i = 0;
        walk(axes_, steps_, [&](size_t offset) {
            to[i] = multiply_ ? x[i] * y[offset] : x[i] + y[offset];
            ++i;
        });
    }
}

// ---- routes --------------------------------------------------------------------------------

RouteNode::RouteNode(const KernelTable &kernels, const Step &step,
                     std::vector<std::unique_ptr<Plan>> bodies, size_t first_body,
                     size_t sample_bytes, size_t scores, size_t input, size_t gathered,
                     size_t answers, size_t situations, size_t result)
    : kernels_(kernels), step_(step), bodies_(std::move(bodies)), first_body_(first_body),
      sample_bytes_(sample_bytes), classes_(step.shape.axes[0]), scores_(scores), input_(input),
      gathered_(gathered), answers_(answers), situations_(situations), result_(result) {}

RouteNode::~RouteNode() = default;

ScratchSize RouteNode::scratch() const {
    ScratchSize size{4 * 2 * classes_, 4 * (step_.groups + 1), 0};
    for (const auto &body : bodies_) size.grow(body->scratch());
    return size;
}

void RouteNode::softmax(const float *scores, float *chances) const {
    float most = scores[0];
    for (size_t i = 1; i < classes_; ++i)
        most = scores[i] > most || scores[i] != scores[i] ? scores[i] : most;
    for (size_t i = 0; i < classes_; ++i) chances[i] = scores[i] - most;
    kernels_.elementwise->curve(Block{chances, 1, classes_, classes_}, kExponential, 0);
    float sum = 0;
    for (size_t i = 0; i < classes_; ++i) sum += chances[i];
    for (size_t i = 0; i < classes_; ++i) chances[i] /= sum;
}

size_t RouteNode::situation(const float *scores, float *chances) const {
    softmax(scores, chances);
    float first = -std::numeric_limits<float>::infinity(), second = first;
    bool broken = false;
    for (size_t i = 0; i < classes_; ++i) {
        broken = broken || chances[i] != chances[i];
        if (chances[i] > first) second = first, first = chances[i];
        else if (chances[i] > second) second = chances[i];
    }
    if (!broken && first - second >= step_.low) return 0;
    size_t best = 0;
    float largest = 0;
    for (size_t group = 0; group < step_.groups; ++group) {
        float sum = 0;
        for (size_t i = 0; i < classes_; ++i)
            if (step_.group_of[i] == group) sum += chances[i];
        if (group == 0 || sum > largest) best = group, largest = sum;
    }
    return 1 + best;
}

void RouteNode::run(Frame &frame, Call &call) const {
    const size_t samples = frame.samples;
    const float *scores = reinterpret_cast<const float *>(frame.at[scores_]);
    float *result = reinterpret_cast<float *>(frame.at[result_]);
    float *answers = reinterpret_cast<float *>(frame.at[answers_]);
    uint32_t *situations = reinterpret_cast<uint32_t *>(frame.at[situations_]);
    float *chances = call.scratch[0].block.as<float>();
    for (size_t i = 0; i < samples; ++i)
        situations[i] = static_cast<uint32_t>(situation(scores + i * classes_, chances));

    // Sums of the softmaxes of all networks that answer a row; a network sees no other rows.
    std::memset(result, 0, samples * classes_ * 4);
    const auto add = [&](const float *own, size_t row, size_t times) {
        float *sums = result + row * classes_;
        for (size_t turn = 0; turn < times; ++turn) {
            softmax(own, chances);
            kernels_.elementwise->add_row(sums, chances, classes_);
        }
    };
    const auto asked = [&](size_t row, size_t network) {
        size_t times = 0;
        for (uint8_t number : step_.strategies[situations[row]]) times += number == network;
        return times;
    };
    for (size_t row = 0; row < samples; ++row) add(scores + row * classes_, row, asked(row, 0));
    for (size_t member = 0; member < bodies_.size(); ++member) {
        size_t gathered = 0;
        uint8_t *rows = frame.at[gathered_];
        for (size_t row = 0; row < samples; ++row)
            if (asked(row, member + 1))
                std::memcpy(rows + gathered++ * sample_bytes_,
                            frame.at[input_] + row * sample_bytes_, sample_bytes_);
        if (!gathered) continue;
        bodies_[member]->run(frame.bodies[first_body_ + member], rows, answers, gathered, call);
        chances = call.scratch[0].block.as<float>();
        size_t answer = 0;
        for (size_t row = 0; row < samples; ++row)
            if (const size_t times = asked(row, member + 1))
                add(answers + answer++ * classes_, row, times);
    }
    for (size_t row = 0; row < samples; ++row) {
        const std::vector<uint8_t> &strategy = step_.strategies[situations[row]];
        bool alone = true;
        for (uint8_t number : strategy) alone = alone && number == 0;
        float *own = result + row * classes_;
        if (alone) {
            std::memcpy(own, scores + row * classes_, classes_ * 4);
            continue;
        }
        for (size_t i = 0; i < classes_; ++i) {
            const float mean = own[i] / static_cast<float>(strategy.size());
            own[i] = std::log(mean > 1e-12f || mean != mean ? mean : 1e-12f);
        }
    }
}

}  // namespace whit
