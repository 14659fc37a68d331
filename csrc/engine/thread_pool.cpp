#include "thread_pool.h"

#include "platform.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace whit {

namespace {

// Layers of one network follow each other within microseconds; waking a sleeping thread takes
// tens of them. So workers look for new work for a while before they sleep.
constexpr int kSpins = 4000;

// The parts of job_.
constexpr uint64_t kNumber = uint64_t{1} << 16, kOpen = uint64_t{1} << 15, kWorkers = kOpen - 1;

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(size_t threads) : process_(process_number()) {
    try {
        for (size_t thread = 1; thread < threads; ++thread)
            workers_.emplace_back([this, thread] { serve(thread); });
    } catch (...) {
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    if (process_ == process_number()) stop();
    else
        for (std::thread &worker : workers_) worker.detach();  // they live in another process
}

void ThreadPool::stop() {
    {
        std::lock_guard<std::mutex> lock(sleep_);
        stop_ = true;
        job_.fetch_add(kNumber);
    }
    wake_.notify_all();
    for (std::thread &worker : workers_) worker.join();
}

void ThreadPool::run(size_t chunks, Work work, void *context) {
    std::unique_lock<std::mutex> mine(caller_, std::defer_lock);
    if (chunks <= 1 || workers_.empty() || process_ != process_number() || !mine.try_lock()) {
        for (size_t chunk = 0; chunk < chunks; ++chunk) work(context, chunk, 0);
        return;
    }
    chunks_ = chunks, work_ = work, context_ = context;
    next_.store(0, std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(sleep_);
        const uint64_t number = job_.load(std::memory_order_relaxed) / kNumber + 1;
        job_.store(number * kNumber + kOpen, std::memory_order_release);
    }
    wake_.notify_all();
    claim(0);
    // Workers that have joined still use the fields above; later ones find the job closed.
    job_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; (job_.load(std::memory_order_acquire) & kWorkers) != 0; ++spins) {
        if (spins < kSpins) relax();
        else std::this_thread::yield();
    }
}

void ThreadPool::serve(size_t thread) {
    uint64_t seen = 0;
    const auto nothing_new = [&] { return job_.load(std::memory_order_acquire) / kNumber == seen; };
    for (;;) {
        for (int spins = 0; spins < kSpins && nothing_new(); ++spins) relax();
        if (nothing_new()) {
            std::unique_lock<std::mutex> lock(sleep_);
            wake_.wait(lock, [&] { return !nothing_new(); });
        }
        uint64_t job = job_.load(std::memory_order_acquire);
        seen = job / kNumber;
        if (stop_) return;
        while ((job & kOpen) != 0 && job / kNumber == seen)
            if (job_.compare_exchange_weak(job, job + 1, std::memory_order_acq_rel)) {
                claim(thread);
                job_.fetch_sub(1, std::memory_order_release);
                break;
            }
    }
}

void ThreadPool::claim(size_t thread) {
    for (size_t chunk; (chunk = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;)
        work_(context_, chunk, thread);
}

}  // namespace whit
