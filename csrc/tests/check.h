// What the checks of the kernel families share: a seeded source of random numbers, and failures.
#ifndef WHIT_TESTS_CHECK_H
#define WHIT_TESTS_CHECK_H

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace whit {

class Check {
  public:
    // `name` stands before each message, for instance "avx2 binary".
    Check(const char *name, uint64_t seed, bool is_quick)
        : quick(is_quick), name_(name), state_(seed * 0x9E3779B97F4A7C15u + 1) {}

    const bool quick;  // few cases: runs under emulation

    uint32_t random() {  // splitmix64, upper half
        uint64_t mixed = state_ += 0x9E3779B97F4A7C15u;
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
        return static_cast<uint32_t>((mixed ^ (mixed >> 31)) >> 32);
    }

    // Both ends can occur.
    size_t between(size_t low, size_t high) { return low + random() % (high - low + 1); }

#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    void fail(const char *format, ...) {
        if (++failures_ > kShown) return;
        std::printf("FAILED %s: ", name_);
        va_list arguments;
        va_start(arguments, format);
        std::vprintf(format, arguments);
        va_end(arguments);
        std::printf("\n");
        std::fflush(stdout);
    }

    size_t failures() const { return failures_; }

  private:
    static constexpr size_t kShown = 8;
    const char *name_;
    uint64_t state_;
    size_t failures_ = 0;
};

}  // namespace whit

#endif  // WHIT_TESTS_CHECK_H
