// Which instruction sets this processor has, and the kernels of each. Asked once, at first use.
//
// The build defines WHIT_FILL_<family>_<level> as the function that fills in this part of a table,
// or as nullptr where the level has no such file or the compiler cannot target it.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.h"
#include "whit.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace whit {
namespace {

using Fill = void (*)(KernelTable &);
using Detect = bool (*)();

struct Level {
    const char *name;
    Detect available;
    Fill binary, integer, floats, elementwise;

    bool compiled() const { return binary || integer || floats || elementwise; }
};

#if defined(__x86_64__)
// __builtin_cpu_supports also asks (by XGETBV) whether the system saves the wide registers.
bool has_f16c() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2") && has_f16c();
}

bool has_avx512bw() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512vnni() { return has_avx512bw() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx512vpopcntdq() {
    return has_avx512vnni() && __builtin_cpu_supports("avx512vpopcntdq");
}
#else
bool has_avx2() { return false; }
bool has_avx512bw() { return false; }
bool has_avx512vnni() { return false; }
bool has_avx512vpopcntdq() { return false; }
#endif

bool has_scalar() { return true; }

bool has_neon() {
#if defined(__aarch64__)
    return true;  // part of the base architecture
#else
    return false;
#endif
}

#define WHIT_LEVEL(level)                                                                       \
    {#level, has_##level, WHIT_FILL_binary_##level, WHIT_FILL_integer_##level,                  \
     WHIT_FILL_floats_##level, WHIT_FILL_elementwise_##level}

// From the plainest to the richest; each has all that the ones before it have.
const Level kLevels[] = {WHIT_LEVEL(scalar),     WHIT_LEVEL(neon),
                         WHIT_LEVEL(avx2),       WHIT_LEVEL(avx512bw),
                         WHIT_LEVEL(avx512vnni), WHIT_LEVEL(avx512vpopcntdq)};
constexpr size_t kLevelCount = sizeof(kLevels) / sizeof(kLevels[0]);

// Kernels of the level below read panels of other lanes once a level has chosen its own.
void drop_inherited_binary(KernelTable &table, const KernelTable &below) {
    if (table.binary_lanes == below.binary_lanes) return;
    size_t kept = 0;
    for (const BinaryKernel &kernel : table.binary) {
        bool inherited = false;
        for (const BinaryKernel &other : below.binary)
            inherited = inherited || kernel.multiply == other.multiply;
        if (!inherited) table.binary[kept++] = kernel;
    }
    for (; kept < kMaxBinaryKernels; ++kept) table.binary[kept] = BinaryKernel{};
}

KernelTable filled_on_top(const KernelTable &below, const Level &level) {
    KernelTable table = below;
    table.level = level.name;
    for (Fill fill : {level.binary, level.integer, level.floats, level.elementwise})
        if (fill != nullptr) fill(table);
    drop_inherited_binary(table, below);
    return table;
}

struct Tables {
    KernelTable of[kLevelCount] = {};
    bool available[kLevelCount] = {};

    Tables() {
        KernelTable below = {};
        for (size_t i = 0; i < kLevelCount; ++i) {
            available[i] = kLevels[i].compiled() && kLevels[i].available();
            if (available[i]) below = of[i] = filled_on_top(below, kLevels[i]);
        }
    }
};

const Tables &tables() {
    static const Tables all;
    return all;
}

const KernelTable *best_table() {
    for (size_t i = kLevelCount; i-- > 0;)
        if (tables().available[i]) return &tables().of[i];
    return nullptr;
}

bool known_level(const char *name) {
    for (const Level &level : kLevels)
        if (std::strcmp(level.name, name) == 0) return true;
    return false;
}

struct Choice {
    const KernelTable *table = nullptr;
    const char *error = nullptr;

    Choice() {
        const char *wanted = std::getenv("WHIT_ISA");
        if (wanted == nullptr || *wanted == '\0') {
            table = best_table();
            if (table == nullptr) error = "whit was built without any kernel";
            return;
        }
        table = kernel_table_of(wanted);
        if (table != nullptr) return;
        error = known_level(wanted)
                    ? "WHIT_ISA names an instruction set that this processor or this build lacks"
                    : "WHIT_ISA must be scalar, neon, avx2, avx512bw, avx512vnni or "
                      "avx512vpopcntdq";
    }
};

}  // namespace

const KernelTable *kernel_table_of(const char *level) {
    for (size_t i = 0; i < kLevelCount; ++i)
        if (tables().available[i] && std::strcmp(kLevels[i].name, level) == 0)
            return &tables().of[i];
    return nullptr;
}

const KernelTable *kernel_table(const char **error) {
    static const Choice choice;
    if (error != nullptr) *error = choice.error;
    return choice.table;
}

}  // namespace whit
