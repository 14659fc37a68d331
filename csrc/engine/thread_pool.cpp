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
        round_.fetch_add(1);
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
    busy_.store(workers_.size(), std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(sleep_);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    claim(0);
    // Every worker has to report, also one that came too late for any chunk: it may still be
    // about to read the fields above.
    for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
        if (spins < kSpins) relax();
        else std::this_thread::yield();
    }
}

void ThreadPool::serve(size_t thread) {
    size_t seen = 0;
    for (;;) {
        for (int spins = 0; spins < kSpins && round_.load(std::memory_order_acquire) == seen; ++spins)
            relax();
        if (round_.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(sleep_);
            wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
        }
        seen = round_.load(std::memory_order_acquire);
        if (stop_) return;
        claim(thread);
        busy_.fetch_sub(1, std::memory_order_release);
    }
}

void ThreadPool::claim(size_t thread) {
    for (size_t chunk; (chunk = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;)
        work_(context_, chunk, thread);
}

}  // namespace whit
