#include "selection.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(_WIN32)
#include <process.h>
#define WHIT_PROCESS _getpid()
#else
#include <unistd.h>
#define WHIT_PROCESS getpid()
#endif

namespace whit {
namespace {

constexpr size_t kMeasuredRows = 16;    // more rows are as many blocks
constexpr size_t kMeasuredWords = 256;  // more words are as many blocks
constexpr size_t kMeasuredPanels = 4;
constexpr int kRepetitions = 4;
constexpr size_t kLongestFile = 1 << 20;

bool asked_by_environment() {
    const char *value = std::getenv("WHIT_DETERMINISTIC");
    return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

#if defined(__x86_64__)
std::string ask_processor() {
    unsigned registers[12] = {};
    for (unsigned i = 0; i < 3; ++i) {
        unsigned *part = registers + 4 * i;
        if (!__get_cpuid(0x80000002u + i, part, part + 1, part + 2, part + 3)) return "x86_64";
    }
    char name[sizeof(registers) + 1] = {};
    std::memcpy(name, registers, sizeof(registers));
    return name;
}
#else
std::string ask_processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("model name", 0) == 0 || line.rfind("CPU part", 0) == 0) return line;
    }
    return "unknown processor";
}
#endif

// One word, so that the lines of the file can be taken apart at spaces.
std::string processor_name() {
    std::string name = ask_processor();
    for (char &letter : name) {
        if (letter <= ' ' || letter > '~') letter = '_';
    }
    return name;
}

size_t rows_bucket(size_t m) {
    if (m <= 4) return m;
    return m <= 8 ? 8 : kMeasuredRows;
}

std::string case_name(const KernelTable &table, size_t m, size_t words) {
    static const std::string processor = processor_name();
    return processor + " " + table.level + " " + std::to_string(kKernelVersion) + " binary " +
           std::to_string(rows_bucket(m)) + " " + std::to_string(std::min(words, kMeasuredWords));
}

const BinaryKernel *kernel_named(const KernelTable &table, const std::string &name) {
    for (const BinaryKernel &kernel : table.binary) {
        if (kernel.multiply != nullptr && name == kernel.name) return &kernel;
    }
    return nullptr;
}

// The byte popcount has nothing to prepare per row and nothing to add up at the end: it is better
// where the tables of pairs of rows (AVX2) or the adders' counters (AVX-512) are hardly used.
const BinaryKernel &kernel_by_rule(const KernelTable &table, size_t m, size_t words) {
    const BinaryKernel *shuffle = kernel_named(table, "shuffle");
    const bool few = kernel_named(table, "table") != nullptr ? m <= 3 : words < 16;
    return shuffle != nullptr && few ? *shuffle : table.binary[0];
}

// Arbitrary operands of one shape: the time of a kernel does not depend on the values.
class Trial {
  public:
    Trial(const KernelTable &table, size_t m, size_t run_count, size_t run_length)
        : m_(rows_bucket(m)), runs_{run_count, shortened(run_count, run_length), nullptr} {
        const size_t words = runs_.count * runs_.length;
        left_.assign(m_ * words + kSlackBytes / 4, 0x55AA33CCu);
        panels_.assign(kMeasuredPanels * words * table.binary_lanes + 16, 0xC3A5960Fu);
        out_.resize(m_ * kMeasuredPanels * table.binary_lanes);
        for (size_t r = 0; r < m_; ++r) rows_.push_back(left_.data() + r * words);
        for (size_t i = 0; i < run_count; ++i) {
            offsets_.push_back(static_cast<ptrdiff_t>(i * runs_.length));
        }
        runs_.offsets = offsets_.data();
    }

    double seconds(const BinaryKernel &kernel) {
        double best = 1e9;
        for (int i = 0; i < kRepetitions; ++i) {
            const auto begin = std::chrono::steady_clock::now();
            kernel.multiply(rows_.data(), m_, runs_, aligned(panels_.data()), kMeasuredPanels, 0,
                            out_.data(), out_.size() / m_);
            const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
            best = std::min(best, passed.count());
        }
        return best;
    }

  private:
    static size_t shortened(size_t run_count, size_t run_length) {
        return std::min(run_length, std::max<size_t>(kMeasuredWords / run_count, 1));
    }

    static const uint32_t *aligned(const uint32_t *address) {
        const uintptr_t number = reinterpret_cast<uintptr_t>(address);
        return address + (64 - number % 64) % 64 / sizeof(uint32_t);
    }

    size_t m_;
    Runs runs_;
    std::vector<uint32_t> left_, panels_;
    std::vector<int32_t> out_;
    std::vector<const uint32_t *> rows_;
    std::vector<ptrdiff_t> offsets_;
};

const BinaryKernel &fastest(const KernelTable &table, Trial trial) {
    const BinaryKernel *best = &table.binary[0];
    double least = trial.seconds(*best);
    for (size_t i = 1; i < kMaxBinaryKernels && table.binary[i].multiply != nullptr; ++i) {
        const double seconds = trial.seconds(table.binary[i]);
        if (seconds < least) {
            best = &table.binary[i];
            least = seconds;
        }
    }
    return *best;
}

using Choices = std::map<std::string, std::string>;

// Lines of other processors, levels and versions are kept: a home directory may be shared. A line
// that is not one of ours is dropped.
Choices read_choices(const std::string &path) {
    Choices choices;
    std::ifstream file(path, std::ios::binary);
    size_t length = 0;
    for (std::string line; std::getline(file, line);) {
        length += line.size() + 1;
        if (length > kLongestFile) break;
        const size_t space = line.rfind(' ');
        if (std::count(line.begin(), line.end(), ' ') != 6 || space + 1 == line.size()) continue;
        if (line.size() > 200 || line.find(" binary ") == std::string::npos) continue;
        choices[line.substr(0, space)] = line.substr(space + 1);
    }
    return choices;
}

// Readers see the old file or the new one, never a part.
void replace_file(const std::string &path, const Choices &choices) {
    const std::string written = path + "." + std::to_string(WHIT_PROCESS) + ".new";
    {
        std::ofstream file(written, std::ios::binary | std::ios::trunc);
        for (const auto &[name, kernel] : choices) file << name << ' ' << kernel << '\n';
        if (!file.flush()) {
            file.close();
            std::remove(written.c_str());
            return;
        }
    }
    if (std::rename(written.c_str(), path.c_str()) != 0) std::remove(written.c_str());
}

}  // namespace

Selection::Selection(std::string path, bool deterministic)
    : path_(std::move(path)), deterministic_(deterministic || asked_by_environment()) {}

void Selection::read() {
    if (was_read_) return;
    was_read_ = true;
    if (!path_.empty()) kernel_of_ = read_choices(path_);
}

void Selection::write() const {
    if (path_.empty()) return;
    Choices all = read_choices(path_);  // another process may have added some
    for (const auto &choice : kernel_of_) all[choice.first] = choice.second;
    replace_file(path_, all);
}

const BinaryKernel &select_binary(const KernelTable &table, size_t m, size_t run_count,
                                  size_t run_length, Selection &selection) {
    if (table.binary[1].multiply == nullptr) return table.binary[0];
    const size_t words = run_count * run_length;
    if (selection.deterministic_) return kernel_by_rule(table, m, words);
    const std::lock_guard<std::mutex> lock(selection.mutex_);
    try {
        selection.read();
        std::string &name = selection.kernel_of_[case_name(table, m, words)];
        const BinaryKernel *known = kernel_named(table, name);
        if (known != nullptr) return *known;
        const BinaryKernel &best = fastest(table, Trial(table, m, run_count, run_length));
        name = best.name;
        selection.write();
        return best;
    } catch (const std::bad_alloc &) {
        return kernel_by_rule(table, m, words);
    }
}

}  // namespace whit
