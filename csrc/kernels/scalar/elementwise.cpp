#include "../generic/elementwise.h"

#include "../kernels.h"

namespace whit {

void fill_elementwise_scalar(KernelTable &table) { table.elementwise = &kElementwise; }

}  // namespace whit
