// How the numbers of a value lie in memory; free of everything else, since kernels include it.
#ifndef WHIT_TYPES_H
#define WHIT_TYPES_H

#include <cstdint>

namespace whit {

enum class Type : uint8_t {
    kFloat,   // float32
    kByte,    // uint8
    kInt8,    // int8
    kInt16,   // int16
    kInt32,   // int32
    kSigns,   // signs as int8, +1 and -1
    kBits,    // signs as bits of 32-bit words, 1 for -1, every row from a new word, pads 0
    kBiased,  // int8 + 128 as uint8: what the byte kernels read of a signed value
    kRaised,  // sign + 1 as uint8: 2 and 0
};

}  // namespace whit

#endif  // WHIT_TYPES_H
