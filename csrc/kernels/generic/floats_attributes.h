// Attributes of the float kernels, for gcc and clang.
#ifndef WHIT_FLOATS_ATTRIBUTES_H
#define WHIT_FLOATS_ATTRIBUTES_H

#define WHIT_INLINE inline __attribute__((always_inline))
#define WHIT_NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define WHIT_UNROLL _Pragma("unroll")
#else
#define WHIT_UNROLL _Pragma("GCC unroll 32")
#endif

#endif  // WHIT_FLOATS_ATTRIBUTES_H
