// Memory of a running program: one arena, planned at load; no allocation afterwards.
#ifndef WHIT_MEMORY_H
#define WHIT_MEMORY_H

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "values.h"

namespace whit {

constexpr size_t kAlignment = 64;

inline size_t rounded_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// Zeroed bytes, aligned to a cache line, with room behind them for kernels that read too far.
// Large ones are pages that take no memory before they are written.
class Bytes {
  public:
    Bytes() = default;
    explicit Bytes(size_t size) : whole_(std::calloc(size + 3 * kAlignment, 1)), size_(size) {
        if (whole_ == nullptr) throw std::bad_alloc();
        const size_t past = reinterpret_cast<uintptr_t>(whole_) % kAlignment;
        data_ = static_cast<uint8_t *>(whole_) + (kAlignment - past);
    }
    Bytes(Bytes &&other) noexcept { *this = std::move(other); }
    Bytes &operator=(Bytes &&other) noexcept {
        std::swap(whole_, other.whole_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Bytes() { std::free(whole_); }

    uint8_t *data() const { return data_; }
    size_t size() const { return size_; }
    template <typename Item>
    Item *as() const {
        return reinterpret_cast<Item *>(data_);
    }

  private:
    void *whole_ = nullptr;
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace whit

#endif  // WHIT_MEMORY_H
