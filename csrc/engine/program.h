// A loaded network that many threads may call at once.
#ifndef WHIT_PROGRAM_H
#define WHIT_PROGRAM_H

#include <mutex>

#include "plan.h"

namespace whit {

// An input that the network cannot take, found while it ran.
struct InputError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Program {
  public:
    // file: the bytes of a .whit file; they are not needed afterwards. Throws LoadError.
    Program(const uint8_t *file, size_t size, size_t threads, const KernelTable &kernels);

    // input: [batch][input elements] of the input's dtype; output: float32 [batch][elements];
    // planes: bit planes to use of weights that have them, 0 for all. Throws InputError.
    void run(const void *input, size_t batch, float *output, size_t planes) const;

    const Shape &input() const { return input_; }
    Domain input_domain() const { return input_domain_; }
    const Shape &output() const { return output_; }
    size_t threads() const { return pool_.threads(); }
    const char *level() const { return kernels_.level; }
    size_t arena_bytes() const { return plan_->arena_bytes(); }
    size_t samples() const { return samples_; }
    const Plan &plan() const { return *plan_; }

  private:
    struct Context {
        Frame frame;
        std::vector<Scratch> scratch;
    };
    struct Share;
    std::unique_ptr<Context> make_context() const;
    std::unique_ptr<Context> take() const;
    void give(std::unique_ptr<Context> context) const;
    void run_chunk(Context &context, const uint8_t *input, size_t samples, float *output,
                   size_t planes, ThreadPool *pool) const;

    const KernelTable &kernels_;
    Shape input_, output_;
    Domain input_domain_;
    size_t input_bytes_, output_elements_;
    size_t samples_;  // the most of one chunk
    std::unique_ptr<Plan> plan_;
    double nanoseconds_;
    mutable ThreadPool pool_;
    mutable std::mutex idle_lock_;
    mutable std::vector<std::unique_ptr<Context>> idle_;
};

}  // namespace whit

#endif  // WHIT_PROGRAM_H
