// What this processor can do at most: independent instructions in registers, nothing else.
// Benchmarks compare kernels with it, and know a disturbed machine by it.
#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace whit {
namespace {

constexpr size_t kChains = 12;  // more than latency times pipes of any processor we know

#if defined(__AVX512F__)
using PeakFloats = __m512;
using PeakBits = __m512i;
inline PeakFloats peak_floats(float x) { return _mm512_set1_ps(x); }
inline PeakFloats peak_step(PeakFloats x, PeakFloats y) { return _mm512_fmadd_ps(x, y, y); }
inline PeakBits peak_bits(int x) { return _mm512_set1_epi32(x); }
inline PeakBits peak_step(PeakBits x, PeakBits y) {
    return _mm512_ternarylogic_epi32(x, y, y, 0x96);
}
#define WHIT_KEEP(x) [&] { __asm__ volatile("" : "+v"(x)); }()
#elif defined(__AVX2__)
using PeakFloats = __m256;
using PeakBits = __m256i;
inline PeakFloats peak_floats(float x) { return _mm256_set1_ps(x); }
inline PeakFloats peak_step(PeakFloats x, PeakFloats y) { return _mm256_fmadd_ps(x, y, y); }
inline PeakBits peak_bits(int x) { return _mm256_set1_epi32(x); }
inline PeakBits peak_step(PeakBits x, PeakBits y) { return _mm256_xor_si256(x, y); }
#define WHIT_KEEP(x) [&] { __asm__ volatile("" : "+x"(x)); }()
#else
using PeakFloats = float;
using PeakBits = uint64_t;
inline PeakFloats peak_floats(float x) { return x; }
inline PeakFloats peak_step(PeakFloats x, PeakFloats y) { return x * y + y; }
inline PeakBits peak_bits(int x) { return static_cast<PeakBits>(x); }
inline PeakBits peak_step(PeakBits x, PeakBits y) { return x ^ y; }
#define WHIT_KEEP(x) [&] { __asm__ volatile("" : "+r"(x)); }()
#endif

// Runs `rounds` rounds of kChains multiply-adds; returns the floating-point operations done.
double peak_multiply_add(size_t rounds) {
    PeakFloats chains[kChains];
    for (size_t i = 0; i < kChains; ++i) chains[i] = peak_floats(static_cast<float>(i));
    const PeakFloats factor = peak_floats(0.5f);
    for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (size_t i = 0; i < kChains; ++i) chains[i] = peak_step(chains[i], factor);
    }
#if defined(__AVX2__)
    for (PeakFloats &chain : chains) WHIT_KEEP(chain);
#else
    for (PeakFloats &chain : chains) __asm__ volatile("" : : "m"(chain));
#endif
    return 2.0 * static_cast<double>(rounds * kChains * (sizeof(PeakFloats) / 4));
}

// Runs `rounds` rounds of kChains logic instructions; returns the bits that they made.
double peak_logic(size_t rounds) {
    // Named one by one: an array whose elements an asm statement touches is kept in memory.
    PeakBits a = peak_bits(1), b = peak_bits(2), c = peak_bits(3), d = peak_bits(4),
             e = peak_bits(5), f = peak_bits(6), g = peak_bits(7), h = peak_bits(8),
             i = peak_bits(9), j = peak_bits(10), k = peak_bits(11), l = peak_bits(12);
    const PeakBits other = peak_bits(85);
    for (size_t round = 0; round < rounds; ++round) {
        a = peak_step(a, other), b = peak_step(b, other), c = peak_step(c, other);
        d = peak_step(d, other), e = peak_step(e, other), f = peak_step(f, other);
        g = peak_step(g, other), h = peak_step(h, other), i = peak_step(i, other);
        j = peak_step(j, other), k = peak_step(k, other), l = peak_step(l, other);
        // Two exclusive ors in a row would cancel.
        WHIT_KEEP(a), WHIT_KEEP(b), WHIT_KEEP(c), WHIT_KEEP(d), WHIT_KEEP(e), WHIT_KEEP(f);
        WHIT_KEEP(g), WHIT_KEEP(h), WHIT_KEEP(i), WHIT_KEEP(j), WHIT_KEEP(k), WHIT_KEEP(l);
    }
    return static_cast<double>(rounds * kChains) * 8 * sizeof(PeakBits);
}

}  // namespace
}  // namespace whit
