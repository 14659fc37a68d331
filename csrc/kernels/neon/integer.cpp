// Integers and bit planes with NEON of the first 64-bit ARM processors (no dot product of bytes).
#include "kernels/kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace whit {
namespace {

struct Lanes {
    using Vector = uint8x16_t;
    static constexpr size_t kBytes = 16;
    static constexpr bool kFourByteProduct = false;
    static constexpr size_t kTileRows = 6;

    static int16x8_t words(Vector value) { return vreinterpretq_s16_u8(value); }
    static int32x4_t longs(Vector value) { return vreinterpretq_s32_u8(value); }

    static Vector zero() { return vdupq_n_u8(0); }
    static Vector load(const void *from) { return vld1q_u8(static_cast<const uint8_t *>(from)); }
    static Vector load_widened(const void *from) {
        return vreinterpretq_u8_s16(vmovl_s8(vld1_s8(static_cast<const int8_t *>(from))));
    }
    static void store(void *to, Vector value) { vst1q_u8(static_cast<uint8_t *>(to), value); }
    static Vector broadcast(const uint8_t *four) {
        uint32_t value;
        __builtin_memcpy(&value, four, 4);
        return vreinterpretq_u8_u32(vdupq_n_u32(value));
    }
    static Vector bytes(int value) { return vdupq_n_u8(static_cast<uint8_t>(value)); }
    static Vector table(const int8_t *sixteen) { return vreinterpretq_u8_s8(vld1q_s8(sixteen)); }
    static Vector lookup(Vector table, Vector index) { return vqtbl1q_u8(table, index); }
    static Vector shift_right(Vector value, unsigned bits) {
        return vshlq_u8(value, vdupq_n_s8(static_cast<int8_t>(-static_cast<int>(bits))));
    }
    static Vector shift_left(Vector value, unsigned bits) {
        return vshlq_u8(value, vdupq_n_s8(static_cast<int8_t>(bits)));
    }
    static Vector bit_and(Vector a, Vector b) { return vandq_u8(a, b); }
    static Vector bit_or(Vector a, Vector b) { return vorrq_u8(a, b); }
    static Vector add_bytes(Vector a, Vector b) { return vaddq_u8(a, b); }
    static Vector subtract_bytes(Vector a, Vector b) { return vsubq_u8(a, b); }
    static Vector add_words(Vector a, Vector b) {
        return vreinterpretq_u8_s32(vaddq_s32(longs(a), longs(b)));
    }
    static Vector widen(Vector pairs) { return vreinterpretq_u8_s32(vpaddlq_s16(words(pairs))); }
    static void accumulate_bytes(Vector &sum, Vector left, Vector weights) {
        const int16x8_t left_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(left)));
        const int16x8_t left_high = vreinterpretq_s16_u16(vmovl_high_u8(left));
        const int8x16_t signed_weights = vreinterpretq_s8_u8(weights);
        const int16x8_t low = vmulq_s16(left_low, vmovl_s8(vget_low_s8(signed_weights)));
        const int16x8_t high = vmulq_s16(left_high, vmovl_high_s8(signed_weights));
        sum = vreinterpretq_u8_s16(vaddq_s16(words(sum), vpaddq_s16(low, high)));
    }
    static void accumulate_words(Vector &sum, Vector left, Vector weights) {
        const int32x4_t low = vmull_s16(vget_low_s16(words(left)), vget_low_s16(words(weights)));
        const int32x4_t high = vmull_high_s16(words(left), words(weights));
        sum = vreinterpretq_u8_s32(vaddq_s32(longs(sum), vpaddq_s32(low, high)));
    }
    // count: a multiple of 8.
    static int32_t sum_bytes(const uint8_t *from, size_t count) {
        int32_t sum = 0;
        for (size_t i = 0; i < count; i += 8) sum += vaddlv_u8(vld1_u8(from + i));
        return sum;
    }

    using Floats = float32x4_t;
    static constexpr size_t kLookupBits = 2;

    static Floats float_zero() { return vdupq_n_f32(0.0f); }
    static Floats float_load(const float *from) { return vld1q_f32(from); }
    static void float_store(float *to, Floats value) { vst1q_f32(to, value); }
    static Floats float_broadcast(const float *value) { return vld1q_dup_f32(value); }
    static Floats float_add(Floats a, Floats b) { return vaddq_f32(a, b); }
    static Floats float_subtract(Floats a, Floats b) { return vsubq_f32(a, b); }
    static Floats float_multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
    static Floats float_fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
    static Floats float_table(const float *four) { return vld1q_f32(four); }
    // The two lowest bits of each lane choose four bytes of the table.
    static Floats float_lookup(Floats table, Vector index) {
        const uint32x4_t chosen = vandq_u32(vreinterpretq_u32_u8(index), vdupq_n_u32(3));
        const uint32x4_t offsets =
            vmlaq_u32(vdupq_n_u32(0x03020100), chosen, vdupq_n_u32(0x04040404));
        return vreinterpretq_f32_u8(
            vqtbl1q_u8(vreinterpretq_u8_f32(table), vreinterpretq_u8_u32(offsets)));
    }
    static Vector shift_words(Vector value, unsigned bits) {
        const int32x4_t right = vdupq_n_s32(-static_cast<int32_t>(bits));
        return vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(value), right));
    }
    // Byte `index` of each lane, signed.
    static Floats float_of_byte(Vector bytes, unsigned index) {
        const int32x4_t left = vdupq_n_s32(static_cast<int32_t>(24 - 8 * index));
        return vcvtq_f32_s32(vshrq_n_s32(vshlq_s32(longs(bytes), left), 24));
    }
};

}  // namespace
}  // namespace whit

#include "kernels/generic/integer_level.h"

namespace whit {

void fill_integer_neon(KernelTable &table) { fill_integers(table); }

}  // namespace whit

#endif  // defined(__aarch64__)
