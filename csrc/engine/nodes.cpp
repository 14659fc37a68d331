#include "nodes.h"

#include <cmath>

#include "axes.h"

namespace whit {

namespace {

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
    kernels_.elementwise->divide(Block{out, 1, channels, channels}, Spread{&count, false});
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
                                         Spread{&count, false});
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

}  // namespace whit
