// The weight formats of the file: 4 layouts times their codings, decoded to dense matrices.
#ifndef WHIT_WEIGHT_READER_H
#define WHIT_WEIGHT_READER_H

#include "network.h"

namespace whit {

// The data tensor; every access is checked.
class Data {
  public:
    Data(const uint8_t *bytes, size_t size) : bytes_(bytes), size_(size) {}

    // Pointer to `count` items of `width` bytes at `offset`.
    const uint8_t *at(size_t offset, size_t count, size_t width) const {
        expect(offset <= size_ && (width == 0 || count <= (size_ - offset) / width),
               "a constant lies behind the end of the data");
        return bytes_ + offset;
    }
    // Counts decoded weights, so that a small file cannot ask for endless memory: 2^28 in all.
    void claim(size_t elements) const {
        claimed_ += elements;
        expect(claimed_ <= size_t{1} << 28, "the program asks for more than 2^28 weights");
    }
    std::vector<float> floats(size_t offset, size_t count) const;
    std::vector<int32_t> int32s(size_t offset, size_t count) const;

  private:
    const uint8_t *bytes_;
    size_t size_;
    mutable size_t claimed_ = 0;
};

// format: code in the record; scales: how many float32 stand in front; taps: kernel height * width
// of a convolution, else 1.
Weight read_weight(const Data &data, size_t offset, size_t format, size_t scales, size_t rows,
                   size_t columns, size_t taps);

}  // namespace whit

#endif  // WHIT_WEIGHT_READER_H
