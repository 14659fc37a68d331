// Float kernels for AVX-512: the vectors; the algorithms are in generic/.
#if defined(__GNUC__) && !defined(__clang__)  // gcc warns of its own header's undefined vectors
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "generic/floats_attributes.h"
#include "kernels.h"

namespace whit {
namespace {

using Vector = __m512;
using Places = __m512i;

// Panels of one vector waste little where a layer has few outputs; tiles take two panels.
constexpr size_t kWidth = 16;
constexpr size_t kPanelVectors = 1;
constexpr size_t kTileRows = 8;
constexpr size_t kTilePanels = 2;
constexpr size_t kTileSums = 16;
constexpr size_t kSelectPanels = 4;

WHIT_INLINE Vector zeros() { return _mm512_setzero_ps(); }
WHIT_INLINE Vector load(const float *from) { return _mm512_loadu_ps(from); }
WHIT_INLINE void store(float *to, Vector v) { _mm512_storeu_ps(to, v); }
WHIT_INLINE Vector broadcast(const float *from) { return _mm512_set1_ps(*from); }
WHIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
WHIT_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) {
    return _mm512_fmadd_ps(a, b, sum);
}
// Assembly, because gcc overwrites a factor where it may and copies registers for it.
WHIT_INLINE void accumulate(Vector &sum, Vector a, Vector b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
WHIT_INLINE void accumulate_one(float &sum, float a, float b) { sum = __builtin_fmaf(a, b, sum); }
// The second operand where one is not a number.
WHIT_INLINE Vector maximum(Vector floor, Vector v) { return _mm512_max_ps(floor, v); }
// To the second cache: what is fetched is needed later than what is used now.
WHIT_INLINE void prefetch(const float *from) {
    _mm_prefetch(reinterpret_cast<const char *>(from), _MM_HINT_T1);
}
WHIT_INLINE void prefetch_near(const float *from) {
    _mm_prefetch(reinterpret_cast<const char *>(from), _MM_HINT_T0);
}
// Keeps the compiler from loading far ahead, for which it would need more registers.
WHIT_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

WHIT_INLINE __mmask16 first_lanes(size_t count) {
    return static_cast<__mmask16>((1u << count) - 1);
}
WHIT_INLINE Vector load_part(const float *from, size_t count) {
    return _mm512_maskz_loadu_ps(first_lanes(count), from);
}
WHIT_INLINE void store_part(float *to, Vector v, size_t count) {
    _mm512_mask_storeu_ps(to, first_lanes(count), v);
}

WHIT_INLINE Places load_places(const float *from) { return _mm512_loadu_si512(from); }
WHIT_INLINE Places next_places(Places places) { return _mm512_srli_epi32(places, 2); }
WHIT_INLINE Vector broadcast_group(const float *from) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(from));
}
WHIT_INLINE Vector select(Vector group, Places places) {
    return _mm512_permutevar_ps(group, places);
}

}  // namespace
}  // namespace whit

#include "generic/floats_dense.h"
#include "generic/floats_depthwise.h"
#include "generic/floats_sparse.h"
#include "generic/floats_two_four.h"

namespace whit {

void fill_floats_avx512bw(KernelTable &table) {
    table.floats = {kLanes, multiply_floats};
    table.two_four = {kLanes, two_four_panel_bytes, pack_two_four, multiply_two_four};
    table.sparse = {multiply_sparse, multiply_sparse_vector};
    table.depthwise = {multiply_depthwise};
}

}  // namespace whit
