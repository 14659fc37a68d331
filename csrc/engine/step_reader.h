// One record of the file and what it becomes.
#ifndef WHIT_STEP_READER_H
#define WHIT_STEP_READER_H

#include "weight_reader.h"

namespace whit {

constexpr size_t kRecordBytes = 32, kMaxElements = size_t{1} << 28;
constexpr uint32_t kAbsent = 0xFFFFFFFFu;

inline uint32_t word(const uint8_t *bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}
inline uint16_t half_word(const uint8_t *bytes) {
    return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

struct Record {
    explicit Record(const uint8_t *b)
        : kind(b[0]), format(b[1]), scale(b[2]), operand(b[3]), source(half_word(b + 4)),
          other(half_word(b + 6)), rows(word(b + 8)), columns(word(b + 12)), first(word(b + 16)),
          second(word(b + 20)), size_h(b[24]), size_w(b[25]), stride_h(b[26]), stride_w(b[27]),
          pad_h(b[28]), pad_w(b[29]), pad_value(static_cast<int8_t>(b[30])), dilation(b[31]) {}
    uint8_t kind, format, scale, operand;
    uint16_t source, other;
    uint32_t rows, columns, first, second;
    uint8_t size_h, size_w, stride_h, stride_w, pad_h, pad_w;
    int8_t pad_value;
    uint8_t dilation;
};

// Refuses a shape that is empty or has more than 2^28 elements.
void check_shape(const Shape &shape);

// The step of a record that reads values of these shapes and domains. Throws LoadError.
Step read_step(const Data &data, const Record &record, const Shape &source, Domain domain,
               const Shape &other, Domain other_domain);

// Fills the step of a route whose source has this shape. Throws LoadError.
void read_route(const Data &data, const Record &record, const Shape &source, Step &step);

}  // namespace whit

#endif  // WHIT_STEP_READER_H
