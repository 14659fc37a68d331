// Signs times signs with NEON: exclusive or and a popcount of bytes. A panel is 16 outputs.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "../generic/binary_driver.h"

namespace whit {
namespace {

struct CountTile {
    static constexpr size_t kLanes = 16;
    static constexpr size_t kRows = 2;
    static constexpr size_t kVectors = kLanes / 4;

    template <size_t count>
    static void multiply(const uint32_t *const *rows, const uint32_t *panel, size_t words,
                         int32_t *const *out, bool) {
        constexpr size_t kStep = 31;  // a byte counts 8 bits a word
        uint32x4_t sums[count][kVectors];
        for (size_t r = 0; r < count; ++r) {
            for (size_t v = 0; v < kVectors; ++v) sums[r][v] = vdupq_n_u32(0);
        }
        for (size_t begin = 0; begin < words; begin += kStep) {
            const size_t end = kStep < words - begin ? begin + kStep : words;
            uint8x16_t counts[count][kVectors];
            count_bytes<count>(rows, panel, begin, end, counts);
            for (size_t r = 0; r < count; ++r) {
                for (size_t v = 0; v < kVectors; ++v) {
                    sums[r][v] = vpadalq_u16(sums[r][v], vpaddlq_u8(counts[r][v]));
                }
            }
        }
        for (size_t r = 0; r < count; ++r) {
            for (size_t v = 0; v < kVectors; ++v) {
                const int32x4_t before = vld1q_s32(out[r] + 4 * v);
                vst1q_s32(out[r] + 4 * v,
                          vmlsq_n_s32(before, vreinterpretq_s32_u32(sums[r][v]), 2));
            }
        }
    }

  private:
    template <size_t count>
    static void count_bytes(const uint32_t *const *rows, const uint32_t *panel, size_t begin,
                            size_t end, uint8x16_t (*counts)[kVectors]) {
        for (size_t r = 0; r < count; ++r) {
            for (size_t v = 0; v < kVectors; ++v) counts[r][v] = vdupq_n_u8(0);
        }
        for (size_t w = begin; w < end; ++w) {
            uint32x4_t weights[kVectors];
            for (size_t v = 0; v < kVectors; ++v) {
                weights[v] = vld1q_u32(panel + w * kLanes + 4 * v);
            }
            for (size_t r = 0; r < count; ++r) {
                const uint32x4_t word = vld1q_dup_u32(rows[r] + w);
                for (size_t v = 0; v < kVectors; ++v) {
                    const uint32x4_t unequal = veorq_u32(word, weights[v]);
                    counts[r][v] = vaddq_u8(counts[r][v], vcntq_u8(vreinterpretq_u8_u32(unequal)));
                }
            }
        }
    }
};

}  // namespace

void fill_binary_neon(KernelTable &table) {
    table.binary_lanes = CountTile::kLanes;
    table.binary[0] = {"cnt", multiply_binary<CountTile>};
    for (size_t i = 1; i < kMaxBinaryKernels; ++i) table.binary[i] = {nullptr, nullptr};
}

}  // namespace whit

#endif  // defined(__aarch64__)
