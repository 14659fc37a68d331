// What the core asks the operating system for; the only file besides the C++ library that does.
#ifndef WHIT_PLATFORM_H
#define WHIT_PLATFORM_H

#include <string>

namespace whit {

// Where measured choices of kernels are kept: the environment variable WHIT_KERNEL_CACHE (empty:
// nowhere), else whit/kernels.txt in the user's cache, whose folder is made. Empty for nowhere.
std::string kernel_cache_path();

// The number of this process: a fork has another one, and none of the threads.
long process_number();

// The time that this thread has had a processor, in nanoseconds.
double thread_nanoseconds();

}  // namespace whit

#endif  // WHIT_PLATFORM_H
