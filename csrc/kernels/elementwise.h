// Operators that treat every number alone, on blocks that lie in the first-level cache.
//
// The engine runs a matrix kernel on a block of rows, then these on its result, one after the other,
// and stores the last result in its narrow type: no float or int32 sum ever reaches the memory.
// A block is [rows][stride] float32 or int32; `columns` of each row are used.
#ifndef WHIT_ELEMENTWISE_H
#define WHIT_ELEMENTWISE_H

#include <cstddef>
#include <cstdint>

namespace whit {

struct Block {
    void *data;  // float or int32_t
    size_t rows, columns, stride;

    float *floats(size_t row) const { return static_cast<float *>(data) + row * stride; }
    int32_t *integers(size_t row) const { return static_cast<int32_t *>(data) + row * stride; }
};

// Constants of a block: one for each column (per_column), or one for all.
struct Spread {
    const float *values;
    bool per_column;
};

// The functions of the operator `curve`, by their code in the file; 11 is the exponential.
enum Curve : size_t {
    kSigmoid, kTanh, kSilu, kGelu, kGeluTanh, kElu, kHardSigmoid, kHardSwish, kSoftplus, kAbsolute,
    kSquare, kExponential
};

struct Requantizing {
    const int32_t *multipliers;  // one, or one a column
    const int64_t *offsets;      // null, one, or one a column
    bool multiplier_per_column, offset_per_column;
    size_t exponent;
    int64_t least, most;
    bool narrow;  // every quotient before the limits fits int32
    // Where x * multiplier + offset stays below 2^53: multipliers and offsets divided by 2^exponent,
    // exact as doubles, one for each column of a row; else null.
    const double *exact_multipliers, *exact_offsets;
};

struct ElementwiseKernels {
    // On floats, in place. NaN stays NaN.
    void (*multiply)(const Block &x, const Spread &factor);
    void (*divide)(const Block &x, const Spread &divisor);
    void (*add)(const Block &x, const Spread &term);
    void (*subtract)(const Block &x, const Spread &term);
    void (*leaky)(const Block &x, const Spread &slope);
    void (*clamp)(const Block &x, float low, float high);
    void (*curve)(const Block &x, size_t mode, float alpha);

    // From int32 to float32 and back, in place.
    void (*widen)(const Block &x);
    // min(max(rint((x - shift) * factor), least), most), NaN gives least.
    void (*quantize)(const Block &x, float shift, float factor, float least, float most);

    // On int32, in place.
    void (*add_integers)(const Block &x, const int32_t *terms);  // one for each column
    void (*relu_integers)(const Block &x);
    void (*requantize)(const Block &x, const Requantizing &how);
    // table[min(x, entries - 1)] as float32.
    void (*lookup)(const Block &x, const float *table, size_t entries);

    // low + step * (number of thresholds reached) as int32; thresholds [channel][levels], channel
    // is the column, or 0 for all; flipped: null or one for each channel.
    void (*levels_floats)(const Block &x, const float *thresholds, const uint8_t *flipped,
                          size_t levels, bool per_column, int32_t low, int32_t step);
    void (*levels_integers)(const Block &x, const int32_t *thresholds, const uint8_t *flipped,
                            size_t levels, bool per_column, int32_t low, int32_t step);

    // Sign bits, 1 where negative: of row r to out + r * out_stride (words), the pads 0.
    // thresholds: one for each column; flipped: bits, or null.
    void (*sign_floats)(const Block &x, const float *thresholds, const uint32_t *flipped,
                        uint32_t *out, size_t out_stride);
    void (*sign_integers)(const Block &x, const int32_t *thresholds, const uint32_t *flipped,
                          uint32_t *out, size_t out_stride);

    // Rows of other types. `bytes`: from one row to the next. Type: see engine/values.h.
    void (*load_floats)(const void *from, size_t bytes, size_t type, const Block &to);
    void (*load_integers)(const void *from, size_t bytes, size_t type, const Block &to);
    void (*store)(const Block &from, size_t type, void *to, size_t bytes);  // of int32 blocks

    // The larger of two rows, to the first.
    void (*larger_floats)(float *x, const float *y, size_t n);
    void (*larger_integers)(int32_t *x, const int32_t *y, size_t n);
    // The largest of each window of an image of `width` columns, a pixel a row of the block, to the
    // first rows of the block: windows of pool_h x pool_w pixels that do not overlap.
    void (*pool_floats)(const Block &x, size_t width, size_t pool_h, size_t pool_w);
    void (*pool_integers)(const Block &x, size_t width, size_t pool_h, size_t pool_w);
    // x[i] += y[i], x[i] *= y[i].
    void (*add_row)(float *x, const float *y, size_t n);
    void (*multiply_row)(float *x, const float *y, size_t n);
    // Rows and columns exchanged: out[c * out_stride + r] = in[r * in_stride + c], items of `width`
    // bytes (1, 2 or 4).
    void (*transpose)(const void *in, size_t rows, size_t columns, size_t in_stride, void *out,
                      size_t out_stride, size_t width);
};

}  // namespace whit

#endif  // WHIT_ELEMENTWISE_H
