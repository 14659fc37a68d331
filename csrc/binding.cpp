// whit._native: NumPy arrays in, NumPy arrays out. The only file that knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit.h"
#include "whit_matrix.h"

namespace nb = nanobind;

namespace {

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

// A loaded network. The Python side has checked shape and dtype of what it hands over.
class Program {
  public:
    Program(const nb::bytes &content, size_t threads) {
        char error[WHIT_ERROR_BYTES];
        program_ = whit_load(content.c_str(), content.size(), threads, error);
        if (program_ == nullptr) throw std::invalid_argument(error);
        size_t axes[4];
        inputs_ = outputs_ = 1;
        for (size_t axis = whit_input_axes(program_, axes); axis-- > 0;) inputs_ *= axes[axis];
        for (size_t axis = whit_output_axes(program_, axes); axis-- > 0;) outputs_ *= axes[axis];
    }
    ~Program() { whit_free(program_); }
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    void run(const Values &x, Array out, size_t planes) const {
        const size_t batch = x.ndim() ? x.shape(0) : 0;
        const bool floats = whit_input_dtype(program_) == WHIT_FLOAT32;
        if (x.size() != batch * inputs_ || x.itemsize() != item_bytes())
            throw std::invalid_argument("the input has another size than the program expects");
        if (out.size() != batch * outputs_ || out.dtype() != nb::dtype<float>())
            throw std::invalid_argument("out must be float32 [batch, outputs]");
        char error[WHIT_ERROR_BYTES];
        bool finite = true;
        int status = 0;
        {
            nb::gil_scoped_release unlocked;
            if (floats) finite = all_finite(static_cast<const float *>(x.data()), x.size());
            if (finite)
                status = whit_run(program_, x.data(), batch, planes,
                                  static_cast<float *>(out.data()), error);
        }
        if (!finite) throw std::invalid_argument("the input holds NaN or infinite numbers; give finite ones");
        if (status != 0) throw std::invalid_argument(error);
    }

    size_t arena_bytes() const { return whit_arena_bytes(program_); }
    size_t chunk_samples() const { return whit_chunk_samples(program_); }

  private:
    size_t item_bytes() const { return whit_input_dtype(program_) == WHIT_UINT8 ? 1 : 4; }

    // x * 0 is 0 for finite numbers and NaN for all others; a sum of them keeps the NaN.
    static bool all_finite(const float *x, size_t n) {
        float sums[16] = {};
        size_t i = 0;
        for (; i + 16 <= n; i += 16)
            for (size_t lane = 0; lane < 16; ++lane) sums[lane] += x[i + lane] * 0.0f;
        for (; i < n; ++i) sums[0] += x[i] * 0.0f;
        float total = 0;
        for (float sum : sums) total += sum;
        return total == 0.0f;
    }

    whit_program *program_;
    size_t inputs_, outputs_;
};

// One packed matrix: for tests and benchmarks of single kernels.
class Matrix {
  public:
    Matrix(const std::string &kind, const Values &values, const nb::object &level,
           const nb::object &kernel, size_t planes, size_t threads, size_t max_rows) {
        if (values.ndim() != 2) throw std::invalid_argument("values must be a matrix [n, k]");
        const size_t width = kind == "planes" || kind == "plane_floats" ? 2
                             : kind == "float32" || kind == "two_four" || kind == "sparse" ? 4
                                                                                             : 1;
        if (values.itemsize() != width)
            throw std::invalid_argument("values of kind '" + kind + "' have " +
                                        std::to_string(width) + " bytes each");
        const std::string level_name = level.is_none() ? "" : nb::cast<std::string>(level);
        const std::string kernel_name = kernel.is_none() ? "" : nb::cast<std::string>(kernel);
        whit_matrix_options options{};
        options.level = level.is_none() ? nullptr : level_name.c_str();
        options.kernel = kernel.is_none() ? nullptr : kernel_name.c_str();
        options.planes = planes, options.threads = threads, options.max_m = max_rows;
        char error[WHIT_ERROR_BYTES];
        n_ = values.shape(0);
        matrix_ = whit_matrix_create(kind.c_str(), values.data(), n_, values.shape(1), &options,
                                     error, sizeof error);
        if (matrix_ == nullptr) throw std::invalid_argument(error);
    }
    ~Matrix() { whit_matrix_free(matrix_); }
    Matrix(const Matrix &) = delete;
    Matrix &operator=(const Matrix &) = delete;

    void multiply(const Values &left, Array out) {
        const size_t m = left.ndim() ? left.shape(0) : 0;
        if (left.nbytes() != m * whit_matrix_row_bytes(matrix_))
            throw std::invalid_argument("a row of the left side has " +
                                        std::to_string(whit_matrix_row_bytes(matrix_)) + " bytes");
        const bool floats = whit_matrix_gives_floats(matrix_) != 0;
        if (out.size() != m * n_ ||
            out.dtype() != (floats ? nb::dtype<float>() : nb::dtype<int32_t>()))
            throw std::invalid_argument(std::string("out must be ") +
                                        (floats ? "float32" : "int32") + " [m, n]");
        int status;
        {
            nb::gil_scoped_release unlocked;
            status = whit_matrix_multiply(matrix_, left.data(), m, out.data());
        }
        if (status != 0) throw std::invalid_argument("more rows than max_rows");
    }

    void use_planes(size_t used) {
        if (whit_matrix_use_planes(matrix_, used) != 0)
            throw std::invalid_argument("use 1 to all of the planes");
    }
    std::string level() const { return whit_matrix_level(matrix_); }
    size_t bytes() const { return whit_matrix_bytes(matrix_); }

  private:
    whit_matrix *matrix_;
    size_t n_;
};

std::vector<std::string> feature_names() {
    const uint32_t found = whit_cpu_features();
    std::vector<std::string> names;
    if (found & WHIT_CPU_POPCNT) names.emplace_back("popcnt");
    if (found & WHIT_CPU_AVX2) names.emplace_back("avx2");
    if (found & WHIT_CPU_AVX512F) names.emplace_back("avx512f");
    if (found & WHIT_CPU_AVX512BW) names.emplace_back("avx512bw");
    if (found & WHIT_CPU_AVX512_VNNI) names.emplace_back("avx512vnni");
    if (found & WHIT_CPU_AVX512_VPOPCNTDQ) names.emplace_back("avx512vpopcntdq");
    if (found & WHIT_CPU_NEON) names.emplace_back("neon");
    return names;
}

std::string isa() {
    char error[WHIT_ERROR_BYTES];
    const char *level = whit_isa(error);
    if (level == nullptr) throw std::runtime_error(error);
    return level;
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The C++ core of whit. Use it through whit.runtime.native.";
    module.def("cpu_features", &feature_names);
    module.def("isa", &isa);
    module.def("peak_gflops", &whit_peak_gflops);
    module.def("peak_logic_gbits", &whit_peak_logic_gbits);
    nb::class_<Program>(module, "Program")
        .def(nb::init<const nb::bytes &, size_t>(), nb::arg("content"), nb::arg("threads") = 1)
        .def("run", &Program::run, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             nb::arg("planes") = 0)
        .def_prop_ro("arena_bytes", &Program::arena_bytes)
        .def_prop_ro("chunk_samples", &Program::chunk_samples);
    nb::class_<Matrix>(module, "Matrix")
        .def(nb::init<const std::string &, const Values &, const nb::object &, const nb::object &,
                      size_t, size_t, size_t>(),
             nb::arg("kind"), nb::arg("values").noconvert(), nb::arg("level") = nb::none(),
             nb::arg("kernel") = nb::none(), nb::arg("planes") = 0, nb::arg("threads") = 1,
             nb::arg("max_rows") = 0)
        .def("multiply", &Matrix::multiply, nb::arg("left").noconvert(),
             nb::arg("out").noconvert())
        .def("use_planes", &Matrix::use_planes, nb::arg("used"))
        .def_prop_ro("level", &Matrix::level)
        .def_prop_ro("bytes", &Matrix::bytes);
}
