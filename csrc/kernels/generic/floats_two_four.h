// Products with weights of which two in each four are kept (2:4), for every instruction set.
//
// A panel holds, for each run, blocks of up to eight groups of four: first a word for each output
// with the places of its kept weights, two bits each, then the weights [group][2][output]. That is
// 17/32 of the dense bytes. The four values of a group are loaded into every quarter of a register,
// and a selection within quarters picks the wanted one for each output.
// Places of absent weights (fewer than two) are those of present ones where there are any, so that
// a value that is not a number spreads no further than it would.
#ifndef WHIT_FLOATS_TWO_FOUR_H
#define WHIT_FLOATS_TWO_FOUR_H

#include "generic/floats_dense.h"

namespace whit {
namespace {

constexpr size_t kGroup = 4;        // weights of which two are kept
constexpr size_t kBlockGroups = 8;  // their places fill a word of 32 bits
constexpr size_t kSelectRows = 4;

size_t two_four_run_bytes(size_t run_length) {
    const size_t groups = run_length / kGroup;
    const size_t blocks = (groups + kBlockGroups - 1) / kBlockGroups;
    return (groups * 2 * sizeof(float) + blocks * sizeof(uint32_t)) * kLanes;
}

size_t two_four_panel_bytes(size_t run_count, size_t run_length) {
    return (run_count * two_four_run_bytes(run_length) + 63) / 64 * 64;
}

// The places of the two kept weights of a group, whose values are written; zeros if values is null.
uint32_t keep_two(const float *values, float *first, float *second) {
    uint32_t places[2] = {0, 0};
    size_t kept = 0;
    for (uint32_t i = 0; values && i < kGroup; ++i) {
        if (values[i] == 0.0f || kept == 2) continue;
        places[kept++] = i;
    }
    *first = kept > 0 ? values[places[0]] : 0.0f;
    *second = kept > 1 ? values[places[1]] : 0.0f;
    if (kept == 1) places[1] = places[0];
    return places[0] | places[1] << 2;
}

void pack_two_four_lane(const float *values, size_t run_length, size_t lane, char *out) {
    const size_t groups = run_length / kGroup;
    for (size_t block = 0; block < groups; block += kBlockGroups) {
        const size_t count = groups - block < kBlockGroups ? groups - block : kBlockGroups;
        uint32_t *places = reinterpret_cast<uint32_t *>(out);
        float *kept = reinterpret_cast<float *>(out) + kLanes;
        uint32_t word = 0;
        for (size_t g = 0; g < count; ++g) {
            float *pair = kept + g * 2 * kLanes + lane;
            const float *group = values ? values + (block + g) * kGroup : nullptr;
            word |= keep_two(group, pair, pair + kLanes) << (4 * g);
        }
        places[lane] = word;
        out += (1 + 2 * count) * kLanes * sizeof(float);
    }
}

void pack_two_four(const float *values, size_t n, size_t run_count, size_t run_length, void *out) {
    const size_t panel_bytes = two_four_panel_bytes(run_count, run_length);
    const size_t run_bytes = two_four_run_bytes(run_length);
    for (size_t c = 0; c < (n + kLanes - 1) / kLanes * kLanes; ++c) {
        char *panel = static_cast<char *>(out) + c / kLanes * panel_bytes;
        for (size_t run = 0; run < run_count; ++run) {
            const float *row = c < n ? values + (c * run_count + run) * run_length : nullptr;
            pack_two_four_lane(row, run_length, c % kLanes, panel + run * run_bytes);
        }
        char *unused = panel + run_count * run_bytes;
        while (unused < panel + panel_bytes) *unused++ = 0;
    }
}

// Sets of sums, so that additions needn't wait: a set for each of the two weights, or one for all.
constexpr size_t select_sets(size_t rows, size_t panels) {
    return rows * panels * kPanelVectors < 8 ? 2 : 1;
}

template <size_t Rows, size_t Panels>
WHIT_INLINE void add_group(
    Vector (&sums)[select_sets(Rows, Panels)][Rows][Panels * kPanelVectors],
    Places (&places)[Panels * kPanelVectors], const float *const (&left)[Rows], size_t k,
    const float *kept, size_t panel_floats) {
    WHIT_UNROLL
    for (size_t half = 0; half < 2; ++half) {
        Vector groups[Rows];
        WHIT_UNROLL
        for (size_t r = 0; r < Rows; ++r) groups[r] = broadcast_group(left[r] + k);
        WHIT_UNROLL
        for (size_t v = 0; v < Panels * kPanelVectors; ++v) {
            const Vector weights = load(kept + half * kLanes + v / kPanelVectors * panel_floats +
                                        v % kPanelVectors * kWidth);
            WHIT_UNROLL
            for (size_t r = 0; r < Rows; ++r) {
                accumulate(sums[half % select_sets(Rows, Panels)][r][v],
                           select(groups[r], places[v]), weights);
            }
            places[v] = next_places(places[v]);
        }
    }
}

template <size_t Rows, size_t Panels>
WHIT_NOINLINE void select_tile(const Product &product, const float *const *rows, Place place) {
    constexpr size_t sets = select_sets(Rows, Panels);
    const Runs runs = product.runs;
    const size_t panel_floats = product.panel_floats;
    const size_t groups = runs.length / kGroup;
    Vector sums[sets][Rows][Panels * kPanelVectors];
    start_sums<Rows, Panels, sets>(sums);
    for (size_t run = 0; run < runs.count; ++run) {
        const float *left[Rows];
        WHIT_UNROLL
        for (size_t r = 0; r < Rows; ++r) left[r] = rows[r] + runs.offsets[run];
        for (size_t block = 0; block < groups; block += kBlockGroups) {
            Places places[Panels * kPanelVectors];
            WHIT_UNROLL
            for (size_t v = 0; v < Panels * kPanelVectors; ++v) {
                places[v] = load_places(place.panel + v / kPanelVectors * panel_floats +
                                        v % kPanelVectors * kWidth);
            }
            place.panel += kLanes;
            const size_t end = groups < block + kBlockGroups ? groups : block + kBlockGroups;
            for (size_t g = block; g < end; ++g) {
                add_group<Rows, Panels>(sums, places, left, g * kGroup, place.panel, panel_floats);
                place.panel += 2 * kLanes;
            }
        }
    }
    finish_sums<Rows, Panels, sets>(sums, product, place.bias, place.out);
}

template <size_t Rows>
void select_rows(size_t rows, const Product &product, const float *const *left,
                 const Place &place) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return select_rows<Rows - 1>(rows, product, left, place);
    }
    select_tile<Rows, 1>(product, left, place);
}

void multiply_two_four(const float *const *rows, size_t m, const Runs &runs, const void *panels,
                       size_t panel_count, const float *bias, float floor, float *out,
                       size_t stride) {
    const size_t panel_floats = two_four_panel_bytes(runs.count, runs.length) / sizeof(float);
    const Product product{runs, panel_floats, floor, stride};
    for (size_t p = 0; p < panel_count;) {
        const float *panel = static_cast<const float *>(panels) + p * panel_floats;
        Place place{panel, panel, bias ? bias + p * kLanes : nullptr, out + p * kLanes};
        if (m == 1 && panel_count - p >= kSelectPanels) {
            select_tile<1, kSelectPanels>(product, rows, place);
            p += kSelectPanels;
            continue;
        }
        for (size_t r = 0; r < m; r += kSelectRows) {
            select_rows<kSelectRows>(m - r < kSelectRows ? m - r : kSelectRows, product, rows + r,
                                     place);
            place.out += kSelectRows * stride;
        }
        ++p;
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_FLOATS_TWO_FOUR_H
