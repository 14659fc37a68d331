// Which of several kernels of one instruction set to use for a shape.
//
// All kernels of a table give identical results: the choice decides about speed only. So it may be
// measured, may differ from run to run and from machine to machine, and a stale or wrong memory of
// it does no harm.
#ifndef WHIT_SELECTION_H
#define WHIT_SELECTION_H

#include <map>
#include <mutex>
#include <string>

#include "kernels.h"

namespace whit {

// To be raised when a binary kernel is changed: older measurements are then ignored.
constexpr int kKernelVersion = 1;

// The choices made so far. May be used by several threads at a time.
class Selection {
  public:
    // path: a text file that keeps the measurements for later processes, or empty for none. It is
    // read at first use and replaced as a whole; whatever cannot be read or written is passed over.
    // deterministic: a fixed rule instead of measurements, no file. Set by the environment variable
    // WHIT_DETERMINISTIC=1 as well.
    explicit Selection(std::string path = "", bool deterministic = false);

    bool deterministic() const { return deterministic_; }

  private:
    friend const BinaryKernel &select_binary(const KernelTable &table, size_t m, size_t run_count,
                                             size_t run_length, Selection &selection);

    void read();
    void write() const;

    const std::string path_;
    const bool deterministic_;
    std::mutex mutex_;
    bool was_read_ = false;
    std::map<std::string, std::string> kernel_of_;  // by the line of the file that names the case
};

// A kernel of table.binary for rows of run_count runs of run_length words. Measures at most once
// for each level, size of m and number of words, in well under a millisecond.
const BinaryKernel &select_binary(const KernelTable &table, size_t m, size_t run_count,
                                  size_t run_length, Selection &selection);

}  // namespace whit

#endif  // WHIT_SELECTION_H
