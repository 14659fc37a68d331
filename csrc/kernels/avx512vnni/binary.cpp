// Signs times signs with AVX-512 VNNI: as with BW, the counts weighted and added by vpdpbusd.
#include "../generic/binary_avx512.h"

namespace whit {
namespace {

// gcc 12 copies the accumulator around the intrinsic.
#define WHIT_DOT_BYTES(sum, bytes, weights) \
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights))

struct DotSum {
    void clear() { total = _mm512_setzero_si512(); }

    WHIT_INLINE void add_sixteens(__m512i bits) { add(bits, 16); }

    WHIT_INLINE void add(__m512i bits, int weight) {
        WHIT_DOT_BYTES(total, count_bytes(bits, nibble_counts(1)),
                       _mm512_set1_epi8(static_cast<char>(weight)));
    }

    __m512i lanes() const { return total; }

  private:
    __m512i total;
};

#undef WHIT_DOT_BYTES

}  // namespace

void fill_binary_avx512vnni(KernelTable &table) {
    table.binary_lanes = kZmmLanes;
    table.binary[0] = {"csa", multiply_binary<CarrySaveTile<DotSum>>};
    table.binary[1] = {"shuffle", multiply_binary<ShuffleTile>};
    for (size_t i = 2; i < kMaxBinaryKernels; ++i) table.binary[i] = {nullptr, nullptr};
}

}  // namespace whit
