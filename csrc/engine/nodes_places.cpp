#include <cmath>

#include "axes.h"
#include "nodes.h"

namespace whit {

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

}  // namespace whit
