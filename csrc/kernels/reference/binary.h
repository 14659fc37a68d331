// Signs times signs, bit by bit: slow and obvious, what every kernel is compared with.
#ifndef WHIT_REFERENCE_BINARY_H
#define WHIT_REFERENCE_BINARY_H

#include "../kernels.h"

namespace whit {

// Arguments as in BinaryKernel::multiply, for panels of `lanes` outputs.
void binary_reference(const uint32_t *const *rows, size_t m, const Runs &runs,
                      const uint32_t *panels, size_t panel_count, size_t lanes, int32_t bits,
                      int32_t *out, size_t stride);

}  // namespace whit

#endif  // WHIT_REFERENCE_BINARY_H
