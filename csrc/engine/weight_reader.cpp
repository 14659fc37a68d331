#include "weight_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace whit {

namespace {

enum class Layout { kDense, kMask, kRows, kTwoFour };
enum class Coding { kFloat32, kFloat16, kBits, kTernary, kTernary5, kInt4, kInt8, kPlanes, kBook };

struct Format {
    Layout layout;
    Coding coding;
    size_t book_bits = 0;  // width of a number of a code book
};

constexpr Format kFormats[] = {
    {Layout::kDense, Coding::kFloat32},    {Layout::kDense, Coding::kBits},
    {Layout::kDense, Coding::kTernary},    {Layout::kMask, Coding::kFloat32},
    {Layout::kMask, Coding::kBits},        {Layout::kRows, Coding::kFloat32},
    {Layout::kRows, Coding::kBits},        {Layout::kDense, Coding::kFloat16},
    {Layout::kDense, Coding::kTernary5},   {Layout::kDense, Coding::kInt8},
    {Layout::kDense, Coding::kInt4},       {Layout::kDense, Coding::kPlanes},
    {Layout::kDense, Coding::kBook, 1},    {Layout::kDense, Coding::kBook, 2},
    {Layout::kDense, Coding::kBook, 4},    {Layout::kDense, Coding::kBook, 8},
    {Layout::kMask, Coding::kFloat16},     {Layout::kMask, Coding::kInt8},
    {Layout::kMask, Coding::kInt4},        {Layout::kMask, Coding::kBook, 4},
    {Layout::kMask, Coding::kBook, 8},     {Layout::kRows, Coding::kFloat16},
    {Layout::kRows, Coding::kInt8},        {Layout::kRows, Coding::kInt4},
    {Layout::kRows, Coding::kBook, 4},     {Layout::kRows, Coding::kBook, 8},
    {Layout::kTwoFour, Coding::kFloat32},  {Layout::kTwoFour, Coding::kFloat16},
    {Layout::kTwoFour, Coding::kInt8},
};

size_t alignment_of(Coding coding) {
    if (coding == Coding::kFloat32 || coding == Coding::kBook) return 4;
    return coding == Coding::kFloat16 ? 2 : 1;
}

size_t aligned(size_t offset, size_t alignment) {
    return (offset + alignment - 1) / alignment * alignment;
}

bool bit_of(const uint8_t *bytes, size_t at) { return bytes[at / 8] >> (at % 8) & 1; }

float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
    const int exponent = half >> 10 & 31;
    const uint32_t fraction = half & 1023u;
    if (exponent == 0) {
        const float small = std::ldexp(static_cast<float>(fraction), -24);
        return sign ? -small : small;
    }
    const uint32_t bits = exponent == 31
                              ? sign | 0x7F800000u | fraction << 13
                              : sign | static_cast<uint32_t>(exponent + 112) << 23 | fraction << 13;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Numbers one after another; one of the two vectors is filled.
struct Numbers {
    std::vector<int16_t> integers;
    std::vector<float> floats;
};

Numbers read_planes(const Data &data, size_t offset, size_t count, size_t &planes) {
    planes = *data.at(offset, 1, 1);
    expect(planes >= 2 && planes <= 16, "a weight has an impossible number of bit planes");
    const size_t plane_bytes = (count + 7) / 8;
    const uint8_t *bits = data.at(offset + 1, planes, plane_bytes);
    Numbers numbers;
    numbers.integers.resize(count);
    for (size_t i = 0; i < count; ++i) {
        int32_t value = bit_of(bits, i) ? -1 : 0;  // the sign plane, extended
        for (size_t plane = 1; plane < planes; ++plane)
            value = value * 2 + bit_of(bits + plane * plane_bytes, i);
        numbers.integers[i] = static_cast<int16_t>(value);
    }
    return numbers;
}

std::vector<float> read_book(const Data &data, size_t offset, size_t count, size_t width) {
    const size_t entries = size_t{*data.at(offset, 4, 1)} + 1;
    const std::vector<float> book = data.floats(offset + 4, entries);
    const size_t each = 8 / width;
    const uint8_t *codes = data.at(offset + 4 + 4 * entries, (count + each - 1) / each, 1);
    std::vector<float> floats(count);
    for (size_t i = 0; i < count; ++i) {
        const size_t code = codes[i / each] >> (i % each * width) & ((1u << width) - 1);
        expect(code < entries, "a weight names an entry that its code book lacks");
        floats[i] = book[code];
    }
    return floats;
}

std::vector<float> read_halves(const Data &data, size_t offset, size_t count) {
    const uint8_t *bytes = data.at(offset, count, 2);
    std::vector<float> floats(count);
    for (size_t i = 0; i < count; ++i)
        floats[i] = half_to_float(static_cast<uint16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8));
    return floats;
}

int16_t integer_of(Coding coding, const uint8_t *bytes, size_t i) {
    static constexpr int kPowers[5] = {1, 3, 9, 27, 81};
    switch (coding) {
        case Coding::kBits: return bit_of(bytes, i) ? -1 : 1;
        case Coding::kTernary: {
            const int code = bytes[i / 4] >> (i % 4 * 2) & 3;
            expect(code != 2, "a ternary weight holds the code 2");
            return static_cast<int16_t>(code == 3 ? -1 : code);
        }
        case Coding::kTernary5: return static_cast<int16_t>(bytes[i / 5] / kPowers[i % 5] % 3 - 1);
        case Coding::kInt4: {
            const int code = bytes[i / 2] >> (i % 2 * 4) & 15;
            return static_cast<int16_t>(code >= 8 ? code - 16 : code);
        }
        default: return static_cast<int8_t>(bytes[i]);
    }
}

Numbers read_numbers(const Data &data, const Format &format, size_t offset, size_t count,
                     size_t &planes) {
    Numbers numbers;
    switch (format.coding) {
        case Coding::kFloat32: numbers.floats = data.floats(offset, count); return numbers;
        case Coding::kFloat16: numbers.floats = read_halves(data, offset, count); return numbers;
        case Coding::kBook:
            numbers.floats = read_book(data, offset, count, format.book_bits);
            return numbers;
        case Coding::kPlanes: return read_planes(data, offset, count, planes);
        default: break;
    }
    const size_t each = format.coding == Coding::kBits      ? 8
                        : format.coding == Coding::kTernary  ? 4
                        : format.coding == Coding::kTernary5 ? 5
                        : format.coding == Coding::kInt4     ? 2
                                                             : 1;
    const uint8_t *bytes = data.at(offset, (count + each - 1) / each, 1);
    numbers.integers.resize(count);
    for (size_t i = 0; i < count; ++i) numbers.integers[i] = integer_of(format.coding, bytes, i);
    return numbers;
}

// Places the stored numbers; positions[i] is where number i belongs in the dense matrix.
void scatter(const Numbers &numbers, const std::vector<uint32_t> &positions, bool whole,
             Weight &weight) {
    const size_t count = weight.rows * weight.columns;
    if (whole) {
        weight.integers.assign(count, 0);
        for (size_t i = 0; i < positions.size(); ++i)
            weight.integers[positions[i]] = numbers.integers[i];
    } else {
        weight.floats.assign(count, 0.0f);
        for (size_t i = 0; i < positions.size(); ++i)
            weight.floats[positions[i]] = numbers.floats[i];
    }
}

std::vector<uint32_t> mask_positions(const Data &data, size_t offset, size_t count) {
    const uint8_t *bits = data.at(offset, (count + 7) / 8, 1);
    std::vector<uint32_t> positions;
    for (size_t i = 0; i < count; ++i)
        if (bit_of(bits, i)) positions.push_back(static_cast<uint32_t>(i));
    return positions;
}

size_t index_of(const uint8_t *bytes, size_t width, size_t i) {
    size_t value = 0;
    for (size_t byte = 0; byte < width; ++byte) value |= size_t{bytes[i * width + byte]} << 8 * byte;
    return value;
}

// Also returns the number of bytes that the index takes.
std::vector<uint32_t> row_positions(const Data &data, size_t offset, const Weight &weight,
                                    size_t &bytes) {
    const size_t width = weight.columns < 256 ? 1 : weight.columns < 65536 ? 2 : 4;
    const uint8_t *counts = data.at(offset, weight.rows, width);
    size_t total = 0;
    for (size_t row = 0; row < weight.rows; ++row) {
        const size_t found = index_of(counts, width, row);
        expect(found <= weight.columns, "a sparse weight has more values in a row than columns");
        total += found;
    }
    const uint8_t *columns = data.at(offset + weight.rows * width, total, width);
    std::vector<uint32_t> positions;
    positions.reserve(total);
    for (size_t row = 0, i = 0; row < weight.rows; ++row) {
        for (size_t end = i + index_of(counts, width, row); i < end; ++i) {
            const size_t column = index_of(columns, width, i);
            expect(column < weight.columns, "a sparse weight names a column that it lacks");
            positions.push_back(static_cast<uint32_t>(row * weight.columns + column));
        }
    }
    bytes = (weight.rows + total) * width;
    return positions;
}

// Two values for each group of four; a row of a convolution has its channels fastest.
void read_two_four(const Data &data, const Format &format, size_t offset, size_t taps,
                   Weight &weight) {
    const size_t width = (weight.columns + 3) / 4, groups = weight.rows * width;
    const size_t channels = weight.columns / taps;
    const uint8_t *codes = data.at(offset, (groups + 1) / 2, 1);
    const size_t values = aligned(offset + (groups + 1) / 2, alignment_of(format.coding));
    const Numbers numbers = read_numbers(data, format, values, 2 * groups, weight.planes);
    if (numbers.integers.empty()) weight.floats.assign(weight.rows * weight.columns, 0.0f);
    else weight.integers.assign(weight.rows * weight.columns, 0);
    for (size_t i = 0; i < 2 * groups; ++i) {
        const size_t group = i / 2, code = codes[group / 2] >> (group % 2 * 4) & 15;
        const size_t place = group % width * 4 + (i % 2 ? code >> 2 : code & 3);
        if (place >= weight.columns) continue;  // behind the end of the row: a zero
        const size_t column = place % channels * taps + place / channels;
        const size_t at = group / width * weight.columns + column;
        // Unused places hold zeros and may name the place of no value twice: keep what is there.
        if (numbers.integers.empty()) weight.floats[at] += numbers.floats[i];
        else weight.integers[at] = static_cast<int16_t>(weight.integers[at] + numbers.integers[i]);
    }
}

int64_t largest_of(const Format &format, size_t planes) {
    switch (format.coding) {
        case Coding::kBits:
        case Coding::kTernary:
        case Coding::kTernary5: return 1;
        case Coding::kInt4: return 8;
        case Coding::kInt8: return 128;
        case Coding::kPlanes: return int64_t{1} << (planes - 1);
        default: return 0;
    }
}

}  // namespace

std::vector<float> Data::floats(size_t offset, size_t count) const {
    std::vector<float> values(count);
    if (count) std::memcpy(values.data(), at(offset, count, 4), 4 * count);
    return values;
}

std::vector<int32_t> Data::int32s(size_t offset, size_t count) const {
    std::vector<int32_t> values(count);
    if (count) std::memcpy(values.data(), at(offset, count, 4), 4 * count);
    return values;
}

Weight read_weight(const Data &data, size_t offset, size_t code, size_t scales, size_t rows,
                   size_t columns, size_t taps) {
    expect(code < sizeof kFormats / sizeof *kFormats, "a weight has an unknown format");
    const Format &format = kFormats[code];
    expect(rows > 0 && columns > 0 && rows <= (size_t{1} << 28) / columns && columns % taps == 0,
           "a weight has an impossible size");
    data.claim(rows * columns);
    Weight weight;
    weight.rows = rows, weight.columns = columns;
    weight.scale = data.floats(offset, scales);
    offset += 4 * scales;
    const size_t count = rows * columns;
    if (format.layout == Layout::kDense) {
        Numbers numbers = read_numbers(data, format, offset, count, weight.planes);
        weight.integers = std::move(numbers.integers);
        weight.floats = std::move(numbers.floats);
    } else if (format.layout == Layout::kTwoFour) {
        read_two_four(data, format, offset, taps, weight);
        weight.two_four = true;
    } else {
        size_t bytes = (count + 7) / 8;
        const std::vector<uint32_t> positions =
            format.layout == Layout::kMask ? mask_positions(data, offset, count)
                                           : row_positions(data, offset, weight, bytes);
        const size_t values = aligned(offset + bytes, alignment_of(format.coding));
        scatter(read_numbers(data, format, values, positions.size(), weight.planes), positions,
                largest_of(format, 2) != 0, weight);
    }
    expect(scales == 0 || weight.whole(), "a weight of floats has scales");
    weight.largest = largest_of(format, weight.planes);
    weight.signs = format.layout == Layout::kDense && format.coding == Coding::kBits;
    weight.nonzero = weight.whole()
                         ? count - static_cast<size_t>(std::count(weight.integers.begin(),
                                                                  weight.integers.end(), 0))
                         : count - static_cast<size_t>(std::count(weight.floats.begin(),
                                                                  weight.floats.end(), 0.0f));
    return weight;
}

}  // namespace whit
