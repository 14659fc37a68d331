// The elementwise kernels of a level against those of plain C++, which the NumPy reference checks.
#include <cmath>
#include <cstring>
#include <vector>

#include "../engine/types.h"
#include "../kernels/elementwise.h"
#include "check.h"
#include "kernels.h"

namespace whit {

namespace {

constexpr Type kTypes[] = {Type::kFloat, Type::kByte,   Type::kInt8,   Type::kInt16, Type::kInt32,
                           Type::kSigns, Type::kBits,   Type::kBiased, Type::kRaised};

// A block with room behind every row, filled with the same numbers for both levels.
struct Numbers {
    std::vector<uint32_t> data;
    Block block{};

    Numbers(Check &check, size_t rows, size_t columns, bool floats) {
        const size_t stride = columns + check.between(0, 9);
        data.resize(rows * stride);
        for (uint32_t &word : data) {
            const int32_t whole = static_cast<int32_t>(check.random() % 2001) - 1000;
            const float real = static_cast<float>(whole) / 64.0f;
            if (floats) std::memcpy(&word, &real, 4);
            else std::memcpy(&word, &whole, 4);
        }
        block = {data.data(), rows, columns, stride};
    }
    Numbers(const Numbers &other) : data(other.data), block(other.block) {
        block.data = data.data();
    }
};

class Comparison {
  public:
    Comparison(const KernelTable &table, const KernelTable &plain, Check &check)
        : fast_(*table.elementwise), slow_(*plain.elementwise), check_(check) {}

    void round() {
        rows_ = check_.between(1, 9), columns_ = check_.between(1, 100);
        floats();
        curves();
        integers();
        signs();
        moves();
    }

  private:
    // Runs the same call of both levels on copies of one block.
    template <typename Call>
    void same(const char *name, bool floats, Call call) {
        const Numbers numbers(check_, rows_, columns_, floats);
        Numbers found(numbers), expected(numbers);
        call(fast_, found.block);
        call(slow_, expected.block);
        compare(name, found, expected);
    }

    void compare(const char *name, const Numbers &found, const Numbers &expected) {
        for (size_t i = 0; i < found.data.size(); ++i) {
            if (found.data[i] == expected.data[i]) continue;
            float a, b;
            std::memcpy(&a, &found.data[i], 4);
            std::memcpy(&b, &expected.data[i], 4);
            if (std::isnan(a) && std::isnan(b)) continue;
            check_.fail("%s: number %zu of %zu x %zu differs: %g, not %g", name, i, rows_, columns_,
                        static_cast<double>(a), static_cast<double>(b));
            return;
        }
    }

    void floats() {
        std::vector<float> constants(columns_);
        for (float &constant : constants)
            constant = static_cast<float>(check_.between(1, 200)) / 32.0f - 3.03f;
        for (const bool per_column : {false, true}) {
            const Spread spread{constants.data(), per_column};
            same("multiply", true, [&](auto &run, const Block &x) { run.multiply(x, spread); });
            same("divide", true, [&](auto &run, const Block &x) { run.divide(x, spread); });
            same("add", true, [&](auto &run, const Block &x) { run.add(x, spread); });
            same("subtract", true, [&](auto &run, const Block &x) { run.subtract(x, spread); });
            same("leaky", true, [&](auto &run, const Block &x) { run.leaky(x, spread); });
        }
        same("clamp", true, [](auto &run, const Block &x) { run.clamp(x, -1.5f, 2.25f); });
        same("quantize", true, [](auto &run, const Block &x) {
            run.quantize(x, 0.25f, 3.5f, -20.0f, 33.0f);
        });
        constexpr size_t kWindows[][2] = {{2, 2}, {1, 3}, {3, 1}, {2, 3}};
        for (const size_t(&window)[2] : kWindows) {
            const size_t h = window[0], w = window[1];
            rows_ = h * 2 * w * 3;
            same("pool_floats", true,
                 [h, w](auto &run, const Block &x) { run.pool_floats(x, 3 * w, h, w); });
            same("pool_integers", false,
                 [h, w](auto &run, const Block &x) { run.pool_integers(x, 3 * w, h, w); });
        }
        rows_ = check_.between(1, 9);
    }

    void curves() {
        for (size_t mode = kSigmoid; mode <= kExponential; ++mode) {
            const Numbers numbers(check_, rows_, columns_, true);
            Numbers found(numbers), expected(numbers);
            fast_.curve(found.block, mode, 0.7f);
            slow_.curve(expected.block, mode, 0.7f);
            for (size_t row = 0; row < rows_; ++row)
                for (size_t i = 0; i < columns_; ++i) {
                    const float a = found.block.floats(row)[i], b = expected.block.floats(row)[i];
                    if (std::abs(a - b) > 1e-6f * std::abs(b) + 1e-7f) {
                        check_.fail("curve %zu: %g, not %g", mode, static_cast<double>(a),
                                    static_cast<double>(b));
                        return;
                    }
                }
        }
    }

    void integers() {
        std::vector<int32_t> terms(columns_), multipliers(columns_);
        std::vector<int64_t> offsets(columns_);
        for (size_t i = 0; i < columns_; ++i) {
            terms[i] = static_cast<int32_t>(check_.random() % 4001) - 2000;
            multipliers[i] = static_cast<int32_t>(check_.random() % (1u << 20));
            offsets[i] = static_cast<int64_t>(check_.random()) - (int64_t{1} << 31);
        }
        same("widen", false, [](auto &run, const Block &x) { run.widen(x); });
        same("add_integers", false,
             [&](auto &run, const Block &x) { run.add_integers(x, terms.data()); });
        same("relu_integers", false, [](auto &run, const Block &x) { run.relu_integers(x); });
        for (size_t form = 0; form < 12; ++form) {
            const size_t exponent = check_.between(1, form < 6 ? 24 : 61);
            // Of the second half of the forms, all numbers are exact in doubles: the sums below
            // stay under 2^32.
            const bool exact = form >= 6;
            std::vector<double> exact_multipliers(columns_), exact_offsets(columns_);
            for (size_t i = 0; i < columns_; ++i) {
                const double divisor = std::ldexp(1.0, static_cast<int>(exponent));
                exact_multipliers[i] = multipliers[form % 2 == 0 ? i : 0] / divisor;
                exact_offsets[i] =
                    form % 3 == 0 ? 0
                                  : static_cast<double>(offsets[form % 3 == 1 ? i : 0]) / divisor;
            }
            const Requantizing how{multipliers.data(),
                                   form % 3 == 0 ? nullptr : offsets.data(),
                                   form % 2 == 0,
                                   form % 3 == 1,
                                   exponent,
                                   -100,
                                   1000,
                                   exponent >= 2,
                                   exact && exponent >= 2 ? exact_multipliers.data() : nullptr,
                                   exact && exponent >= 2 ? exact_offsets.data() : nullptr};
            same("requantize", false,
                 [&](auto &run, const Block &x) { run.requantize(x, how); });
        }
        std::vector<float> table(17);
        for (float &entry : table) entry = static_cast<float>(check_.random() % 99);
        Numbers indices(check_, rows_, columns_, false);
        for (uint32_t &index : indices.data) index %= 30;
        Numbers expected(indices);
        fast_.lookup(indices.block, table.data(), table.size());
        slow_.lookup(expected.block, table.data(), table.size());
        for (size_t row = 0; row < rows_; ++row)
            if (std::memcmp(indices.block.floats(row), expected.block.floats(row), 4 * columns_))
                check_.fail("lookup: row %zu differs", row);
    }

    void signs() {
        const size_t words = (columns_ + 31) / 32;
        std::vector<float> reals(32 * words, 0.0f);
        std::vector<int32_t> wholes(32 * words, 0);
        std::vector<uint32_t> flipped(words, 0);
        std::vector<uint8_t> channel_flipped(columns_);
        for (size_t i = 0; i < columns_; ++i) {
            wholes[i] = static_cast<int32_t>(check_.random() % 801) - 400;
            reals[i] = static_cast<float>(wholes[i]) / 64.0f;
            channel_flipped[i] = check_.random() & 1;
            if (channel_flipped[i]) flipped[i / 32] |= 1u << (i % 32);
        }
        const uint32_t *const choices[] = {nullptr, flipped.data()};
        for (const uint32_t *flips : choices) {
            for (const bool floats : {true, false}) {
                const Numbers x(check_, rows_, columns_, floats);
                std::vector<uint32_t> found(rows_ * words), expected(rows_ * words);
                if (floats) {
                    fast_.sign_floats(x.block, reals.data(), flips, found.data(), words);
                    slow_.sign_floats(x.block, reals.data(), flips, expected.data(), words);
                } else {
                    fast_.sign_integers(x.block, wholes.data(), flips, found.data(), words);
                    slow_.sign_integers(x.block, wholes.data(), flips, expected.data(), words);
                }
                if (found != expected) check_.fail("signs of %zu columns differ", columns_);
            }
        }
        const uint8_t *flips = check_.random() & 1 ? channel_flipped.data() : nullptr;
        same("levels_floats", true, [&](auto &run, const Block &x) {
            run.levels_floats(x, reals.data(), flips, 1, true, -1, 2);
        });
        same("levels_integers", false, [&](auto &run, const Block &x) {
            run.levels_integers(x, wholes.data(), flips, columns_ > 4 ? 3 : 1, false, -3, 2);
        });
    }

    void moves() {
        for (const Type type : kTypes) {
            const size_t width = type == Type::kFloat || type == Type::kInt32 ? 4
                                 : type == Type::kInt16                       ? 2
                                                                              : 1;
            const size_t bytes =
                type == Type::kBits ? (columns_ + 31) / 32 * 4 : columns_ * width;
            std::vector<uint8_t> stored(rows_ * bytes + 64), again(stored.size());
            for (uint8_t &byte : stored) byte = static_cast<uint8_t>(check_.random() % 100);
            same("load_integers", false, [&](auto &run, const Block &x) {
                run.load_integers(stored.data(), bytes, static_cast<size_t>(type), x);
            });
            same("load_floats", true, [&](auto &run, const Block &x) {
                run.load_floats(stored.data(), bytes, static_cast<size_t>(type), x);
            });
            const Numbers numbers(check_, rows_, columns_, false);
            fast_.store(numbers.block, static_cast<size_t>(type), stored.data(), bytes);
            slow_.store(numbers.block, static_cast<size_t>(type), again.data(), bytes);
            if (std::memcmp(stored.data(), again.data(), rows_ * bytes))
                check_.fail("store of type %d differs", static_cast<int>(type));
        }
        std::vector<uint8_t> in(4 * rows_ * columns_), found(in.size()), expected(in.size());
        for (uint8_t &byte : in) byte = static_cast<uint8_t>(check_.random());
        for (const size_t width : {1, 2, 4}) {
            fast_.transpose(in.data(), rows_, columns_, columns_, found.data(), rows_, width);
            slow_.transpose(in.data(), rows_, columns_, columns_, expected.data(), rows_, width);
            if (std::memcmp(found.data(), expected.data(), rows_ * columns_ * width))
                check_.fail("transpose of %zu bytes differs", width);
        }
    }

    const ElementwiseKernels &fast_, &slow_;
    Check &check_;
    size_t rows_ = 1, columns_ = 1;
};

}  // namespace

void check_elementwise(const KernelTable &table, Check &check) {
    const KernelTable *plain = kernel_table_of("scalar");
    Comparison comparison(table, *plain, check);
    for (int round = 0; round < (check.quick ? 20 : 200); ++round) comparison.round();
}

}  // namespace whit
