#include "../generic/elementwise.h"

#include "../generic/peak.h"
#include "../kernels.h"

namespace whit {

void fill_elementwise_avx512bw(KernelTable &table) {
    table.elementwise = &kElementwise;
    table.peak = {peak_multiply_add, peak_logic};
}

}  // namespace whit
