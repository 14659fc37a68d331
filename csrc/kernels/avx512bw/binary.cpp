// Signs times signs with AVX-512 BW: "csa", three logic operations for 512 products, and "shuffle".
#include "../generic/binary_avx512.h"

namespace whit {
namespace {

// Adds up counts in bytes: those of the sixteens in bytes of their own, which are emptied in time.
struct ByteSum {
    void clear() { total = sixteens = rest = _mm512_setzero_si512(), count = 0; }

    WHIT_INLINE void add_sixteens(__m512i bits) {
        sixteens = _mm512_add_epi8(sixteens, count_bytes(bits, nibble_counts(1)));
        if (++count == kFullBytes) empty();
    }

    // At most 7 words and the counters: 7 * 8 + (1 + 2 + 4 + 8) * 8 fits a byte.
    WHIT_INLINE void add(__m512i bits, int weight) {
        rest = _mm512_add_epi8(rest, count_bytes(bits, nibble_counts(weight)));
    }

    WHIT_INLINE __m512i lanes() {
        empty();
        const __m512i pairs = _mm512_maddubs_epi16(rest, _mm512_set1_epi8(1));
        return _mm512_add_epi32(total, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }

  private:
    static constexpr size_t kFullBytes = 31;  // of 8 bits each

    WHIT_INLINE void empty() {
        const __m512i pairs = _mm512_maddubs_epi16(sixteens, _mm512_set1_epi8(16));
        total = _mm512_add_epi32(total, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
        sixteens = _mm512_setzero_si512();
        count = 0;
    }

    __m512i total, sixteens, rest;
    size_t count;
};

}  // namespace

void fill_binary_avx512bw(KernelTable &table) {
    table.binary_lanes = kZmmLanes;
    table.binary[0] = {"csa", multiply_binary<CarrySaveTile<ByteSum>>};
    table.binary[1] = {"shuffle", multiply_binary<ShuffleTile>};
    for (size_t i = 2; i < kMaxBinaryKernels; ++i) table.binary[i] = {nullptr, nullptr};
}

}  // namespace whit
