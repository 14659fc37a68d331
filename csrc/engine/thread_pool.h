// A small pool: chunks of work are claimed one by one, so that a slow core delays one chunk only.
//
// Not OpenMP: torch carries its own OpenMP runtime, a second one oversubscribes the cores, and its
// static splits with barriers were measured to stall 17-fold on a loaded machine.
#ifndef WHIT_THREAD_POOL_H
#define WHIT_THREAD_POOL_H

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace whit {

class ThreadPool {
  public:
    using Work = void (*)(void *context, size_t chunk, size_t thread);

    // threads: that work at once, the calling one included; at least 1. Throws std::system_error
    // where the system gives no more threads.
    explicit ThreadPool(size_t threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool &) = delete;
    ThreadPool &operator=(const ThreadPool &) = delete;

    size_t threads() const { return workers_.size() + 1; }

    // Calls work(context, chunk, thread) for every chunk below `chunks` and returns when all are
    // done; thread is below threads(), the caller's is 0. When another caller has the pool, the
    // calling thread does all chunks itself: callers never wait for one another. So it does in a
    // process that was forked from this one, which has no other threads.
    void run(size_t chunks, Work work, void *context);

  private:
    void stop();
    void serve(size_t thread);
    void claim(size_t thread);

    const long process_;
    std::vector<std::thread> workers_;
    std::mutex caller_, sleep_;
    std::condition_variable wake_;
    // Number of the job, whether it is open, and how many workers are at it: one word, so that a
    // worker joins a job that is still open or leaves it alone, and nobody waits for a late one.
    std::atomic<uint64_t> job_{0};
    std::atomic<size_t> next_{0};
    size_t chunks_ = 0;
    Work work_ = nullptr;
    void *context_ = nullptr;
    std::atomic<bool> stop_{false};
};

}  // namespace whit

#endif  // WHIT_THREAD_POOL_H
