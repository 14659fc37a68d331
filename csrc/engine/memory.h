// Memory of a running program: one arena, planned at load; no allocation afterwards.
#ifndef WHIT_MEMORY_H
#define WHIT_MEMORY_H

#include <cstdlib>
#include <cstring>
#include <new>

#include "values.h"

namespace whit {

constexpr size_t kAlignment = 64;

inline size_t rounded_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Zeroed bytes, aligned to a cache line, with room behind them for kernels that read too far.
class Bytes {
  public:
    Bytes() = default;
    explicit Bytes(size_t size)
        : data_(static_cast<uint8_t *>(
              std::aligned_alloc(kAlignment, rounded_up(size + kAlignment, kAlignment)))),
          size_(size) {
        if (data_ == nullptr) throw std::bad_alloc();
        std::memset(data_, 0, rounded_up(size + kAlignment, kAlignment));
    }
    Bytes(Bytes &&other) noexcept : data_(other.data_), size_(other.size_) {
        other.data_ = nullptr, other.size_ = 0;
    }
    Bytes &operator=(Bytes &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Bytes() { std::free(data_); }

    uint8_t *data() const { return data_; }
    size_t size() const { return size_; }
    template <typename Item>
    Item *as() const {
        return reinterpret_cast<Item *>(data_);
    }

  private:
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace whit

#endif  // WHIT_MEMORY_H
