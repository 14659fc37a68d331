// Signs times signs with AVX-512 VPOPCNTDQ: exclusive or, popcount, add; as many operations as
// carry-save adders take, but nothing to do at the end, so that few words are as fast as many.
#include "../generic/binary_avx512.h"

namespace whit {
namespace {

struct PopcountTile {
    static constexpr size_t kLanes = kZmmLanes;
    static constexpr size_t kRows = 4;

    template <size_t count>
    static void multiply(const uint32_t *const *rows, const uint32_t *panel, size_t words,
                         int32_t *const *out, bool is_new) {
        // Even and odd words apart: a single row would otherwise wait for its sum.
        __m512i even[count], odd[count];
        for (size_t r = 0; r < count; ++r) even[r] = odd[r] = _mm512_setzero_si512();
        size_t w = 0;
        for (; w + 2 <= words; w += 2) {
            if (is_new) prefetch(panel + (w + kPrefetchWords) * kLanes);
            for (size_t r = 0; r < count; ++r) {
                even[r] = plus_count(even[r], unequal(rows[r], panel, w));
                odd[r] = plus_count(odd[r], unequal(rows[r], panel, w + 1));
            }
        }
        for (size_t r = 0; r < count; ++r) {
            if (w < words) even[r] = plus_count(even[r], unequal(rows[r], panel, w));
            subtract_twice(out[r], _mm512_add_epi32(even[r], odd[r]));
        }
    }

  private:
    static WHIT_INLINE __m512i plus_count(__m512i sum, __m512i bits) {
        sum = _mm512_add_epi32(sum, _mm512_popcnt_epi32(bits));
        __asm__("" : "+v"(sum));  // in place: gcc 12 copies it otherwise
        return sum;
    }

    static void prefetch(const uint32_t *panel) {
        _mm_prefetch(reinterpret_cast<const char *>(panel), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char *>(panel + kLanes), _MM_HINT_T0);
    }
};

}  // namespace

void fill_binary_avx512vpopcntdq(KernelTable &table) {
    table.binary_lanes = kZmmLanes;
    table.binary[0] = {"vpopcnt", multiply_binary<PopcountTile>};
    for (size_t i = 1; i < kMaxBinaryKernels; ++i) table.binary[i] = {nullptr, nullptr};
}

}  // namespace whit
