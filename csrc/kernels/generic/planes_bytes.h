// Bit planes times uint8: up to four planes at a time are put together to bytes, which then go the
// way of all integers. More planes are several passes over the digits, the highest first.
#ifndef WHIT_PLANES_BYTES_H
#define WHIT_PLANES_BYTES_H

#include "kernels/generic/integer_multiply.h"
#include "kernels/generic/planes_pack.h"

namespace whit {
namespace {

static_assert(kPanelLanes * 4 == kVectors * Lanes::kBytes, "a word of a plane in each lane");

// Steps 0, 2, 4, 6 and 1, 3, 5, 7 of two planes as fields of two bits.
struct PlanePair {
    Vector even, odd;
};

inline PlanePair pair_planes(Vector high, Vector low) {
    const Vector mask = Lanes::bytes(0x55);
    const Vector high_even = Lanes::bit_and(high, mask);
    const Vector low_odd = Lanes::bit_and(Lanes::shift_right(low, 1), mask);
    return {Lanes::bit_or(Lanes::bit_and(low, mask), Lanes::add_bytes(high_even, high_even)),
            Lanes::bit_or(low_odd, Lanes::bit_and(high, Lanes::bytes(0xaa)))};
}

// Two vectors of 2-bit fields as two of 4-bit fields: fields 0, 2 of each and fields 1, 3 of each.
struct NibblePair {
    Vector even, odd;
};

inline NibblePair pair_fields(Vector high, Vector low) {
    const Vector mask = Lanes::bytes(0x33);
    const Vector high_even = Lanes::shift_left(Lanes::bit_and(high, mask), 2);
    const Vector low_odd = Lanes::bit_and(Lanes::shift_right(low, 2), mask);
    return {Lanes::bit_or(Lanes::bit_and(low, mask), high_even),
            Lanes::bit_or(low_odd, Lanes::bit_and(high, Lanes::bytes(0xcc)))};
}

// One digit: kPlanes planes, of which the highest is worth -2^(kPlanes - 1) when `is_top`. Only a
// single plane has no sign here, whose sums the caller turns around.
template <size_t kPlanes>
struct PlaneFormat {
    static constexpr size_t kSteps = 8;
    static constexpr size_t kStepElements = 4;
    static constexpr int kOffset = 0;
    static constexpr size_t kVectorBytes = Lanes::kBytes;
    // Whole groups. 255 * 2 * 8 steps * 8 fits 16 bits, 255 * 2 * 8 * 15 would not: therefore the
    // top digit alone may have four planes.
    static constexpr size_t kCentredBudget = kPlanes == 1 ? 64 : kPlanes == 2 ? 16 : 8;
    static constexpr size_t kRawBudget = kCentredBudget;

    size_t plane_stride;  // bytes from a plane to the next lower one
    Vector table;         // field -> value of the digit

    struct Packed {
        Vector fields[kPlanes < 3 ? kPlanes : 4];
    };

    PlaneFormat(size_t stride, bool is_top) : plane_stride(stride) {
        int8_t values[16];
        for (int field = 0; field < 16; ++field) {
            const bool negative = is_top && (field >> (kPlanes - 1) & 1) != 0;
            values[field] = static_cast<int8_t>(negative ? field - (1 << kPlanes) : field);
        }
        table = Lanes::table(values);
    }

    Vector plane(const uint8_t *from, size_t index) const {
        return Lanes::load(from + index * plane_stride);
    }

    Packed load(const uint8_t *from) const {
        Packed packed;
        if constexpr (kPlanes == 1) {
            packed.fields[0] = plane(from, 0);
        } else if constexpr (kPlanes == 2) {
            const PlanePair pair = pair_planes(plane(from, 0), plane(from, 1));
            packed.fields[0] = pair.even;
            packed.fields[1] = pair.odd;
        } else {
            const Vector top = kPlanes == 4 ? plane(from, 0) : Lanes::zero();
            const PlanePair high = pair_planes(top, plane(from, kPlanes - 3));
            const PlanePair low = pair_planes(plane(from, kPlanes - 2), plane(from, kPlanes - 1));
            const NibblePair even = pair_fields(high.even, low.even);
            const NibblePair odd = pair_fields(high.odd, low.odd);
            packed.fields[0] = even.even;  // steps 0, 4
            packed.fields[1] = odd.even;   // steps 1, 5
            packed.fields[2] = even.odd;   // steps 2, 6
            packed.fields[3] = odd.odd;    // steps 3, 7
        }
        return packed;
    }

    Vector field(const Packed &packed, unsigned step) const {
        constexpr unsigned kHeld = sizeof(packed.fields) / sizeof(Vector);
        const Vector shifted = Lanes::shift_right(packed.fields[step % kHeld],
                                                  step / kHeld * kHeld);
        const Vector mask = Lanes::bytes((1 << kHeld) - 1);
        const Vector field = Lanes::bit_and(shifted, mask);
        return kPlanes == 1 ? field : Lanes::lookup(table, field);
    }

    static Vector centred(Vector field) { return field; }
};

template <size_t kPlanes>
void multiply_digit(const uint8_t *const *rows, size_t m, const Runs &runs, const uint8_t *panel,
                    size_t plane_stride, bool is_top, int32_t *out, size_t stride) {
    const PlaneFormat<kPlanes> format(plane_stride, is_top);
    // To put planes together is dear: never do it twice.
    if (m <= kFusedRows) {
        multiply_panel_fused<ByteProduct>(format, rows, m, runs, panel, out, stride);
    } else {
        multiply_panel_decoded<ByteProduct>(format, rows, m, runs, panel, out, stride);
    }
}

// Planes of the digit that begins behind `done` of `used` planes.
inline size_t digit_planes(size_t done, size_t used) {
    const size_t most = done == 0 ? 4 : 3;
    return used - done < most ? used - done : most;
}

inline void shift_panel(int32_t *out, size_t stride, size_t m, size_t bits) {
    for (size_t r = 0; r < m; ++r) {
        for (size_t lane = 0; lane < kPanelLanes; ++lane) {
            const uint32_t value = static_cast<uint32_t>(out[r * stride + lane]);
            out[r * stride + lane] = static_cast<int32_t>(value << bits);
        }
    }
}

inline void negate_panel(int32_t *out, size_t stride, size_t m) {
    for (size_t r = 0; r < m; ++r) {
        for (size_t lane = 0; lane < kPanelLanes; ++lane) {
            out[r * stride + lane] = -out[r * stride + lane];
        }
    }
}

inline void multiply_plane_bytes(const uint8_t *const *rows, size_t m, const Runs &runs,
                                 const void *panels, size_t panel_count, size_t planes,
                                 size_t used, int32_t *out, size_t stride) {
    const size_t plane_stride = plane_bytes<kPanelLanes>(runs.count, runs.length);
    const size_t panel_bytes = plane_panel_bytes<kPanelLanes>(runs.count, runs.length, planes);
    const uint8_t *panel = static_cast<const uint8_t *>(panels);
    for (size_t p = 0; p < panel_count; ++p, panel += panel_bytes, out += kPanelLanes) {
        for (size_t r = 0; r < m; ++r) std::memset(out + r * stride, 0, 4 * kPanelLanes);
        for (size_t done = 0; done < used;) {
            const size_t digit = digit_planes(done, used);
            using Multiply = void (*)(const uint8_t *const *, size_t, const Runs &,
                                      const uint8_t *, size_t, bool, int32_t *, size_t);
            static constexpr Multiply kDigits[] = {multiply_digit<1>, multiply_digit<2>,
                                                   multiply_digit<3>, multiply_digit<4>};
            if (done > 0) shift_panel(out, stride, m, digit);
            kDigits[digit - 1](rows, m, runs, panel + done * plane_stride, plane_stride, done == 0,
                               out, stride);
            done += digit;
        }
        if (used == 1) negate_panel(out, stride, m);
    }
}

}  // namespace
}  // namespace whit

#endif  // WHIT_PLANES_BYTES_H
