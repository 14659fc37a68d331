// Float kernels for NEON (armv8-a): the vectors; the algorithms are in generic/.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "generic/floats_attributes.h"
#include "kernels.h"

namespace whit {
namespace {

using Vector = float32x4_t;
using Places = uint32x4_t;

constexpr size_t kWidth = 4;
constexpr size_t kPanelVectors = 4;
// Twenty-four sums, four vectors of weights and a broadcast value: 29 of 32 registers.
constexpr size_t kTileRows = 6;
constexpr size_t kTilePanels = 1;
constexpr size_t kTileSums = 24;
constexpr size_t kSelectPanels = 2;

WHIT_INLINE Vector zeros() { return vdupq_n_f32(0.0f); }
WHIT_INLINE Vector load(const float *from) { return vld1q_f32(from); }
WHIT_INLINE void store(float *to, Vector v) { vst1q_f32(to, v); }
WHIT_INLINE Vector broadcast(const float *from) { return vld1q_dup_f32(from); }
WHIT_INLINE Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
WHIT_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) { return vfmaq_f32(sum, a, b); }
WHIT_INLINE void accumulate(Vector &sum, Vector a, Vector b) { sum = vfmaq_f32(sum, a, b); }
WHIT_INLINE void accumulate_one(float &sum, float a, float b) { sum = __builtin_fmaf(a, b, sum); }
// Not a number where one is not.
WHIT_INLINE Vector maximum(Vector floor, Vector v) { return vmaxq_f32(floor, v); }
// To the second cache: what is fetched is needed later than what is used now.
WHIT_INLINE void prefetch(const float *from) { __builtin_prefetch(from, 0, 2); }
WHIT_INLINE void prefetch_near(const float *from) { __builtin_prefetch(from, 0, 3); }
// Keeps the compiler from loading far ahead, for which it would need more registers.
WHIT_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

WHIT_INLINE Vector load_part(const float *from, size_t count) {
    float values[kWidth] = {};
    for (size_t i = 0; i < count; ++i) values[i] = from[i];
    return vld1q_f32(values);
}
WHIT_INLINE void store_part(float *to, Vector v, size_t count) {
    float values[kWidth];
    vst1q_f32(values, v);
    for (size_t i = 0; i < count; ++i) to[i] = values[i];
}

WHIT_INLINE Places load_places(const float *from) {
    return vreinterpretq_u32_f32(vld1q_f32(from));
}
WHIT_INLINE Places next_places(Places places) { return vshrq_n_u32(places, 2); }
WHIT_INLINE Vector broadcast_group(const float *from) { return vld1q_f32(from); }
// The bytes of the value at place p are 4 p .. 4 p + 3.
WHIT_INLINE Vector select(Vector group, Places places) {
    const uint32x4_t place = vandq_u32(places, vdupq_n_u32(3));
    const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), place, vdupq_n_u32(0x04040404));
    return vreinterpretq_f32_u8(
        vqtbl1q_u8(vreinterpretq_u8_f32(group), vreinterpretq_u8_u32(bytes)));
}

}  // namespace
}  // namespace whit

#include "generic/floats_dense.h"
#include "generic/floats_depthwise.h"
#include "generic/floats_sparse.h"
#include "generic/floats_two_four.h"

namespace whit {

void fill_floats_neon(KernelTable &table) {
    table.floats = {kLanes, multiply_floats};
    table.two_four = {kLanes, two_four_panel_bytes, pack_two_four, multiply_two_four};
    table.sparse = {multiply_sparse, multiply_sparse_vector};
    table.depthwise = {multiply_depthwise};
}

}  // namespace whit
#endif  // defined(__aarch64__)
