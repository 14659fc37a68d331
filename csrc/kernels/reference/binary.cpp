#include "binary.h"

namespace whit {
namespace {

// The pads are 0 on both sides: they count as equal here and are taken off by the caller.
int32_t sum_of_signs(uint32_t left, uint32_t right) {
    int32_t sum = 0;
    for (unsigned bit = 0; bit < 32; ++bit) {
        const int32_t sign_left = 1 - 2 * static_cast<int32_t>((left >> bit) & 1u);
        const int32_t sign_right = 1 - 2 * static_cast<int32_t>((right >> bit) & 1u);
        sum += sign_left * sign_right;
    }
    return sum;
}

}  // namespace

void binary_reference(const uint32_t *const *rows, size_t m, const Runs &runs,
                      const uint32_t *panels, size_t panel_count, size_t lanes, int32_t bits,
                      int32_t *out, size_t stride) {
    const size_t words = runs.count * runs.length;
    for (size_t r = 0; r < m; ++r) {
        for (size_t c = 0; c < panel_count * lanes; ++c) {
            const uint32_t *panel = panels + c / lanes * words * lanes;
            int32_t sum = bits - static_cast<int32_t>(32 * words);
            for (size_t w = 0; w < words; ++w) {
                const ptrdiff_t run = runs.offsets[w / runs.length];
                const uint32_t left = rows[r][run + static_cast<ptrdiff_t>(w % runs.length)];
                sum += sum_of_signs(left, panel[w * lanes + c % lanes]);
            }
            out[r * stride + c] = sum;
        }
    }
}

}  // namespace whit
