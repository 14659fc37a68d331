// Packing of small integers into panels, the same for every instruction set.
//
// A step is `kStepElements` consecutive elements of a run: what one 32-bit lane multiplies at once.
// A group is kSteps steps, whose values share the bytes of [group][lane][element of the step]: step
// s has the field of 8 / kSteps bits that begins at bit s * 8 / kSteps. Fields hold value + offset.
// Groups never cross runs; what is missing at the end of a run has the value 0.
#ifndef WHIT_INTEGER_PACK_H
#define WHIT_INTEGER_PACK_H

#include <cstring>

#include "kernels/kernels.h"

namespace whit {
namespace {

inline size_t divide_up(size_t value, size_t by) { return (value + by - 1) / by; }

template <class Format>
size_t groups_of(size_t run_length) {
    return divide_up(run_length, Format::kSteps * Format::kStepElements);
}

template <class Format, size_t kLanes>
size_t packed_panel_bytes(size_t run_count, size_t run_length) {
    const size_t group = kLanes * Format::kStepElements;
    return divide_up(run_count * groups_of<Format>(run_length) * group, 64) * 64;
}

// One output's run. `out` points to the bytes of its lane in the first group of the run.
template <class Format, size_t kLanes>
void pack_run(const int8_t *values, size_t length, uint8_t *out) {
    constexpr size_t kElements = Format::kStepElements;
    constexpr unsigned kBits = 8 / Format::kSteps;
    for (size_t group = 0; group < groups_of<Format>(length); ++group) {
        for (size_t element = 0; element < kElements; ++element) {
            unsigned byte = 0;
            for (size_t step = 0; step < Format::kSteps; ++step) {
                const size_t k = (group * Format::kSteps + step) * kElements + element;
                const int value = values != nullptr && k < length ? values[k] : 0;
                const unsigned field = static_cast<unsigned>(value + Format::kOffset);
                byte |= (field & ((1u << kBits) - 1)) << (step * kBits);
            }
            out[group * kLanes * kElements + element] = static_cast<uint8_t>(byte);
        }
    }
}

template <class Format, size_t kLanes>
void pack_panels(const int8_t *values, size_t n, size_t run_count, size_t run_length, void *out) {
    const size_t panel_bytes = packed_panel_bytes<Format, kLanes>(run_count, run_length);
    const size_t run_bytes = groups_of<Format>(run_length) * kLanes * Format::kStepElements;
    std::memset(out, 0, divide_up(n, kLanes) * panel_bytes);
    for (size_t c = 0; c < divide_up(n, kLanes) * kLanes; ++c) {
        uint8_t *lane = static_cast<uint8_t *>(out) + c / kLanes * panel_bytes +
                        c % kLanes * Format::kStepElements;
        for (size_t run = 0; run < run_count; ++run) {
            const int8_t *from = c < n ? values + (c * run_count + run) * run_length : nullptr;
            pack_run<Format, kLanes>(from, run_length, lane + run * run_bytes);
        }
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_INTEGER_PACK_H
