#include "platform.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

namespace whit {

std::string kernel_cache_path() {
    if (const char *path = std::getenv("WHIT_KERNEL_CACHE")) return path;
    const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
    std::string folder;
    if (cache && *cache) folder = cache;
    else if (home && *home) folder = std::string(home) + "/.cache";
    else return "";
    // Where a folder cannot be made the file cannot be written, and measurements are not kept.
    ::mkdir(folder.c_str(), 0777);
    ::mkdir((folder + "/whit").c_str(), 0777);
    return folder + "/whit/kernels.txt";
}

long process_number() { return static_cast<long>(::getpid()); }

double thread_nanoseconds() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

}  // namespace whit
