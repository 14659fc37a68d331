#include "../generic/elementwise.h"

#include "../kernels.h"

namespace whit {

void fill_elementwise_avx2(KernelTable &table) { table.elementwise = &kElementwise; }

}  // namespace whit
