// Signs times signs in plain C++, for any processor. The loops over lanes are written so that the
// compiler may use whatever vectors the plain processor has; a popcount instruction it has not
// (x86-64 without flags), so bits are counted by adding up fields of growing width.
#include "../generic/binary_driver.h"

namespace whit {
namespace {

constexpr uint32_t kFields2 = 0x55555555u, kFields4 = 0x33333333u, kFields8 = 0x0F0F0F0Fu;

struct ScalarTile {
    static constexpr size_t kLanes = 8;
    static constexpr size_t kRows = 1;

    // Bit counts of each four bits.
    static uint32_t count_nibbles(uint32_t bits) {
        bits -= (bits >> 1) & kFields2;
        return (bits & kFields4) + ((bits >> 2) & kFields4);
    }

    static uint32_t bytes_of_nibbles(uint32_t counts) {
        return (counts & kFields8) + ((counts >> 4) & kFields8);
    }

    // A byte counts up to 8 bits a word: 30 words, three at a time (3 * 4 fits half a byte).
    static void count_some(const uint32_t *row, const uint32_t *panel, size_t words,
                           uint32_t *bytes) {
        for (size_t lane = 0; lane < kLanes; ++lane) bytes[lane] = 0;
        size_t w = 0;
        for (; w + 3 <= words; w += 3) {
            const uint32_t *at = panel + w * kLanes;
            for (size_t lane = 0; lane < kLanes; ++lane) {
                bytes[lane] += bytes_of_nibbles(count_nibbles(row[w] ^ at[lane]) +
                                                count_nibbles(row[w + 1] ^ at[lane + kLanes]) +
                                                count_nibbles(row[w + 2] ^ at[lane + 2 * kLanes]));
            }
        }
        for (; w < words; ++w) {
            for (size_t lane = 0; lane < kLanes; ++lane) {
                bytes[lane] += bytes_of_nibbles(count_nibbles(row[w] ^ panel[w * kLanes + lane]));
            }
        }
    }

    template <size_t count>
    static void multiply(const uint32_t *const *rows, const uint32_t *panel, size_t words,
                         int32_t *const *out, bool) {
        constexpr size_t kStep = 30;
        for (size_t begin = 0; begin < words; begin += kStep) {
            uint32_t bytes[kLanes];
            count_some(rows[0] + begin, panel + begin * kLanes,
                       kStep < words - begin ? kStep : words - begin, bytes);
            for (size_t lane = 0; lane < kLanes; ++lane) {
                const uint32_t even = bytes[lane] & 0x00FF00FFu;
                const uint32_t pairs = even + ((bytes[lane] >> 8) & 0x00FF00FFu);
                out[0][lane] -= 2 * static_cast<int32_t>((pairs & 0xFFFFu) + (pairs >> 16));
            }
        }
    }
};

}  // namespace

void fill_binary_scalar(KernelTable &table) {
    table.binary_lanes = ScalarTile::kLanes;
    table.binary[0] = {"fields", multiply_binary<ScalarTile>};
    for (size_t i = 1; i < kMaxBinaryKernels; ++i) table.binary[i] = {nullptr, nullptr};
}

}  // namespace whit
