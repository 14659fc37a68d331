// What flows between operators: domains as the file knows them, types as they lie in memory.
#ifndef WHIT_VALUES_H
#define WHIT_VALUES_H

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "types.h"

namespace whit {

// A file that cannot be loaded; the C interface turns it into a message.
struct LoadError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] inline void refuse(const std::string &message) { throw LoadError(message); }
inline void expect(bool condition, const char *message) {
    if (!condition) refuse(message);
}

enum class Domain : uint8_t { kFloat, kByte, kInt8, kInt16, kInteger, kSign };

// Planar: the axes as in the file, the last fastest. Channels last: [height, width, channel].
enum class Order : uint8_t { kPlanar, kChannelsLast };

struct Form {
    Type type;
    Order order;
    bool operator==(const Form &other) const { return type == other.type && order == other.order; }
};

struct Shape {
    size_t rank = 1;
    size_t axes[4] = {1, 1, 1, 1};

    size_t elements() const {
        size_t total = 1;
        for (size_t axis = 0; axis < rank; ++axis) total *= axes[axis];
        return total;
    }
    size_t last() const { return axes[rank - 1]; }
    bool operator==(const Shape &other) const {
        if (rank != other.rank) return false;
        for (size_t axis = 0; axis < rank; ++axis)
            if (axes[axis] != other.axes[axis]) return false;
        return true;
    }
};

// The rows and columns of one sample in memory: columns are contiguous.
struct Grid {
    size_t rows, columns;
};

inline Grid grid_of(const Shape &shape, Order order) {
    if (order == Order::kChannelsLast) return {shape.axes[1] * shape.axes[2], shape.axes[0]};
    return {shape.elements() / shape.last(), shape.last()};
}

inline size_t type_bytes(Type type) {
    switch (type) {
        case Type::kFloat:
        case Type::kInt32: return 4;
        case Type::kInt16: return 2;
        default: return 1;
    }
}

// Bytes of one row of `columns` numbers.
inline size_t row_bytes(Type type, size_t columns) {
    return type == Type::kBits ? (columns + 31) / 32 * 4 : columns * type_bytes(type);
}

inline size_t sample_bytes(const Shape &shape, Form form) {
    const Grid grid = grid_of(shape, form.order);
    return grid.rows * row_bytes(form.type, grid.columns);
}

inline Type natural_type(Domain domain) {
    switch (domain) {
        case Domain::kFloat: return Type::kFloat;
        case Domain::kByte: return Type::kByte;
        case Domain::kInt8: return Type::kInt8;
        case Domain::kInt16: return Type::kInt16;
        case Domain::kInteger: return Type::kInt32;
        default: return Type::kBits;
    }
}

// The smallest and largest number of a domain of whole numbers.
inline int64_t lowest(Domain domain) {
    switch (domain) {
        case Domain::kByte: return 0;
        case Domain::kInt8: return -128;
        case Domain::kInt16: return -32768;
        case Domain::kSign: return -1;
        default: return -(int64_t{1} << 31);
    }
}
inline int64_t highest(Domain domain) {
    switch (domain) {
        case Domain::kByte: return 255;
        case Domain::kInt8: return 127;
        case Domain::kInt16: return 32767;
        case Domain::kSign: return 1;
        default: return (int64_t{1} << 31) - 1;
    }
}

inline Domain domain_of_range(int64_t low, int64_t high) {
    expect(low <= high, "a range of whole numbers is empty");
    for (Domain domain : {Domain::kByte, Domain::kInt8, Domain::kInt16})
        if (lowest(domain) <= low && high <= highest(domain)) return domain;
    refuse("no domain of up to 16 bits holds a range of whole numbers");
}

}  // namespace whit

#endif  // WHIT_VALUES_H
