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
    // Whether the first axis of the output counts members.
    bool leading() const { return leading_; }
    size_t threads() const { return pool_.threads(); }
    size_t arena_bytes() const { return plan_->arena_bytes(); }
    size_t samples() const { return samples_; }

  private:
    struct Context {
        Frame frame;
        std::vector<Scratch> scratch;
    };
    struct Share;
    using Idle = std::vector<std::unique_ptr<Context>>;
    std::unique_ptr<Context> make_context(size_t threads) const;
    std::unique_ptr<Context> take(Idle &idle, size_t threads) const;
    void give(Idle &idle, std::unique_ptr<Context> context) const;
    void run_chunk(Context &context, const uint8_t *input, size_t samples, float *output,
                   size_t planes, ThreadPool *pool) const;

    const KernelTable &kernels_;
    Shape input_, output_;
    bool leading_ = false;
    Domain input_domain_;
    size_t input_bytes_, output_elements_;
    size_t samples_;  // the most of one chunk
    std::unique_ptr<Plan> plan_;
    double nanoseconds_;
    mutable ThreadPool pool_;
    mutable std::mutex idle_lock_;
    // Of calls that use all threads inside of large layers, and of threads with their own samples.
    mutable Idle whole_, single_;
};

}  // namespace whit

#endif  // WHIT_PROGRAM_H
