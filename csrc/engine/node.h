// One thing that a running program does, and the memory that it does it in.
#ifndef WHIT_NODE_H
#define WHIT_NODE_H

#include <algorithm>
#include <memory>

#include "../kernels/elementwise.h"
#include "../kernels/kernels.h"
#include "memory.h"
#include "thread_pool.h"
#include "values.h"

namespace whit {

class Plan;

// What one thread works with besides the arena.
struct Scratch {
    Bytes block;   // of a chain: float32 or int32
    Bytes extra;   // a second one: transposed panels, one row of another type
    Bytes rows;    // row pointers
};

// Sizes of a Scratch, the largest that any node asks for.
struct ScratchSize {
    size_t block = 0, extra = 0, rows = 0;

    void grow(const ScratchSize &other) {
        block = std::max(block, other.block);
        extra = std::max(extra, other.extra);
        rows = std::max(rows, other.rows);
    }
};

// What every node of a call shares.
struct Call {
    size_t planes = 0;            // bit planes to use, 0 for all
    ThreadPool *pool = nullptr;   // null: this call runs on one thread
    Scratch *scratch = nullptr;   // one for each thread of the pool
    // An index outside of an embedding: what was found, and the rows there are. rows 0: none.
    int64_t bad_low = 0, bad_high = 0, bad_rows = 0;
};

// One plan at work: where each of its values lies.
struct Frame {
    const Plan *plan = nullptr;
    Bytes arena;
    std::vector<uint8_t *> at;       // by number of buffer; 0 is the input
    std::vector<Frame> bodies;       // of the routes, one after the other
    size_t samples = 0;
};

class Node {
  public:
    virtual ~Node() = default;
    virtual void run(Frame &frame, Call &call) const = 0;
    virtual ScratchSize scratch() const { return {}; }
    // A rough time of one sample on one thread; decides only whether threads are worth their fork.
    virtual double nanoseconds() const { return 200; }
};

}  // namespace whit

#endif  // WHIT_NODE_H
