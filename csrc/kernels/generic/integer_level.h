// The part of a level's table that its `Lanes` give. Included last.
#ifndef WHIT_INTEGER_LEVEL_H
#define WHIT_INTEGER_LEVEL_H

#include "kernels/generic/integer_multiply.h"
#include "kernels/generic/planes_bytes.h"
#include "kernels/generic/planes_floats.h"

namespace whit {
namespace {

// int8 only where four byte products are summed in 32 bits. Elsewhere 255 * -128 * 2 overflows the
// 16-bit pairs, and both halves of a byte apart cost more than `wide`, which the engine takes then.
inline void fill_integers(KernelTable &table) {
    table.ternary = integer_kernel<ByteProduct, TernaryFormat>();
    table.int4 = integer_kernel<ByteProduct, NibbleFormat>();
    if constexpr (Lanes::kFourByteProduct) table.int8 = integer_kernel<ByteProduct, ByteFormat>();
    table.wide = integer_kernel<WordProduct, WideFormat>();
    table.planes = {kPanelLanes, plane_panel_bytes<kPanelLanes>, pack_planes<kPanelLanes>,
                    multiply_plane_bytes, multiply_plane_floats};
}

}  // namespace
}  // namespace whit

#endif  // WHIT_INTEGER_LEVEL_H
