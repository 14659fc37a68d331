// Internal: the forms that whit_binary_gemm chooses from.
#ifndef WHIT_BINARY_GEMM_H
#define WHIT_BINARY_GEMM_H

#include <cstddef>
#include <cstdint>

namespace whit {

using BinaryGemm = void (*)(const uint64_t *, const uint64_t *, int32_t *, size_t, size_t, size_t,
                            int32_t);

// Null where the compiler does not target x86-64.
extern const BinaryGemm binary_gemm_popcnt;

}  // namespace whit

#endif  // WHIT_BINARY_GEMM_H
