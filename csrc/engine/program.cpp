#include "program.h"

#include <algorithm>
#include <string>

namespace whit {

namespace {

// Below so much work in all, waking another thread costs more than it brings.
constexpr double kForkNanoseconds = 50e3;
constexpr size_t kArenaBytes = size_t{1} << 19, kVectorBytes = size_t{1} << 23;
constexpr size_t kMostSamples = 128, kMostThreads = 1024;

// Samples that are computed together: enough rows for a matrix product, little enough memory.
size_t samples_of(const Network &network) {
    size_t most = network.input.elements() * 4;
    bool vectors = network.input.rank == 1;
    for (const Step &step : network.steps) {
        most = std::max(most, sample_bytes(step.shape, {natural_type(step.domain),
                                                        Order::kPlanar}));
        vectors = vectors && step.shape.rank == 1;
    }
    return std::clamp<size_t>((vectors ? kVectorBytes : kArenaBytes) / most, 1, kMostSamples);
}

Type input_type(Domain domain) { return natural_type(domain); }

}  // namespace

Program::Program(const uint8_t *file, size_t size, size_t threads, const KernelTable &kernels)
    : kernels_(kernels), pool_(std::min(threads, kMostThreads)) {
    expect(threads <= kMostThreads, "more than 1024 threads are asked for");
    const Network network = read_network(file, size);
    leading_ = network.leading;
    input_ = network.input, input_domain_ = network.input_domain;
    output_ = network.steps.empty() ? network.input : network.steps.back().shape;
    input_bytes_ = sample_bytes(input_, {input_type(input_domain_), Order::kPlanar});
    output_elements_ = output_.elements();
    samples_ = samples_of(network);
    plan_ = std::make_unique<Plan>(network, 0, network.steps.size(), 0, input_type(input_domain_),
                                   samples_, kernels);
    nanoseconds_ = plan_->nanoseconds();
    whole_.push_back(make_context(threads));
    for (size_t i = 0; threads > 1 && i < threads; ++i) single_.push_back(make_context(1));
}

std::unique_ptr<Program::Context> Program::make_context(size_t threads) const {
    auto context = std::make_unique<Context>();
    context->frame = plan_->frame();
    const ScratchSize size = plan_->scratch();
    for (size_t thread = 0; thread < threads; ++thread)
        context->scratch.push_back({Bytes(size.block), Bytes(size.extra), Bytes(size.rows)});
    return context;
}

std::unique_ptr<Program::Context> Program::take(Idle &idle, size_t threads) const {
    {
        std::lock_guard<std::mutex> lock(idle_lock_);
        if (!idle.empty()) {
            std::unique_ptr<Context> context = std::move(idle.back());
            idle.pop_back();
            return context;
        }
    }
    return make_context(threads);  // more callers at once than ever before: kept from now on
}

void Program::give(Idle &idle, std::unique_ptr<Context> context) const {
    std::lock_guard<std::mutex> lock(idle_lock_);
    idle.push_back(std::move(context));
}

void Program::run_chunk(Context &context, const uint8_t *input, size_t samples, float *output,
                        size_t planes, ThreadPool *pool) const {
    Call call;
    call.planes = planes, call.pool = pool, call.scratch = context.scratch.data();
    plan_->run(context.frame, input, output, samples, call);
    if (call.bad_rows)
        throw InputError("an embedding was given the indices " + std::to_string(call.bad_low) +
                         " to " + std::to_string(call.bad_high) + "; give indices from 0 to " +
                         std::to_string(call.bad_rows - 1));
}

// A batch cut into chunks that the threads of the pool take one by one.
struct Program::Share {
    const Program *program;
    const uint8_t *input;
    float *output;
    size_t batch, chunk, planes;
    std::mutex lock;
    std::string error;
};

void Program::run(const void *input, size_t batch, float *output, size_t planes) const {
    if (batch == 0) return;
    const uint8_t *bytes = static_cast<const uint8_t *>(input);
    const bool fork = threads() > 1 && nanoseconds_ * static_cast<double>(batch) > kForkNanoseconds;
    size_t chunks = (batch + samples_ - 1) / samples_;
    if (!fork || batch < 2 * threads()) {
        std::unique_ptr<Context> context = take(whole_, threads());
        const size_t chunk = (batch + chunks - 1) / chunks;
        for (size_t first = 0; first < batch; first += chunk)
            run_chunk(*context, bytes + first * input_bytes_, std::min(chunk, batch - first),
                      output + first * output_elements_, planes, fork ? &pool_ : nullptr);
        give(whole_, std::move(context));
        return;
    }
    // One fork for the whole network: every thread takes chunks of samples.
    chunks = (chunks + threads() - 1) / threads() * threads();
    Share share{this, bytes, output, batch, (batch + chunks - 1) / chunks, planes, {}, {}};
    pool_.run((batch + share.chunk - 1) / share.chunk,
              [](void *context, size_t index, size_t) {
                  Share &own = *static_cast<Share *>(context);
                  const Program &program = *own.program;
                  const size_t first = index * own.chunk;
                  std::unique_ptr<Context> taken = program.take(program.single_, 1);
                  try {
                      program.run_chunk(*taken, own.input + first * program.input_bytes_,
                                        std::min(own.chunk, own.batch - first),
                                        own.output + first * program.output_elements_, own.planes,
                                        nullptr);
                  } catch (const std::exception &error) {
                      std::lock_guard<std::mutex> lock(own.lock);
                      own.error = error.what();
                  }
                  program.give(program.single_, std::move(taken));
              },
              &share);
    if (!share.error.empty()) throw InputError(share.error);
}

}  // namespace whit
