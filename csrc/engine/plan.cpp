#include "plan.h"

#include <algorithm>

#include "planner.h"

namespace whit {

Plan::Plan(const Network &network, size_t first, size_t last, size_t own, Type own_type,
           size_t samples, const KernelTable &kernels) {
    Planner(network, own, own_type, samples, kernels, *this).plan(first, last);
    place_buffers(samples);
    for (const auto &node : nodes_) scratch_.grow(node->scratch());
}

Plan::~Plan() = default;

// The largest buffers first, each at the lowest place that no buffer of the same time takes.
void Plan::place_buffers(size_t samples) {
    std::vector<size_t> order;
    const auto bytes = [&](const Buffer &buffer) {
        return rounded_up(samples * buffer.sample_bytes + buffer.fixed_bytes + kSlackBytes, kAlignment);
    };
    for (size_t i = 0; i < buffers_.size(); ++i)
        if (!(result_outside_ && i == result_)) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return bytes(buffers_[a]) > bytes(buffers_[b]);
    });
    std::vector<size_t> placed;
    for (size_t index : order) {
        Buffer &buffer = buffers_[index];
        std::vector<std::pair<size_t, size_t>> taken;
        for (size_t other : placed)
            if (buffers_[other].first <= buffer.last && buffer.first <= buffers_[other].last)
                taken.push_back({buffers_[other].offset,
                                 buffers_[other].offset + bytes(buffers_[other])});
        std::sort(taken.begin(), taken.end());
        size_t offset = 0;
        for (const auto &[begin, end] : taken) {
            if (offset + bytes(buffer) <= begin) break;
            offset = std::max(offset, end);
        }
        buffer.offset = offset;
        arena_bytes_ = std::max(arena_bytes_, offset + bytes(buffer));
        placed.push_back(index);
    }
}

double Plan::nanoseconds() const {
    double total = 0;
    for (const auto &node : nodes_) total += node->nanoseconds();
    return total;
}

Frame Plan::frame() const {
    Frame frame;
    frame.plan = this;
    frame.arena = Bytes(arena_bytes_);
    for (const Buffer &buffer : buffers_) frame.at.push_back(frame.arena.data() + buffer.offset);
    for (const Plan *body : bodies_) frame.bodies.push_back(body->frame());
    return frame;
}

void Plan::run(Frame &frame, const uint8_t *input, float *output, size_t samples,
               Call &call) const {
    frame.samples = samples;
    std::memcpy(frame.at[0], input, samples * buffers_[0].sample_bytes);
    if (result_outside_) frame.at[result_] = reinterpret_cast<uint8_t *>(output);
    for (const auto &node : nodes_) node->run(frame, call);
    if (!result_outside_) std::memcpy(output, frame.at[result_], samples * result_bytes_);
}

}  // namespace whit
