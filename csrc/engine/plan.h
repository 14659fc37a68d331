// A scope of a network as nodes in order, with a place in the arena for every value.
#ifndef WHIT_PLAN_H
#define WHIT_PLAN_H

#include "network.h"
#include "node.h"

namespace whit {

// Bytes of the arena; alive from the first to the last node that touches them.
struct Buffer {
    size_t sample_bytes = 0, fixed_bytes = 0;
    size_t first = 0, last = 0;
    size_t offset = 0;
};

class Plan {
  public:
    // The steps first..last of a network, which read the value `own`; own_type: its type in
    // memory (planar). samples: the most of one call. Throws LoadError.
    Plan(const Network &network, size_t first, size_t last, size_t own, Type own_type,
         size_t samples, const KernelTable &kernels);
    ~Plan();

    // The result of a call is float32, planar; input as the scope begins with.
    void run(Frame &frame, const uint8_t *input, float *output, size_t samples, Call &call) const;

    // Everything that a call needs; allocated once for each call at a time.
    Frame frame() const;
    ScratchSize scratch() const { return scratch_; }
    size_t arena_bytes() const { return arena_bytes_; }
    double nanoseconds() const;

  private:
    friend class Planner;
    void place_buffers(size_t samples);

    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Buffer> buffers_;            // 0 is the input, which every call copies
    std::vector<const Plan *> bodies_;       // of all routes, in order; owned by their nodes
    size_t result_ = 0;                      // buffer of float32, planar
    size_t result_bytes_ = 0;
    bool result_outside_ = false;            // the caller's memory is the buffer
    size_t arena_bytes_ = 0;
    ScratchSize scratch_;
};

}  // namespace whit

#endif  // WHIT_PLAN_H
