// Float kernels for AVX2 with fused multiply-add: the vectors; the algorithms are in generic/.
#include <immintrin.h>

#include "generic/floats_attributes.h"
#include "kernels.h"

namespace whit {
namespace {

using Vector = __m256;
using Places = __m256i;

constexpr size_t kWidth = 8;
constexpr size_t kPanelVectors = 2;
// Twelve sums, two vectors of weights and a broadcast value: 15 of 16 registers.
constexpr size_t kTileRows = 6;
constexpr size_t kTilePanels = 1;
constexpr size_t kTileSums = 12;
constexpr size_t kSelectPanels = 4;

WHIT_INLINE Vector zeros() { return _mm256_setzero_ps(); }
WHIT_INLINE Vector load(const float *from) { return _mm256_loadu_ps(from); }
WHIT_INLINE void store(float *to, Vector v) { _mm256_storeu_ps(to, v); }
WHIT_INLINE Vector broadcast(const float *from) { return _mm256_broadcast_ss(from); }
WHIT_INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
WHIT_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) {
    return _mm256_fmadd_ps(a, b, sum);
}
// Assembly, because gcc overwrites a factor where it may and then runs out of registers.
WHIT_INLINE void accumulate(Vector &sum, Vector a, Vector b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
}
WHIT_INLINE void accumulate_one(float &sum, float a, float b) { sum = __builtin_fmaf(a, b, sum); }
// The second operand where one is not a number.
WHIT_INLINE Vector maximum(Vector floor, Vector v) { return _mm256_max_ps(floor, v); }
// To the second cache: what is fetched is needed later than what is used now.
WHIT_INLINE void prefetch(const float *from) {
    _mm_prefetch(reinterpret_cast<const char *>(from), _MM_HINT_T1);
}
WHIT_INLINE void prefetch_near(const float *from) {
    _mm_prefetch(reinterpret_cast<const char *>(from), _MM_HINT_T0);
}
// Keeps the compiler from loading far ahead, for which it would need more registers.
WHIT_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

WHIT_INLINE __m256i first_lanes(size_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}
WHIT_INLINE Vector load_part(const float *from, size_t count) {
    return _mm256_maskload_ps(from, first_lanes(count));
}
WHIT_INLINE void store_part(float *to, Vector v, size_t count) {
    _mm256_maskstore_ps(to, first_lanes(count), v);
}

WHIT_INLINE Places load_places(const float *from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
}
WHIT_INLINE Places next_places(Places places) { return _mm256_srli_epi32(places, 2); }
WHIT_INLINE Vector broadcast_group(const float *from) {
    return _mm256_broadcast_ps(reinterpret_cast<const __m128 *>(from));
}
WHIT_INLINE Vector select(Vector group, Places places) {
    return _mm256_permutevar_ps(group, places);
}

}  // namespace
}  // namespace whit

#include "generic/floats_dense.h"
#include "generic/floats_depthwise.h"
#include "generic/floats_sparse.h"
#include "generic/floats_two_four.h"

namespace whit {

void fill_floats_avx2(KernelTable &table) {
    table.floats = {kLanes, multiply_floats};
    table.two_four = {kLanes, two_four_panel_bytes, pack_two_four, multiply_two_four};
    table.sparse = {multiply_sparse, multiply_sparse_vector};
    table.depthwise = {multiply_depthwise};
}

}  // namespace whit
