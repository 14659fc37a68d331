// Packing of integers as bit planes, and the panel's picture, the same for every instruction set.
//
// A panel holds [plane, the highest first][word][lane] uint32. Each run begins a new word. Bit
// 8 * i + s of a word belongs to element 4 * s + i of its 32: so one step of four elements is one
// bit of each byte, and the bytes of a vector line up with four broadcast bytes of the left side.
#ifndef WHIT_PLANES_PACK_H
#define WHIT_PLANES_PACK_H

#include <cstring>

#include "kernels/kernels.h"

namespace whit {
namespace {

constexpr size_t kWordElements = 32;

inline size_t words_of_run(size_t run_length) {
    return (run_length + kWordElements - 1) / kWordElements;
}

inline unsigned bit_of_element(size_t element) {
    return static_cast<unsigned>(8 * (element % 4) + element % kWordElements / 4);
}

template <size_t kLanes>
size_t plane_bytes(size_t run_count, size_t run_length) {
    return 4 * kLanes * run_count * words_of_run(run_length);
}

template <size_t kLanes>
size_t plane_panel_bytes(size_t run_count, size_t run_length, size_t planes) {
    return (planes * plane_bytes<kLanes>(run_count, run_length) + 63) / 64 * 64;
}

template <size_t kLanes>
void pack_planes(const int16_t *values, size_t n, size_t run_count, size_t run_length,
                 size_t planes, void *out) {
    const size_t panel_bytes = plane_panel_bytes<kLanes>(run_count, run_length, planes);
    const size_t words = words_of_run(run_length);
    std::memset(out, 0, (n + kLanes - 1) / kLanes * panel_bytes);
    for (size_t c = 0; c < n; ++c) {
        uint32_t *lane = reinterpret_cast<uint32_t *>(static_cast<uint8_t *>(out) +
                                                      c / kLanes * panel_bytes) + c % kLanes;
        for (size_t plane = 0; plane < planes; ++plane) {
            const int16_t *value = values + c * run_count * run_length;
            for (size_t run = 0; run < run_count; ++run) {
                for (size_t k = 0; k < run_length; ++k, ++value) {
                    const unsigned bits = static_cast<uint16_t>(*value);
                    const unsigned bit = bits >> (planes - 1 - plane) & 1u;
                    lane[k / kWordElements * kLanes] |= bit << bit_of_element(k);
                }
                lane += words * kLanes;
            }
        }
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_PLANES_PACK_H
