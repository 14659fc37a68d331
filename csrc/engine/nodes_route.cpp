#include <cmath>
#include <limits>

#include "nodes.h"
#include "plan.h"

namespace whit {

RouteNode::RouteNode(const KernelTable &kernels, const Step &step,
                     std::vector<std::unique_ptr<Plan>> bodies, size_t first_body,
                     size_t sample_bytes, size_t scores, size_t input, size_t gathered,
                     size_t answers, size_t situations, size_t result)
    : kernels_(kernels), step_(step), bodies_(std::move(bodies)), first_body_(first_body),
      sample_bytes_(sample_bytes), classes_(step.shape.axes[0]), scores_(scores), input_(input),
      gathered_(gathered), answers_(answers), situations_(situations), result_(result) {}

RouteNode::~RouteNode() = default;

namespace {

// As NumPy's argmax: the first of the largest, and the first number that is none.
bool above(float one, float best) { return best == best && (one > best || one != one); }

}  // namespace

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

size_t RouteNode::situation(const float *scores, float *chances, float *cooled) const {
    for (size_t i = 0; i < classes_; ++i) cooled[i] = scores[i] / step_.high;
    softmax(cooled, chances);
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
    if (step_.deciding) {
        const float *deciding = scores + classes_;
        for (size_t i = 1; i < step_.deciding; ++i)
            if (above(deciding[i], deciding[best])) best = i;
        return 1 + best;
    }
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
    const size_t stride = classes_ + step_.deciding;
    for (size_t i = 0; i < samples; ++i)
        situations[i] =
            static_cast<uint32_t>(situation(scores + i * stride, chances, chances + classes_));

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
    for (size_t row = 0; row < samples; ++row) add(scores + row * stride, row, asked(row, 0));
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
            std::memcpy(own, scores + row * stride, classes_ * 4);
            continue;
        }
        for (size_t i = 0; i < classes_; ++i) {
            const float mean = own[i] / static_cast<float>(strategy.size());
            own[i] = std::log(mean > 1e-12f || mean != mean ? mean : 1e-12f);
        }
    }
}

}  // namespace whit
