// whit._native: NumPy arrays in, NumPy arrays out. The only file that knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit.h"

namespace nb = nanobind;

namespace {

using Words = nb::ndarray<const uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<nb::numpy, int32_t, nb::ndim<2>>;
using Kernel = void (*)(const uint64_t *, const uint64_t *, int32_t *, size_t, size_t, size_t,
                        int32_t);

void check(const Words &a, const Words &b, int64_t n) {
    if (a.shape(1) != b.shape(1))
        throw std::invalid_argument("a and b must have equally many words in a row; got " +
                                    std::to_string(a.shape(1)) + " and " +
                                    std::to_string(b.shape(1)));
    const uint64_t most = 64 * static_cast<uint64_t>(a.shape(1));
    if (n < 0 || static_cast<uint64_t>(n) > most || n > std::numeric_limits<int32_t>::max())
        throw std::invalid_argument("n must be between 0 and the " + std::to_string(most) +
                                    " bits of a row; got " + std::to_string(n));
}

Sums apply(Kernel kernel, const Words &a, const Words &b, int64_t n) {
    check(a, b, n);
    const size_t rows_a = a.shape(0), rows_b = b.shape(0);
    auto storage = std::make_unique<int32_t[]>(rows_a * rows_b);
    {
        nb::gil_scoped_release unlocked;
        kernel(a.data(), b.data(), storage.get(), rows_a, rows_b, a.shape(1),
               static_cast<int32_t>(n));
    }
    int32_t *data = storage.get();
    nb::capsule owner(data, [](void *p) noexcept { delete[] static_cast<int32_t *>(p); });
    storage.release();
    return Sums(data, {rows_a, rows_b}, owner);
}

std::vector<std::string> feature_names() {
    const uint32_t found = whit_cpu_features();
    std::vector<std::string> names;
    if (found & WHIT_CPU_POPCNT) names.emplace_back("popcnt");
    if (found & WHIT_CPU_AVX2) names.emplace_back("avx2");
    if (found & WHIT_CPU_AVX512F) names.emplace_back("avx512f");
    if (found & WHIT_CPU_AVX512_VPOPCNTDQ) names.emplace_back("avx512vpopcntdq");
    return names;
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The C++ core of whit. Use it through whit.runtime.native.";
    module.def(
        "binary_gemm",
        [](const Words &a, const Words &b, int64_t n) { return apply(whit_binary_gemm, a, b, n); },
        nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("n"));
    module.def(
        "binary_gemm_reference",
        [](const Words &a, const Words &b, int64_t n) {
            return apply(whit_binary_gemm_reference, a, b, n);
        },
        nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("n"));
    module.def("cpu_features", &feature_names);
}
