// What this processor can do, for people; the choice of kernels is in kernels/levels.cpp.
#include "whit.h"

extern "C" uint32_t whit_cpu_features(void) {
    uint32_t found = 0;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("popcnt")) found |= WHIT_CPU_POPCNT;
    if (__builtin_cpu_supports("avx2")) found |= WHIT_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f")) found |= WHIT_CPU_AVX512F;
    if (__builtin_cpu_supports("avx512bw")) found |= WHIT_CPU_AVX512BW;
    if (__builtin_cpu_supports("avx512vnni")) found |= WHIT_CPU_AVX512_VNNI;
    if (__builtin_cpu_supports("avx512vpopcntdq")) found |= WHIT_CPU_AVX512_VPOPCNTDQ;
#elif defined(__aarch64__)
    found |= WHIT_CPU_NEON;
#endif
    return found;
}
