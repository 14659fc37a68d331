// Dense products of floats, written once for every instruction set.
//
// The file of an instruction set defines its Vector first (see avx2/floats.cpp).
// A tile of some rows and panels is summed in registers: each step of k loads the vectors of the
// panels once, broadcasts one value of each row and multiplies all with all. Tiles with few sums
// would wait for their additions, so that they sum several steps of k apart.
//
// Many rows: all of them pass before the next panel is taken, so that a panel is read from memory
// once and then found in the second cache. (Measured: cutting a long k into slices gains nothing.)
// Few rows: memory binds, and several panels read at once are faster than one after the other.
#ifndef WHIT_FLOATS_DENSE_H
#define WHIT_FLOATS_DENSE_H

#include "kernels.h"

namespace whit {
namespace {

constexpr size_t kLanes = kPanelVectors * kWidth;
constexpr size_t kLineFloats = 16;
constexpr size_t kAheadFloats = 512;

struct Product {
    Runs runs;
    size_t panel_floats;  // from a panel to the next
    float floor;
    size_t stride;
};

// Vector v of one step, of panels that lie panel_floats apart.
WHIT_INLINE Vector load_weights(const float *panel, size_t v, size_t panel_floats) {
    return load(panel + v / kPanelVectors * panel_floats + v % kPanelVectors * kWidth);
}

struct Place {
    const float *panel;
    const float *ahead;  // what will be needed next; may point anywhere
    const float *bias;   // or null
    float *out;
};

// One step of k. What there are fewer of, rows or vectors of weights, is held in registers.
template <size_t Rows, size_t Panels>
WHIT_INLINE void add_step(Vector (&sums)[Rows][Panels * kPanelVectors],
                          const float *const (&left)[Rows], size_t k, const float *panel,
                          size_t panel_floats) {
    constexpr size_t vectors = Panels * kPanelVectors;
    constexpr bool hold_rows = Rows < vectors;
    Vector held[hold_rows ? Rows : vectors];
    WHIT_UNROLL
    for (size_t i = 0; i < (hold_rows ? Rows : vectors); ++i) {
        held[i] = hold_rows ? broadcast(left[i] + k) : load_weights(panel, i, panel_floats);
    }
    WHIT_UNROLL
    for (size_t i = 0; i < (hold_rows ? vectors : Rows); ++i) {
        const Vector other = hold_rows ? load_weights(panel, i, panel_floats)
                                       : broadcast(left[i] + k);
        WHIT_UNROLL
        for (size_t j = 0; j < (hold_rows ? Rows : vectors); ++j) {
            accumulate(hold_rows ? sums[j][i] : sums[i][j], held[j], other);
        }
    }
}

template <size_t Rows, size_t Panels, size_t Steps>
WHIT_INLINE void start_sums(Vector (&sums)[Steps][Rows][Panels * kPanelVectors]) {
    WHIT_UNROLL
    for (size_t v = 0; v < Panels * kPanelVectors; ++v) {
        WHIT_UNROLL
        for (size_t r = 0; r < Rows; ++r) {
            WHIT_UNROLL
            for (size_t s = 0; s < Steps; ++s) sums[s][r][v] = zeros();
        }
    }
}

// The bias comes last, as in the definition of the operator: sums that are exact (small integers
// times scales of few bits) are then rounded once, and equal those of torch and NumPy bit for bit.
template <size_t Rows, size_t Panels, size_t Steps>
WHIT_INLINE void finish_sums(const Vector (&sums)[Steps][Rows][Panels * kPanelVectors],
                             const Product &product, const float *bias, float *out) {
    const Vector floor = broadcast(&product.floor);
    WHIT_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
        WHIT_UNROLL
        for (size_t v = 0; v < Panels * kPanelVectors; ++v) {
            Vector sum = sums[0][r][v];
            WHIT_UNROLL
            for (size_t s = 1; s < Steps; ++s) sum = add(sum, sums[s][r][v]);
            if (bias) sum = add(sum, load(bias + v * kWidth));
            store(out + r * product.stride + v * kWidth, maximum(floor, sum));
        }
    }
}

// Sums of a tile that keep both multipliers busy in spite of their latency of four.
constexpr size_t steps_of(size_t rows, size_t panels) {
    return (8 + rows * panels * kPanelVectors - 1) / (rows * panels * kPanelVectors);
}

// `Lines`: lines of each panel ahead to fetch in four steps of k.
template <size_t Rows, size_t Panels, size_t Lines>
WHIT_NOINLINE void multiply_tile(const Product &product, const float *const *rows, Place place) {
    constexpr size_t Steps = steps_of(Rows, Panels);
    constexpr size_t unrolled = Steps > 4 ? Steps : 4 / Steps * Steps;
    const Runs runs = product.runs;
    const size_t panel_floats = product.panel_floats;
    Vector sums[Steps][Rows][Panels * kPanelVectors];
    start_sums<Rows, Panels, Steps>(sums);
    for (size_t run = 0; run < runs.count; ++run) {
        const float *left[Rows];
        WHIT_UNROLL
        for (size_t r = 0; r < Rows; ++r) left[r] = rows[r] + runs.offsets[run];
        size_t k = 0;
        for (; k + unrolled <= runs.length; k += unrolled) {
            WHIT_UNROLL
            for (size_t line = 0; line < Lines * Panels; ++line) {
                prefetch(place.ahead + line / Panels * kLineFloats + line % Panels * panel_floats);
            }
            place.ahead += Lines * kLineFloats;
            WHIT_UNROLL
            for (size_t s = 0; s < unrolled; ++s) {
                add_step<Rows, Panels>(sums[s % Steps], left, k + s, place.panel + s * kLanes,
                                       panel_floats);
                keep_order();
            }
            place.panel += unrolled * kLanes;
        }
        for (; k < runs.length; ++k) {
            add_step<Rows, Panels>(sums[0], left, k, place.panel, panel_floats);
            place.panel += kLanes;
        }
    }
    finish_sums<Rows, Panels, Steps>(sums, product, place.bias, place.out);
}

// The tile of `rows` <= Rows rows. Comparisons, because a table would have to be relocated.
template <size_t Rows, size_t Panels>
void multiply_rows(size_t rows, const Product &product, const float *const *left,
                   const Place &place) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return multiply_rows<Rows - 1, Panels>(rows, product, left, place);
    }
    multiply_tile<Rows, Panels, 1>(product, left, place);
}

// More rows than a tile has, `Panels` panels. While four tiles pass, they fetch the next panels.
template <size_t Panels>
void multiply_many(size_t m, const Product &product, const float *const *rows, Place place) {
    const size_t quarter = product.panel_floats / kLanes / 4 * kLineFloats;
    const float *const next = place.panel + Panels * product.panel_floats;
    place.ahead = next;
    for (size_t r = 0; r < m;) {
        const size_t left = m - r;
        // A single row left over is slow: the tile before it leaves it company.
        const size_t taken = left == kTileRows + 1 ? kTileRows - 2
                             : left > kTileRows    ? kTileRows
                                                   : left;
        multiply_rows<kTileRows, Panels>(taken, product, rows + r, place);
        place.out += taken * product.stride;
        place.ahead = place.ahead == next + 3 * quarter ? place.panel : place.ahead + quarter;
        r += taken;
    }
}

constexpr size_t kFewRows = 3;

constexpr size_t panels_together(size_t rows) {
    if (rows > kFewRows) return kTilePanels;
    return kTileSums / (rows * kPanelVectors) < 4 ? kTileSums / (rows * kPanelVectors) : 4;
}

// No more rows than a tile has: as many panels as registers allow. Returns how many.
template <size_t Rows>
size_t multiply_few(size_t m, const Product &product, const float *const *rows, Place place,
                    size_t panel_count) {
    if constexpr (Rows > 1) {
        if (m < Rows) return multiply_few<Rows - 1>(m, product, rows, place, panel_count);
    }
    constexpr size_t together = panels_together(Rows);
    if constexpr (together > 1) {
        if (panel_count >= together) {
            multiply_tile<Rows, together, 0>(product, rows, place);
            return together;
        }
    }
    place.ahead = place.panel + kAheadFloats;
    multiply_tile<Rows, 1, 4>(product, rows, place);
    return 1;
}

void multiply_floats(const float *const *rows, size_t m, const Runs &runs, const float *panels,
                     size_t panel_count, const float *bias, float floor, float *out,
                     size_t stride) {
    const Product product{runs, runs.count * runs.length * kLanes, floor, stride};
    for (size_t p = 0; p < panel_count;) {
        const Place place{panels + p * product.panel_floats, panels,
                          bias ? bias + p * kLanes : nullptr, out + p * kLanes};
        if (m <= kTileRows) {
            p += multiply_few<kTileRows>(m, product, rows, place, panel_count - p);
        } else if (panel_count - p >= kTilePanels) {
            multiply_many<kTilePanels>(m, product, rows, place);
            p += kTilePanels;
        } else {
            multiply_many<1>(m, product, rows, place);
            p += 1;
        }
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_FLOATS_DENSE_H
