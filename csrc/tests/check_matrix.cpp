// The C interface of one matrix against plain loops: all kinds, blocks, tails and two threads.
#include <string>
#include <vector>

#include "check.h"
#include "kernels.h"
#include "whit_matrix.h"

namespace whit {

void check_matrix(const KernelTable &table, Check &check);

namespace {

struct Kind {
    const char *name;
    int lowest, highest;  // of the weights
    size_t left_bytes;    // of one element; 0: signs
    bool float_left, float_weights;
    size_t planes;
};

const Kind kKinds[] = {
    {"signs", -1, 1, 0, false, false, 0},       {"ternary", -1, 1, 1, false, false, 0},
    {"int4", -8, 7, 1, false, false, 0},        {"int8", -128, 127, 1, false, false, 0},
    {"wide", -128, 127, 2, false, false, 0},    {"planes", -16, 15, 1, false, false, 5},
    {"plane_floats", -8, 7, 4, true, false, 4}, {"float32", -9, 9, 4, true, true, 0},
    {"two_four", -9, 9, 4, true, true, 0},      {"sparse", -9, 9, 4, true, true, 0}};

struct Case {
    const Kind &kind;
    size_t m, n, k;
    std::vector<int> left, weights;  // all numbers are whole, so float sums are exact too
};

// An array of exactly its size, so that a sanitizer sees every access beyond.
template <typename Element>
std::vector<uint8_t> as_bytes(const std::vector<int> &numbers) {
    std::vector<uint8_t> bytes(numbers.size() * sizeof(Element));
    Element *elements = reinterpret_cast<Element *>(bytes.data());
    for (size_t i = 0; i < numbers.size(); ++i) elements[i] = static_cast<Element>(numbers[i]);
    return bytes;
}

std::vector<uint8_t> sign_words(const Case &one) {
    const size_t words = (one.k + 31) / 32;
    std::vector<uint8_t> bytes(one.m * words * 4);
    uint32_t *out = reinterpret_cast<uint32_t *>(bytes.data());
    for (size_t i = 0; i < one.m * one.k; ++i)
        if (one.left[i] < 0) out[i / one.k * words + i % one.k / 32] |= 1u << i % one.k % 32;
    return bytes;
}

std::vector<uint8_t> left_bytes(const Case &one) {
    if (one.kind.left_bytes == 0) return sign_words(one);
    if (one.kind.float_left) return as_bytes<float>(one.left);
    return one.kind.left_bytes == 1 ? as_bytes<uint8_t>(one.left) : as_bytes<int16_t>(one.left);
}

std::vector<uint8_t> weight_bytes(const Case &one) {
    if (one.kind.float_weights) return as_bytes<float>(one.weights);
    return one.kind.planes != 0 ? as_bytes<int16_t>(one.weights) : as_bytes<int8_t>(one.weights);
}

int random_weight(Check &check, const Kind &kind) {
    const int value =
        static_cast<int>(check.between(0, static_cast<size_t>(kind.highest - kind.lowest))) +
        kind.lowest;
    return kind.left_bytes == 0 ? (value > 0 ? 1 : -1) : value;
}

// Two of each four weights for two_four; about one of five for sparse.
void thin_out(Check &check, Case &one) {
    const std::string name = one.kind.name;
    for (size_t i = 0; i < one.weights.size(); ++i) {
        if (name == "two_four" && (i / 4 + i) % 4 < 2) one.weights[i] = 0;
        if (name == "sparse" && check.between(0, 4) != 0) one.weights[i] = 0;
    }
}

Case random_case(Check &check, const Kind &kind, size_t m, size_t n, size_t k) {
    if (std::string(kind.name) == "two_four") k = (k + 3) / 4 * 4;
    Case one{kind, m, n, k, std::vector<int>(m * k), std::vector<int>(n * k)};
    for (int &value : one.left) {
        value = static_cast<int>(check.between(0, 255));
        if (kind.left_bytes == 0) value = value % 2 ? 1 : -1;
        if (kind.left_bytes == 2) value -= 128;
        if (kind.float_left) value = value % 16 - 8;
    }
    for (int &value : one.weights) value = random_weight(check, kind);
    thin_out(check, one);
    return one;
}

int64_t expected(const Case &one, size_t row, size_t output, size_t dropped_planes) {
    int64_t sum = 0;
    for (size_t i = 0; i < one.k; ++i)
        sum += int64_t{one.left[row * one.k + i]} *
               (one.weights[output * one.k + i] >> dropped_planes);
    return sum;
}

void compare(Check &check, const Case &one, whit_matrix *matrix, size_t dropped_planes) {
    const std::vector<uint8_t> left = left_bytes(one);
    std::vector<int32_t> out(one.m * one.n, 0x5A5A5A5A);
    if (whit_matrix_multiply(matrix, left.data(), one.m, out.data()) != 0)
        return check.fail("%s: m = %zu was refused", one.kind.name, one.m);
    const float *floats = reinterpret_cast<const float *>(out.data());
    for (size_t i = 0; i < out.size(); ++i) {
        const int64_t wanted = expected(one, i / one.n, i % one.n, dropped_planes);
        const double found = whit_matrix_gives_floats(matrix) ? static_cast<double>(floats[i])
                                                              : out[i];
        if (found == static_cast<double>(wanted)) continue;
        return check.fail("%s m %zu n %zu k %zu: out[%zu][%zu] = %.1f, not %lld", one.kind.name,
                          one.m, one.n, one.k, i / one.n, i % one.n, found,
                          static_cast<long long>(wanted));
    }
}

whit_matrix *create(Check &check, const KernelTable &table, const Case &one, size_t threads) {
    whit_matrix_options options{};
    options.level = table.level;
    options.threads = threads;
    options.max_m = one.m;
    options.planes = one.kind.planes;
    char error[200] = "";
    const std::vector<uint8_t> weights = weight_bytes(one);
    whit_matrix *matrix = whit_matrix_create(one.kind.name, weights.data(), one.n, one.k, &options,
                                             error, sizeof error);
    if (matrix == nullptr) check.fail("%s: %s", one.kind.name, error);
    return matrix;
}

void check_case(const KernelTable &table, Check &check, const Case &one, size_t threads) {
    whit_matrix *matrix = create(check, table, one, threads);
    if (matrix == nullptr) return;
    compare(check, one, matrix, 0);
    for (size_t used = one.kind.planes; used > 1; --used) {
        whit_matrix_use_planes(matrix, used - 1);
        compare(check, one, matrix, one.kind.planes - used + 1);
    }
    if (whit_matrix_multiply(matrix, nullptr, one.m + 1, nullptr) != -1)
        check.fail("%s: more rows than max_m were taken", one.kind.name);
    whit_matrix_free(matrix);
}

void check_refusals(const KernelTable &table, Check &check) {
    const int8_t three[4] = {3, 3, 3, 3};
    const float full[4] = {1, 1, 1, 1};
    whit_matrix_options options{};
    options.level = table.level;
    char error[200] = "";
    for (const char *kind : {"signs", "ternary", "no such kind"})
        if (whit_matrix_create(kind, three, 1, 4, &options, error, sizeof error) != nullptr)
            check.fail("%s took values that it cannot hold", kind);
    if (whit_matrix_create("two_four", full, 1, 4, &options, error, sizeof error) != nullptr)
        check.fail("two_four took four of four weights");
    options.level = "no such level";
    if (whit_matrix_create("float32", full, 1, 4, &options, error, sizeof error) != nullptr)
        check.fail("an unknown level was taken");
}

}  // namespace

void check_matrix(const KernelTable &table, Check &check) {
    check_refusals(table, check);
    for (const Kind &kind : kKinds) {
        for (int i = 0; i < (check.quick ? 2 : 12); ++i)
            check_case(table, check,
                       random_case(check, kind, check.between(1, check.quick ? 9 : 40),
                                   check.between(1, 70), check.between(1, 90)),
                       1);
        if (check.quick) continue;
        check_case(table, check, random_case(check, kind, 1, 130, 700), 1);
        check_case(table, check, random_case(check, kind, 150, 67, 333), 1);
        check_case(table, check, random_case(check, kind, 130, 1030, 300), 2);
    }
}

}  // namespace whit
