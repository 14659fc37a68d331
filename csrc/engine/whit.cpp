// The C interface of programs: C++ exceptions end here.
#include "whit.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <system_error>

#include "platform.h"
#include "program.h"

struct whit_program {
    whit::Program program;
};

namespace {

void tell(char *error, const char *message) {
    if (error != nullptr) std::snprintf(error, WHIT_ERROR_BYTES, "%s", message);
}

size_t axes_of(const whit::Shape &shape, size_t *axes) {
    for (size_t axis = 0; axis < shape.rank; ++axis) axes[axis] = shape.axes[axis];
    return shape.rank;
}

// The best of some short runs, by the time of this thread alone.
double peak_rate(double (*work)(size_t)) {
    double best = 0;
    for (int run = 0; run < 20; ++run) {
        const double start = whit::thread_nanoseconds(), done = work(20000);
        best = std::max(best, done / (whit::thread_nanoseconds() - start));
    }
    return best;
}

}  // namespace

extern "C" {

double whit_peak_gflops(void) {
    const whit::KernelTable *kernels = whit::kernel_table(nullptr);
    return kernels == nullptr ? 0 : peak_rate(kernels->peak.multiply_add);
}

double whit_peak_logic_gbits(void) {
    const whit::KernelTable *kernels = whit::kernel_table(nullptr);
    return kernels == nullptr ? 0 : peak_rate(kernels->peak.logic);
}

const char *whit_isa(char *error) {
    const char *reason = nullptr;
    const whit::KernelTable *kernels = whit::kernel_table(&reason);
    if (kernels == nullptr) tell(error, reason);
    return kernels == nullptr ? nullptr : kernels->level;
}

whit_program *whit_load(const void *bytes, size_t size, size_t threads, char *error) {
    const char *reason = nullptr;
    const whit::KernelTable *kernels = whit::kernel_table(&reason);
    if (kernels == nullptr) return tell(error, reason), nullptr;
    try {
        return new whit_program{
            {static_cast<const uint8_t *>(bytes), size, threads ? threads : 1, *kernels}};
    } catch (const std::bad_alloc &) {
        tell(error, "there is not enough memory for this network");
    } catch (const std::system_error &) {
        tell(error, "the system does not give so many threads");
    } catch (const std::exception &problem) {
        tell(error, problem.what());
    }
    return nullptr;
}

whit_program *whit_load_file(const char *path, size_t threads, char *error) {
    std::FILE *file = std::fopen(path, "rb");
    if (file == nullptr) return tell(error, "the file cannot be opened"), nullptr;
    whit_program *program = nullptr;
    try {
        std::vector<uint8_t> bytes;
        uint8_t piece[1 << 16];
        while (const size_t read = std::fread(piece, 1, sizeof piece, file))
            bytes.insert(bytes.end(), piece, piece + read);
        if (std::ferror(file)) tell(error, "the file cannot be read");
        else program = whit_load(bytes.data(), bytes.size(), threads, error);
    } catch (const std::bad_alloc &) {
        tell(error, "there is not enough memory for this file");
    }
    std::fclose(file);
    return program;
}

void whit_free(whit_program *program) { delete program; }

int whit_run(const whit_program *program, const void *input, size_t batch, size_t planes,
             float *output, char *error) {
    try {
        program->program.run(input, batch, output, planes);
        return 0;
    } catch (const std::exception &problem) {
        tell(error, problem.what());
        return 1;
    }
}

enum whit_dtype whit_input_dtype(const whit_program *program) {
    switch (program->program.input_domain()) {
        case whit::Domain::kByte: return WHIT_UINT8;
        case whit::Domain::kInteger: return WHIT_INT32;
        default: return WHIT_FLOAT32;
    }
}

size_t whit_input_axes(const whit_program *program, size_t *axes) {
    return axes_of(program->program.input(), axes);
}
size_t whit_output_axes(const whit_program *program, size_t *axes) {
    return axes_of(program->program.output(), axes);
}
int whit_output_leading(const whit_program *program) { return program->program.leading(); }
size_t whit_arena_bytes(const whit_program *program) { return program->program.arena_bytes(); }
size_t whit_chunk_samples(const whit_program *program) { return program->program.samples(); }

}  // extern "C"
