// The products of integer panels, for levels that have vectors with a product of byte pairs.
//
// The including file defines, in its anonymous namespace, `struct Lanes` (its vectors). A panel is
// kVectors vectors of outputs wide. There are two ways through it:
// up to kFusedRows rows: each group of fields is decoded in registers and used by all rows;
// more rows: a block of steps is decoded once into a buffer on the stack, which stays in the first
// cache while all rows pass it in tiles of kTileRows rows.
#ifndef WHIT_INTEGER_MULTIPLY_H
#define WHIT_INTEGER_MULTIPLY_H

#include "kernels/generic/integer_formats.h"
#include "kernels/generic/integer_pack.h"

namespace whit {
namespace {

using Vector = Lanes::Vector;

constexpr size_t kVectors = 2;
constexpr size_t kVectorLanes = Lanes::kBytes / 4;
constexpr size_t kPanelLanes = kVectors * kVectorLanes;
constexpr size_t kTileRows = Lanes::kTileRows;
constexpr size_t kFusedRows = 5;  // more rows repay the buffer (measured on Zen 3)
constexpr size_t kStepBytes = kVectors * Lanes::kBytes;
constexpr size_t kScratchBytes = 14336;
// The decoder writes whole groups, so up to 7 steps more than it has to.
constexpr size_t kBlockSteps = kScratchBytes / kStepBytes - 8;
constexpr size_t kMaxPieces = 64;

// Steps without a gap in the left rows. Behind a piece with `widen` the 16-bit sums are full.
struct Piece {
    ptrdiff_t begin;  // bytes behind the row's pointer
    uint32_t steps;
    bool widen;
};

struct Block {
    alignas(64) uint8_t weights[kScratchBytes];
    Piece pieces[kMaxPieces];
    size_t piece_count;
};

struct Cursor {
    size_t run;
    size_t step;
};

inline void add_to(int32_t *out, Vector sums) {
    Lanes::store(out, Lanes::add_words(Lanes::load(out), sums));
}

template <class Product>
Vector widened(Vector sum) {
    return Product::kWidens ? Lanes::widen(sum) : sum;
}

template <class Format>
void decode_groups(const Format &format, const uint8_t *packed, size_t groups, uint8_t *out) {
    for (size_t group = 0; group < groups; ++group) {
        // What the next block decodes comes to the second cache while this one is multiplied.
        __builtin_prefetch(packed + 8192, 0, 2);
        for (size_t vector = 0; vector < kVectors; ++vector) {
            const typename Format::Packed fields = format.load(packed);
            packed += Format::kVectorBytes;
#pragma GCC unroll 8
            for (unsigned step = 0; step < Format::kSteps; ++step) {
                Lanes::store(out + step * kStepBytes + vector * Lanes::kBytes,
                             format.centred(format.field(fields, step)));
            }
        }
        out += Format::kSteps * kStepBytes;
    }
}

// Cuts `steps` steps into pieces which end where the 16-bit sums are full.
inline void add_pieces(Block &block, ptrdiff_t begin, size_t steps, size_t budget, size_t &room) {
    while (steps > 0) {
        const size_t now = steps < room ? steps : room;
        room -= now;
        block.pieces[block.piece_count++] = {begin, static_cast<uint32_t>(now), room == 0};
        if (room == 0) room = budget;
        begin += static_cast<ptrdiff_t>(4 * now);
        steps -= now;
    }
}

// Decodes the next steps of a panel, as many as the block holds, and moves packed and cursor on.
template <class Product, class Format>
void decode_block(const Format &format, const Runs &runs, const uint8_t *&packed, Cursor &cursor,
                  Block &block) {
    const size_t run_steps = divide_up(runs.length, Format::kStepElements);
    const size_t budget = Product::kWidens ? format.kCentredBudget : kBlockSteps;
    size_t room = budget, filled = 0;
    block.piece_count = 0;
    while (cursor.run < runs.count) {
        size_t steps = run_steps - cursor.step;
        if (steps > kBlockSteps - filled) {
            steps = (kBlockSteps - filled) / Format::kSteps * Format::kSteps;
        }
        if (steps == 0 || block.piece_count + steps / budget + 2 > kMaxPieces) break;
        const size_t groups = divide_up(steps, Format::kSteps);
        decode_groups(format, packed, groups, block.weights + filled * kStepBytes);
        packed += groups * kVectors * Format::kVectorBytes;
        const ptrdiff_t offset = runs.offsets[cursor.run];
        add_pieces(block,
                   offset * static_cast<ptrdiff_t>(Product::kElementBytes) +
                       static_cast<ptrdiff_t>(4 * cursor.step),
                   steps, budget, room);
        filled += steps;
        cursor.step += steps;
        if (cursor.step == run_steps) cursor = {cursor.run + 1, 0};
    }
    block.pieces[block.piece_count - 1].widen = true;
}

// out += kRows rows times a block. Full 16-bit sums go to `totals`, which is kept in memory on
// purpose (its address is hidden): in registers it would push out the sums of the inner loop, and
// `out` itself has rows a power of two apart, which the processor takes for the left rows.
template <class Product, size_t kRows>
void multiply_tile(const uint8_t *const *rows, const Block &block, int32_t *out, size_t stride) {
    alignas(64) int32_t totals_memory[kRows * kPanelLanes];
    int32_t *totals = totals_memory;
    __asm__("" : "+r"(totals) : : "memory");
    const uint8_t *row[kRows];
    Vector sums[kRows][kVectors];
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
        row[r] = rows[r];
        for (size_t vector = 0; vector < kVectors; ++vector) {
            sums[r][vector] = Lanes::zero();
            Lanes::store(totals + r * kPanelLanes + vector * kVectorLanes, Lanes::zero());
        }
    }
    const uint8_t *weights = block.weights;
    for (const Piece *piece = block.pieces; piece != block.pieces + block.piece_count; ++piece) {
        const ptrdiff_t end = piece->begin + static_cast<ptrdiff_t>(4 * piece->steps);
        for (ptrdiff_t at = piece->begin; at != end; at += 4) {
            const Vector first = Lanes::load(weights);
            const Vector second = Lanes::load(weights + Lanes::kBytes);
            weights += kStepBytes;
#pragma GCC unroll 16
            for (size_t r = 0; r < kRows; ++r) {
                const Vector left = Lanes::broadcast(row[r] + at);
                Product::accumulate(sums[r][0], left, first);
                Product::accumulate(sums[r][1], left, second);
            }
        }
        if (!piece->widen) continue;
#pragma GCC unroll 16
        for (size_t r = 0; r < kRows; ++r) {
            for (size_t vector = 0; vector < kVectors; ++vector) {
                add_to(totals + r * kPanelLanes + vector * kVectorLanes,
                       widened<Product>(sums[r][vector]));
                sums[r][vector] = Lanes::zero();
            }
        }
    }
    for (size_t r = 0; r < kRows; ++r) {
        for (size_t vector = 0; vector < kVectors; ++vector) {
            add_to(out + r * stride + vector * kVectorLanes,
                   Lanes::load(totals + r * kPanelLanes + vector * kVectorLanes));
        }
    }
}

// out += kRows rows times kCount vectors of a panel, beginning at the packed bytes of the first.
template <class Product, class Format, size_t kRows, size_t kCount>
void multiply_fused(const Format &format, const uint8_t *const *rows, const Runs &runs,
                    const uint8_t *packed, int32_t *out, size_t stride) {
    constexpr size_t kGroupSteps = Format::kSteps;
    constexpr size_t kPrefetchBytes = 1536;
    const size_t budget = Product::kWidens ? format.kRawBudget / kGroupSteps : ~size_t{0};
    const uint8_t *row[kRows];
    Vector sums[kRows][kCount], totals[kRows][kCount];
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
        row[r] = rows[r];
        for (size_t c = 0; c < kCount; ++c) sums[r][c] = totals[r][c] = Lanes::zero();
    }
    size_t room = budget;
    for (size_t run = 0; run < runs.count; ++run) {
        ptrdiff_t at = runs.offsets[run] * static_cast<ptrdiff_t>(Product::kElementBytes);
        for (size_t left_groups = groups_of<Format>(runs.length); left_groups > 0;) {
            const size_t now = left_groups < room ? left_groups : room;
            const ptrdiff_t end = at + static_cast<ptrdiff_t>(4 * kGroupSteps * now);
            for (; at != end; at += 4 * kGroupSteps) {
                __builtin_prefetch(packed + kPrefetchBytes);
                typename Format::Packed fields[kCount];
                for (size_t c = 0; c < kCount; ++c) {
                    fields[c] = format.load(packed + c * Format::kVectorBytes);
                }
                packed += kVectors * Format::kVectorBytes;
#pragma GCC unroll 8
                for (unsigned step = 0; step < kGroupSteps; ++step) {
                    Vector weights[kCount];
                    for (size_t c = 0; c < kCount; ++c) {
                        weights[c] = format.field(fields[c], step);
                    }
#pragma GCC unroll 16
                    for (size_t r = 0; r < kRows; ++r) {
                        const Vector left = Lanes::broadcast(row[r] + at + 4 * step);
                        for (size_t c = 0; c < kCount; ++c) {
                            Product::accumulate(sums[r][c], left, weights[c]);
                        }
                    }
                }
            }
            left_groups -= now;
            room -= now;
            if (!Product::kWidens || room > 0) continue;
            room = budget;
#pragma GCC unroll 16
            for (size_t r = 0; r < kRows; ++r) {
                for (size_t c = 0; c < kCount; ++c) {
                    totals[r][c] = Lanes::add_words(totals[r][c], Lanes::widen(sums[r][c]));
                    sums[r][c] = Lanes::zero();
                }
            }
        }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < kRows; ++r) {
        for (size_t c = 0; c < kCount; ++c) {
            const Vector rest = widened<Product>(sums[r][c]);
            add_to(out + r * stride + c * kVectorLanes, Lanes::add_words(totals[r][c], rest));
        }
    }
}

using TileFunction = void (*)(const uint8_t *const *, const Block &, int32_t *, size_t);

template <class Product>
TileFunction tile_function(size_t rows) {
    static constexpr TileFunction kFunctions[] = {
        multiply_tile<Product, 1>, multiply_tile<Product, 2>, multiply_tile<Product, 3>,
        multiply_tile<Product, 4>, multiply_tile<Product, 5>, multiply_tile<Product, 6>,
#if defined(__AVX512F__)
        multiply_tile<Product, 7>, multiply_tile<Product, 8>, multiply_tile<Product, 9>,
        multiply_tile<Product, 10>, multiply_tile<Product, 11>, multiply_tile<Product, 12>,
#endif
    };
    static_assert(sizeof kFunctions / sizeof *kFunctions == kTileRows, "a function for each tile");
    return kFunctions[rows - 1];
}

template <class Product, class Format, size_t kRows, size_t kCount>
void fused_panel(const Format &format, const uint8_t *const *rows, const Runs &runs,
                 const uint8_t *panel, int32_t *out, size_t stride) {
    for (size_t vector = 0; vector < kVectors; vector += kCount) {
        multiply_fused<Product, Format, kRows, kCount>(format, rows, runs,
                                                       panel + vector * Format::kVectorBytes,
                                                       out + vector * kVectorLanes, stride);
    }
}

template <class Format>
using FusedFunction = void (*)(const Format &, const uint8_t *const *, const Runs &,
                               const uint8_t *, int32_t *, size_t);

template <class Product, class Format>
FusedFunction<Format> fused_function(size_t rows) {
    static constexpr FusedFunction<Format> kFunctions[] = {
        fused_panel<Product, Format, 1, 2>, fused_panel<Product, Format, 2, 2>,
        fused_panel<Product, Format, 3, 2>, fused_panel<Product, Format, 4, 1>,
        fused_panel<Product, Format, 5, 1>,
    };
    static_assert(sizeof kFunctions / sizeof *kFunctions == kFusedRows, "a function for each");
    return kFunctions[rows - 1];
}

// The rows of tile `index` when m rows are dealt out evenly to `tiles` tiles.
inline size_t rows_of_tile(size_t m, size_t tiles, size_t index) {
    return m / tiles + (index < m % tiles ? 1 : 0);
}

// out += rows times one panel.
template <class Product, class Format>
void multiply_panel_decoded(const Format &format, const uint8_t *const *rows, size_t m,
                            const Runs &runs, const uint8_t *panel, int32_t *out, size_t stride) {
    Block block;
    Cursor cursor = {0, 0};
    const size_t tiles = divide_up(m, kTileRows);
    while (cursor.run < runs.count) {
        decode_block<Product>(format, runs, panel, cursor, block);
        for (size_t tile = 0, row = 0; tile < tiles; ++tile) {
            const size_t count = rows_of_tile(m, tiles, tile);
            tile_function<Product>(count)(rows + row, block, out + row * stride, stride);
            row += count;
        }
    }
}

// out += at most kFusedRows rows times one panel.
template <class Product, class Format>
void multiply_panel_fused(const Format &format, const uint8_t *const *rows, size_t m,
                          const Runs &runs, const uint8_t *panel, int32_t *out, size_t stride) {
    if (m == 0) return;
    fused_function<Product, Format>(m)(format, rows, runs, panel, out, stride);
}

// What the fields' offset makes each output of a row too large by, with its sign changed. Elements
// behind a run that its last group reads are counted here as they are there, so they cancel.
template <class Format>
int32_t offset_correction(const uint8_t *row, const Runs &runs) {
    const size_t groups = groups_of<Format>(runs.length);
    int32_t sum = 0;
    for (size_t run = 0; run < runs.count; ++run) {
        sum += Lanes::sum_bytes(row + runs.offsets[run], 4 * Format::kSteps * groups);
    }
    return -Format::kOffset * sum;
}

inline void fill_panel(int32_t *out, size_t stride, size_t m, const int32_t *values) {
    for (size_t r = 0; r < m; ++r) {
        for (size_t lane = 0; lane < kPanelLanes; ++lane) out[r * stride + lane] = values[r];
    }
}

template <class Product, class Format>
void multiply_integers(const void *const *rows, size_t m, const Runs &runs, const void *panels,
                       size_t panel_count, int32_t *out, size_t stride) {
    const Format format;
    const uint8_t *const *row_bytes = reinterpret_cast<const uint8_t *const *>(rows);
    const uint8_t *panel = static_cast<const uint8_t *>(panels);
    const size_t panel_bytes = packed_panel_bytes<Format, kPanelLanes>(runs.count, runs.length);
    int32_t corrections[kFusedRows] = {};
    if (Format::kOffset != 0 && m <= kFusedRows) {
        for (size_t r = 0; r < m; ++r) {
            corrections[r] = offset_correction<Format>(row_bytes[r], runs);
        }
    }
    for (size_t p = 0; p < panel_count; ++p, panel += panel_bytes, out += kPanelLanes) {
        if (m <= kFusedRows) {
            fill_panel(out, stride, m, corrections);
            multiply_panel_fused<Product>(format, row_bytes, m, runs, panel, out, stride);
            continue;
        }
        for (size_t r = 0; r < m; ++r) std::memset(out + r * stride, 0, 4 * kPanelLanes);
        multiply_panel_decoded<Product>(format, row_bytes, m, runs, panel, out, stride);
    }
}

template <class Product, class Format>
IntegerKernel integer_kernel() {
    return {kPanelLanes, packed_panel_bytes<Format, kPanelLanes>,
            pack_panels<Format, kPanelLanes>, multiply_integers<Product, Format>};
}

}  // namespace
}  // namespace whit

#endif  // WHIT_INTEGER_MULTIPLY_H
