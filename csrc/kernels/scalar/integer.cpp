// Integers and bit planes on any processor. Weights of a chunk of a run become 16-bit words on the
// stack, the left values too, and then all kernels are one loop which compilers vectorise.
#include <cstring>

#include "kernels/kernels.h"

namespace whit {
namespace {

constexpr size_t kLanes = 4;
constexpr size_t kChunk = 768;  // elements; a multiple of every group
constexpr size_t kGroupBytes = 16;

size_t divide_up(size_t value, size_t by) { return (value + by - 1) / by; }

// Panels: [run][lane][group][16 bytes]; a byte has kFields fields, and field f of byte i is element
// 16 * f + i of the group. Fields hold value + kOffset.
template <size_t kFields, int kOffset>
struct Fields {
    static constexpr size_t kGroup = kGroupBytes * kFields;
    static constexpr unsigned kBits = 8 / kFields;
    static constexpr unsigned kMask = (1u << kBits) - 1;

    static size_t lane_bytes(size_t run_length) {
        return divide_up(run_length, kGroup) * kGroupBytes;
    }
    static size_t panel_bytes(size_t run_count, size_t run_length) {
        return run_count * lane_bytes(run_length) * kLanes;  // lanes make a multiple of 64
    }

    static void pack(const int8_t *values, size_t n, size_t run_count, size_t run_length,
                     void *out) {
        const size_t panel = panel_bytes(run_count, run_length);
        std::memset(out, 0, divide_up(n, kLanes) * panel);
        for (size_t c = 0; c < n; ++c) {
            uint8_t *lane = static_cast<uint8_t *>(out) + c / kLanes * panel +
                            c % kLanes * lane_bytes(run_length);
            for (size_t run = 0; run < run_count; ++run) {
                for (size_t k = 0; k < run_length; ++k, ++values) {
                    const unsigned field = static_cast<unsigned>(*values + kOffset) & kMask;
                    uint8_t &byte = lane[k / kGroup * kGroupBytes + k % kGroupBytes];
                    byte = static_cast<uint8_t>(
                        byte | field << (k % kGroup / kGroupBytes * kBits));
                }
                lane += kLanes * lane_bytes(run_length);
            }
        }
    }

    // `begin` is a multiple of the group. Decodes whole groups.
    static void decode(const uint8_t *lane, size_t begin, size_t count, int16_t *out) {
        lane += begin / kGroup * kGroupBytes;
        for (size_t k = 0; k < count; k += kGroup, lane += kGroupBytes, out += kGroup) {
            for (size_t field = 0; field < kFields; ++field) {
                for (size_t i = 0; i < kGroupBytes; ++i) {
                    int value = static_cast<int8_t>(lane[i]);
                    if (kFields > 1) {
                        value = static_cast<int>(lane[i] >> (field * kBits) & kMask) - kOffset;
                    }
                    out[field * kGroupBytes + i] = static_cast<int16_t>(value);
                }
            }
        }
    }
};

using TernaryFields = Fields<4, 1>;
using NibbleFields = Fields<2, 8>;
using ByteFields = Fields<1, 0>;

// Sums wrap as the vector kernels' do, hence without a sign.
void add_dot_products(const int16_t *left, const int16_t (*weights)[kChunk], size_t count,
                      int32_t *out) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
        uint32_t sum = static_cast<uint32_t>(out[lane]);
        for (size_t k = 0; k < count; ++k) {
            sum += static_cast<uint32_t>(left[k] * weights[lane][k]);
        }
        out[lane] = static_cast<int32_t>(sum);
    }
}

template <class Left>
void multiply_chunk(const Left *const *rows, size_t m, ptrdiff_t at,
                    const int16_t (*weights)[kChunk], size_t count, int32_t *out, size_t stride) {
    int16_t left[kChunk];
    for (size_t r = 0; r < m; ++r) {
        for (size_t k = 0; k < count; ++k) left[k] = static_cast<int16_t>(rows[r][at + k]);
        add_dot_products(left, weights, count, out + r * stride);
    }
}

// Calls chunk(run, first element, elements, elements before the run's panel) for all of a row.
template <class Chunk>
void for_each_chunk(const Runs &runs, Chunk chunk) {
    for (size_t run = 0; run < runs.count; ++run) {
        for (size_t begin = 0; begin < runs.length; begin += kChunk) {
            const size_t rest = runs.length - begin;
            chunk(run, begin, rest < kChunk ? rest : kChunk);
        }
    }
}

void clear(int32_t *out, size_t m, size_t stride) {
    for (size_t r = 0; r < m; ++r) std::memset(out + r * stride, 0, kLanes * sizeof *out);
}

template <class Left, class Format>
void multiply(const void *const *rows, size_t m, const Runs &runs, const void *panels,
              size_t panel_count, int32_t *out, size_t stride) {
    const Left *const *left = reinterpret_cast<const Left *const *>(rows);
    const size_t lane_bytes = Format::lane_bytes(runs.length);
    const uint8_t *panel = static_cast<const uint8_t *>(panels);
    for (size_t p = 0; p < panel_count; ++p, out += kLanes) {
        clear(out, m, stride);
        for_each_chunk(runs, [&](size_t run, size_t begin, size_t count) {
            int16_t weights[kLanes][kChunk];
            for (size_t lane = 0; lane < kLanes; ++lane) {
                Format::decode(panel + (run * kLanes + lane) * lane_bytes, begin, count,
                               weights[lane]);
            }
            const ptrdiff_t at = runs.offsets[run] + static_cast<ptrdiff_t>(begin);
            multiply_chunk(left, m, at, weights, count, out, stride);
        });
        panel += Format::panel_bytes(runs.count, runs.length);
    }
}

template <class Left, class Format>
constexpr IntegerKernel kernel() {
    return {kLanes, Format::panel_bytes, Format::pack, multiply<Left, Format>};
}

// Planes: [plane, the highest first][run][lane][word] uint16, bit i for element i of the word.
constexpr size_t kWordBits = 16;

size_t run_words(size_t run_length) { return divide_up(run_length, kWordBits); }

size_t plane_words(size_t run_count, size_t run_length) {
    return run_count * kLanes * run_words(run_length);
}

size_t planes_panel_bytes(size_t run_count, size_t run_length, size_t planes) {
    return divide_up(planes * plane_words(run_count, run_length) * sizeof(uint16_t), 64) * 64;
}

void pack_planes(const int16_t *values, size_t n, size_t run_count, size_t run_length,
                 size_t planes, void *out) {
    const size_t panel_bytes = planes_panel_bytes(run_count, run_length, planes);
    const size_t words = run_words(run_length);
    std::memset(out, 0, divide_up(n, kLanes) * panel_bytes);
    for (size_t i = 0; i < n * run_count * run_length; ++i) {
        const size_t k = i % run_length, run = i / run_length % run_count;
        const size_t c = i / run_length / run_count;
        uint16_t *word = reinterpret_cast<uint16_t *>(static_cast<uint8_t *>(out) +
                                                      c / kLanes * panel_bytes) +
                         (run * kLanes + c % kLanes) * words + k / kWordBits;
        for (size_t plane = 0; plane < planes; ++plane) {
            const unsigned bit = static_cast<uint16_t>(values[i]) >> (planes - 1 - plane) & 1u;
            *word = static_cast<uint16_t>(*word | bit << k % kWordBits);
            word += plane_words(run_count, run_length);
        }
    }
}

// Words of one lane from element `begin` on, of the highest `used` planes.
void decode_planes(const uint16_t *words, size_t plane_stride, size_t used, size_t begin,
                   size_t count, int16_t *out) {
    words += begin / kWordBits;
    for (size_t k = 0; k < count; k += kWordBits, ++words, out += kWordBits) {
        uint16_t values[kWordBits];
        for (size_t i = 0; i < kWordBits; ++i) {
            values[i] = static_cast<uint16_t>(0u - (*words >> i & 1u));  // the sign
        }
        for (size_t plane = 1; plane < used; ++plane) {
            const unsigned word = words[plane * plane_stride];
            for (size_t i = 0; i < kWordBits; ++i) {
                values[i] = static_cast<uint16_t>(2u * values[i] + (word >> i & 1u));
            }
        }
        std::memcpy(out, values, sizeof values);
    }
}

struct PlanesPanel {
    const uint16_t *words;
    size_t plane_stride, used;

    void decode(const Runs &runs, size_t run, size_t begin, size_t count,
                int16_t (*weights)[kChunk]) const {
        for (size_t lane = 0; lane < kLanes; ++lane) {
            decode_planes(words + (run * kLanes + lane) * run_words(runs.length), plane_stride,
                          used, begin, count, weights[lane]);
        }
    }
};

void multiply_plane_bytes(const uint8_t *const *rows, size_t m, const Runs &runs,
                          const void *panels, size_t panel_count, size_t planes, size_t used,
                          int32_t *out, size_t stride) {
    const uint8_t *bytes = static_cast<const uint8_t *>(panels);
    for (size_t p = 0; p < panel_count; ++p, out += kLanes) {
        const PlanesPanel panel = {reinterpret_cast<const uint16_t *>(bytes),
                                   plane_words(runs.count, runs.length), used};
        clear(out, m, stride);
        for_each_chunk(runs, [&](size_t run, size_t begin, size_t count) {
            int16_t weights[kLanes][kChunk];
            panel.decode(runs, run, begin, count, weights);
            const ptrdiff_t at = runs.offsets[run] + static_cast<ptrdiff_t>(begin);
            multiply_chunk(rows, m, at, weights, count, out, stride);
        });
        bytes += planes_panel_bytes(runs.count, runs.length, planes);
    }
}

void multiply_floats_chunk(const float *const *rows, size_t m, ptrdiff_t at,
                           const int16_t (*weights)[kChunk], size_t count, float *out,
                           size_t stride) {
    for (size_t r = 0; r < m; ++r) {
        const float *left = rows[r] + at;
        float sums[kLanes] = {};
        for (size_t k = 0; k < count; ++k) {
            for (size_t lane = 0; lane < kLanes; ++lane) {
                sums[lane] += left[k] * static_cast<float>(weights[lane][k]);
            }
        }
        for (size_t lane = 0; lane < kLanes; ++lane) out[r * stride + lane] += sums[lane];
    }
}

void multiply_plane_floats(const float *const *rows, size_t m, const Runs &runs,
                           const void *panels, size_t panel_count, size_t planes, size_t used,
                           float *out, size_t stride) {
    const uint8_t *bytes = static_cast<const uint8_t *>(panels);
    for (size_t p = 0; p < panel_count; ++p, out += kLanes) {
        const PlanesPanel panel = {reinterpret_cast<const uint16_t *>(bytes),
                                   plane_words(runs.count, runs.length), used};
        for (size_t r = 0; r < m; ++r) std::memset(out + r * stride, 0, kLanes * sizeof *out);
        for_each_chunk(runs, [&](size_t run, size_t begin, size_t count) {
            int16_t weights[kLanes][kChunk];
            panel.decode(runs, run, begin, count, weights);
            const ptrdiff_t at = runs.offsets[run] + static_cast<ptrdiff_t>(begin);
            multiply_floats_chunk(rows, m, at, weights, count, out, stride);
        });
        bytes += planes_panel_bytes(runs.count, runs.length, planes);
    }
}

}  // namespace

// No int8: where bytes have no fast product of their own, the engine takes `wide`.
void fill_integer_scalar(KernelTable &table) {
    table.ternary = kernel<uint8_t, TernaryFields>();
    table.int4 = kernel<uint8_t, NibbleFields>();
    table.wide = kernel<int16_t, ByteFields>();
    table.planes = {kLanes, planes_panel_bytes, pack_planes, multiply_plane_bytes,
                    multiply_plane_floats};
}

}  // namespace whit
