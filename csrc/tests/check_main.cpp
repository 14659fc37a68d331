// whit_check: compares every kernel with its reference, at every instruction set there is.
//
//   whit_check [--quick] [--seed N] [--only family] [level ...]
//
// Prints one line for each level and family. Exit status 1: a kernel is wrong; 2: a level is not
// there. The build defines WHIT_CHECKS as WHIT_CHECK(binary) WHIT_CHECK(integer) and so on, one for
// each check_<family>.cpp.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "kernels.h"

namespace whit {

#define WHIT_CHECK(family) void check_##family(const KernelTable &table, Check &check);
WHIT_CHECKS
#undef WHIT_CHECK

namespace {

struct Family {
    const char *name;
    void (*check)(const KernelTable &table, Check &check);
};

#define WHIT_CHECK(family) Family{#family, check_##family},
const std::vector<Family> kFamilies = {WHIT_CHECKS};
#undef WHIT_CHECK

struct Options {
    bool quick = false;
    uint64_t seed = 1;
    std::string only;
    std::vector<std::string> levels;
};

Options parse(int count, char **arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        if (argument == "--quick")
            options.quick = true;
        else if (argument == "--seed" && i + 1 < count)
            options.seed = std::strtoull(arguments[++i], nullptr, 10);
        else if (argument == "--only" && i + 1 < count)
            options.only = arguments[++i];
        else
            options.levels.push_back(argument);
    }
    if (!options.levels.empty()) return options;
    for (const char *level :
         {"scalar", "neon", "avx2", "avx512bw", "avx512vnni", "avx512vpopcntdq"})
        if (kernel_table_of(level) != nullptr) options.levels.emplace_back(level);
    return options;
}

bool passes(const KernelTable &table, const Family &family, const Options &options) {
    const std::string name = std::string(table.level) + " " + family.name;
    Check check(name.c_str(), options.seed, options.quick);
    const auto begin = std::chrono::steady_clock::now();
    family.check(table, check);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    std::printf("%-16s %-12s %s  %.2f s\n", table.level, family.name,
                check.failures() == 0 ? "equal" : "WRONG", seconds.count());
    std::fflush(stdout);
    return check.failures() == 0;
}

}  // namespace
}  // namespace whit

int main(int count, char **arguments) {
    const whit::Options options = whit::parse(count, arguments);
    bool right = true;
    for (const std::string &level : options.levels) {
        const whit::KernelTable *table = whit::kernel_table_of(level.c_str());
        if (table == nullptr) {
            std::printf("%s: this processor or this build lacks it\n", level.c_str());
            return 2;
        }
        for (const whit::Family &family : whit::kFamilies)
            if (options.only.empty() || options.only == family.name)
                right = whit::passes(*table, family, options) && right;
    }
    return right ? 0 : 1;
}
