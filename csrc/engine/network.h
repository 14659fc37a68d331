// A .whit file, read and checked: operators with their constants, shapes and domains.
// docs/format.md is the definition; the Python reader in whit.runtime checks more (canonical form).
#ifndef WHIT_NETWORK_H
#define WHIT_NETWORK_H

#include <memory>

#include "values.h"

namespace whit {

enum class Kind : uint8_t {
    kLinear = 1, kConv2d, kAffine, kNormalize, kRelu, kSign, kThreshold, kMaxPool, kFlatten,
    kReshape, kPad2d, kAdd, kMultiply, kConcat, kAvgPool, kReduce, kLeakyRelu, kClamp, kCurve,
    kSoftmax, kLayerNorm, kGroupNorm, kEmbedding, kTranspose, kQuantize, kRequantize, kLevels,
    kLookup, kMember, kRoute
};

// One matrix of weights, decoded: integers or floats, [rows][columns] as in the file.
struct Weight {
    size_t rows = 0, columns = 0;
    std::vector<int16_t> integers;  // empty for floats
    std::vector<float> floats;      // empty for integers
    std::vector<float> scale;       // none, one, or one a row
    size_t planes = 0;              // of the coding "planes", else 0
    int64_t largest = 0;            // the largest magnitude that the coding of integers can hold
    bool signs = false;             // the format "bits": all values are -1 or +1
    bool two_four = false;          // the layout "two_four"
    size_t nonzero = 0;

    bool whole() const { return !integers.empty(); }
    float scale_of(size_t row) const {
        return scale.empty() ? 1.0f : scale[scale.size() == 1 ? 0 : row];
    }
    // The effective float32 weight, rounded once.
    float value(size_t row, size_t column) const {
        const size_t at = row * columns + column;
        return whole() ? static_cast<float>(integers[at]) * scale_of(row) : floats[at];
    }
};

// How many constants an operand has.
enum Granularity : uint8_t { kNone, kScalar, kChannel, kFeature };

struct Constants {
    Granularity granularity = kNone;
    std::vector<float> values;
    bool empty() const { return values.empty(); }
};

struct Step {
    Kind kind{};
    size_t source = 0, other = 0;  // numbers of values; value k + 1 is the result of step k
    Shape shape;                   // of the result
    Domain domain = Domain::kFloat;

    Weight weight;
    std::vector<float> bias;
    // Window, stride, padding of convolutions and pools.
    size_t size_h = 0, size_w = 0, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation = 1;
    int pad_value = 0;
    bool inside_only = false;
    Constants scale, shift;         // affine, normalize, norms (weight and shift), slopes in scale
    float low = 0, high = 0;        // clamp; epsilon, margin, alpha, border, shift in low
    float factor = 1;               // quantize
    int64_t least = 0, most = 0;    // quantize, requantize; least of levels
    size_t levels = 0, step = 1;    // levels: how many thresholds, their distance
    size_t exponent = 0;            // requantize
    std::vector<float> float_thresholds;    // threshold, levels: [1 or channels][levels]
    std::vector<int32_t> whole_thresholds;  // one of the two is empty
    std::vector<uint8_t> flipped;           // empty where no channel is
    std::vector<int32_t> multipliers;
    std::vector<int64_t> offsets;
    size_t mode = 0;                 // curve, reduce, softmax (1: logarithm)
    size_t axis = 0;                 // softmax, concat
    size_t axes = 0;                 // reduce: bits; layer_norm: how many; group_norm: groups
    bool keep = false;
    size_t order[4] = {0, 1, 2, 3};  // transpose
    std::vector<float> table;        // lookup
    size_t body = 0;                 // member: number of steps of its body
    // route: group of each class (255: none), networks that answer in each situation
    size_t groups = 0, members = 0, deciding = 0;
    std::vector<uint8_t> group_of;
    std::vector<std::vector<uint8_t>> strategies;
};

struct Network {
    Shape input;
    Domain input_domain = Domain::kFloat;
    bool leading = false;
    std::vector<Step> steps;
};

// Throws LoadError.
Network read_network(const uint8_t *file, size_t size);

}  // namespace whit

#endif  // WHIT_NETWORK_H
