// Compiled with -mpopcnt on x86-64: __builtin_popcountll becomes one instruction.
#include "binary_gemm.h"
#include "binary_gemm_tile.h"

namespace whit {

#if defined(__x86_64__)
const BinaryGemm binary_gemm_popcnt = &binary_gemm_tile;
#else
const BinaryGemm binary_gemm_popcnt = nullptr;
#endif

}  // namespace whit
