// How the packed fields of a panel become vectors of bytes. Included behind the level's `Lanes`.
//
// fields() keeps value + kOffset, which never is negative; centred() takes the offset away.
// The budgets say how many steps a 16-bit sum of pairs can hold: left <= 255, so that a step adds
// at most 255 * 2 * |weight|.
#ifndef WHIT_INTEGER_FORMATS_H
#define WHIT_INTEGER_FORMATS_H

#include "kernels/kernels.h"

namespace whit {
namespace {

struct TernaryFormat {
    static constexpr size_t kSteps = 4;
    static constexpr size_t kStepElements = 4;
    static constexpr int kOffset = 1;
    static constexpr size_t kRawBudget = 32;      // 32 * 255 * 2 * 2 = 32640
    static constexpr size_t kCentredBudget = 64;  // 64 * 255 * 2 * 1 = 32640
    static constexpr size_t kVectorBytes = Lanes::kBytes;
    using Packed = Lanes::Vector;

    static Packed load(const uint8_t *from) { return Lanes::load(from); }
    static Lanes::Vector field(Packed packed, unsigned step) {
        return Lanes::bit_and(Lanes::shift_right(packed, 2 * step), Lanes::bytes(3));
    }
    static Lanes::Vector centred(Lanes::Vector field) {
        return Lanes::subtract_bytes(field, Lanes::bytes(1));
    }
};

struct NibbleFormat {
    static constexpr size_t kSteps = 2;
    static constexpr size_t kStepElements = 4;
    static constexpr int kOffset = 8;
    static constexpr size_t kRawBudget = 4;      // 4 * 255 * 2 * 15 = 30600
    static constexpr size_t kCentredBudget = 8;  // 8 * 255 * 2 * 8 = 32640
    static constexpr size_t kVectorBytes = Lanes::kBytes;
    using Packed = Lanes::Vector;

    static Packed load(const uint8_t *from) { return Lanes::load(from); }
    static Lanes::Vector field(Packed packed, unsigned step) {
        return Lanes::bit_and(Lanes::shift_right(packed, 4 * step), Lanes::bytes(15));
    }
    static Lanes::Vector centred(Lanes::Vector field) {
        return Lanes::subtract_bytes(field, Lanes::bytes(8));
    }
};

// Whole bytes as they are: only for products that sum in 32 bits.
struct ByteFormat {
    static constexpr size_t kSteps = 1;
    static constexpr size_t kStepElements = 4;
    static constexpr int kOffset = 0;
    static constexpr size_t kRawBudget = 1;
    static constexpr size_t kCentredBudget = 1;
    static constexpr size_t kVectorBytes = Lanes::kBytes;
    using Packed = Lanes::Vector;

    static Packed load(const uint8_t *from) { return Lanes::load(from); }
    static Lanes::Vector field(Packed packed, unsigned) { return packed; }
    static Lanes::Vector centred(Lanes::Vector field) { return field; }
};

// Bytes in memory, 16-bit words in the vector: two elements a step, left int16.
struct WideFormat {
    static constexpr size_t kSteps = 1;
    static constexpr size_t kStepElements = 2;
    static constexpr int kOffset = 0;
    static constexpr size_t kRawBudget = 1;
    static constexpr size_t kCentredBudget = 1;
    static constexpr size_t kVectorBytes = Lanes::kBytes / 2;
    using Packed = Lanes::Vector;

    static Packed load(const uint8_t *from) { return Lanes::load_widened(from); }
    static Lanes::Vector field(Packed packed, unsigned) { return packed; }
    static Lanes::Vector centred(Lanes::Vector field) { return field; }
};

// Left int16 times weights of 16 bits, pairs summed in 32 bits.
struct WordProduct {
    static constexpr size_t kElementBytes = 2;
    static constexpr bool kWidens = false;
    static void accumulate(Lanes::Vector &sum, Lanes::Vector left, Lanes::Vector weights) {
        Lanes::accumulate_words(sum, left, weights);
    }
};

// Left uint8 times weights of 8 bits. Where the level has no product of four bytes, pairs are
// summed in 16 bits, and widened before they can overflow.
struct ByteProduct {
    static constexpr size_t kElementBytes = 1;
    static constexpr bool kWidens = !Lanes::kFourByteProduct;
    static void accumulate(Lanes::Vector &sum, Lanes::Vector left, Lanes::Vector weights) {
        Lanes::accumulate_bytes(sum, left, weights);
    }
};

}  // namespace
}  // namespace whit

#endif  // WHIT_INTEGER_FORMATS_H
