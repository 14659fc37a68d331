// The choice of a binary kernel: by rule, by measurement, and what the file of choices does to it.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "../kernels/selection.h"
#include "check.h"

namespace whit {

void check_selection(const KernelTable &table, Check &check);

namespace {

struct Shape {
    size_t m, run_count, run_length;
};

const Shape kShapes[] = {{1, 1, 128}, {2, 1, 1}, {3, 3, 6}, {8, 1, 7}, {64, 3, 48}, {40, 9, 700}};

bool belongs(const KernelTable &table, const BinaryKernel &kernel) {
    return &kernel >= table.binary && &kernel < table.binary + kMaxBinaryKernels &&
           kernel.multiply != nullptr;
}

const BinaryKernel &select(const KernelTable &table, const Shape &shape, Selection &selection) {
    return select_binary(table, shape.m, shape.run_count, shape.run_length, selection);
}

std::string text_of(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void check_choices(const KernelTable &table, Check &check) {
    Selection by_rule("", true), measured;
    for (const Shape &shape : kShapes) {
        const BinaryKernel &kernel = select(table, shape, by_rule);
        if (!belongs(table, kernel)) check.fail("by rule: not a kernel of the table");
        if (&kernel != &select(table, shape, by_rule)) check.fail("by rule: changed its mind");
        const BinaryKernel &fast = select(table, shape, measured);
        if (!belongs(table, fast)) check.fail("measured: not a kernel of the table");
        if (!measured.deterministic() && &fast != &select(table, shape, measured)) {
            check.fail("measured: measured again");
        }
    }
}

// The file says so: whichever kernel it names is taken, and it is taken from the file only.
void check_file(const KernelTable &table, const std::string &path, Check &check) {
    const Shape shape = kShapes[0];
    Selection first(path);
    select(table, shape, first);
    const std::string line = text_of(path);
    if (line.empty()) return check.fail("no file was written");
    const std::string start = line.substr(0, line.rfind(' ') + 1);
    for (size_t i = 0; i < kMaxBinaryKernels && table.binary[i].multiply != nullptr; ++i) {
        std::ofstream(path) << "garbage\n" << start << table.binary[i].name << "\n\xff\x01 binary";
        Selection later(path);
        if (&select(table, shape, later) != &table.binary[i]) check.fail("the file was ignored");
    }
    std::ofstream(path) << start << "no_such_kernel\n";
    Selection other(path);
    if (!belongs(table, select(table, shape, other))) check.fail("unknown name in the file");
    if (text_of(path).find("no_such_kernel") != std::string::npos) check.fail("name not replaced");
}

void check_damaged_file(const KernelTable &table, const std::string &path, Check &check) {
    for (int i = 0; i < 5; ++i) {
        std::string bytes(check.between(0, 3000), ' ');
        for (char &byte : bytes) byte = static_cast<char>(check.random());
        std::ofstream(path, std::ios::binary) << bytes;
        Selection selection(path);
        if (!belongs(table, select(table, kShapes[1], selection))) check.fail("damaged file");
        if (text_of(path).find(" binary ") == std::string::npos) check.fail("not written again");
    }
    Selection nowhere("/no/such/folder/choices");
    if (!belongs(table, select(table, kShapes[1], nowhere))) check.fail("file not writable");
}

void check_threads(const KernelTable &table, const std::string &path, Check &check) {
    std::remove(path.c_str());
    Selection selection(path);
    const BinaryKernel *chosen[8] = {};
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            for (const Shape &shape : kShapes) chosen[t] = &select(table, shape, selection);
        });
    }
    for (std::thread &thread : threads) thread.join();
    for (size_t t = 1; t < 8; ++t) {
        if (chosen[t] != chosen[0]) check.fail("two threads, two choices");
    }
}

}  // namespace

void check_selection(const KernelTable &table, Check &check) {
    check_choices(table, check);
    // Quick runs are those in an emulator, that has neither files nor threads.
    if (check.quick || table.binary[1].multiply == nullptr || Selection().deterministic()) return;
    const char *folder = std::getenv("TMPDIR");
    const std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/whit_selection_" +
                             std::to_string(check.random()) + std::to_string(check.random());
    check_file(table, path, check);
    check_damaged_file(table, path, check);
    check_threads(table, path, check);
    std::remove(path.c_str());
}

}  // namespace whit
