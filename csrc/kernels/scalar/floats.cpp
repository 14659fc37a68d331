// Float kernels for any processor: vectors of four that the compiler maps to what it has.
#include "generic/floats_attributes.h"
#include "kernels.h"

namespace whit {
namespace {

typedef float Vector __attribute__((vector_size(16)));
typedef uint32_t Places __attribute__((vector_size(16)));

constexpr size_t kWidth = 4;
constexpr size_t kPanelVectors = 2;
constexpr size_t kTileRows = 4;
constexpr size_t kTilePanels = 1;
constexpr size_t kTileSums = 8;
constexpr size_t kSelectPanels = 2;

WHIT_INLINE Vector zeros() { return Vector{0.0f, 0.0f, 0.0f, 0.0f}; }
WHIT_INLINE Vector load(const float *from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}
WHIT_INLINE void store(float *to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }
WHIT_INLINE Vector broadcast(const float *from) { return Vector{*from, *from, *from, *from}; }
WHIT_INLINE Vector add(Vector a, Vector b) { return a + b; }
WHIT_INLINE Vector multiply_add(Vector a, Vector b, Vector sum) { return sum + a * b; }
WHIT_INLINE void accumulate(Vector &sum, Vector a, Vector b) { sum += a * b; }
WHIT_INLINE void accumulate_one(float &sum, float a, float b) { sum += a * b; }
// The second operand where one is not a number.
WHIT_INLINE Vector maximum(Vector floor, Vector v) {
    WHIT_UNROLL
    for (size_t i = 0; i < kWidth; ++i) v[i] = floor[i] > v[i] ? floor[i] : v[i];
    return v;
}
WHIT_INLINE void prefetch(const float *from) { __builtin_prefetch(from); }
WHIT_INLINE void prefetch_near(const float *from) { __builtin_prefetch(from); }
WHIT_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

WHIT_INLINE Vector load_part(const float *from, size_t count) {
    Vector v = zeros();
    for (size_t i = 0; i < count; ++i) v[i] = from[i];
    return v;
}
WHIT_INLINE void store_part(float *to, Vector v, size_t count) {
    for (size_t i = 0; i < count; ++i) to[i] = v[i];
}

WHIT_INLINE Places load_places(const float *from) {
    Places places;
    __builtin_memcpy(&places, from, sizeof places);
    return places;
}
WHIT_INLINE Places next_places(Places places) { return places >> 2; }
WHIT_INLINE Vector broadcast_group(const float *from) { return load(from); }
WHIT_INLINE Vector select(Vector group, Places places) {
    Vector v;
    WHIT_UNROLL
    for (size_t i = 0; i < kWidth; ++i) v[i] = group[places[i] & 3];
    return v;
}

}  // namespace
}  // namespace whit

#include "generic/floats_dense.h"
#include "generic/floats_depthwise.h"
#include "generic/floats_sparse.h"
#include "generic/floats_two_four.h"

namespace whit {

void fill_floats_scalar(KernelTable &table) {
    table.floats = {kLanes, multiply_floats};
    table.two_four = {kLanes, two_four_panel_bytes, pack_two_four, multiply_two_four};
    table.sparse = {multiply_sparse, multiply_sparse_vector};
    table.depthwise = {multiply_depthwise};
}

}  // namespace whit
