// The CUDA module: the twins of the CPU kernels under the same names. It imports without a driver.
#include <nanobind/nanobind.h>

#include "bind_errors.h"

namespace nb = nanobind;

namespace trocar {
void bind_device(nb::module_& module);

#if defined(TROCAR_EMULATE_CUDA)
extern const bool kModuleOnGpu = false;
void bind_device(nb::module_&) {}
#else
extern const bool kModuleOnGpu = true;
#endif
}  // namespace trocar

NB_MODULE(_cuda, module) {
  module.doc() = "trocar's CUDA kernels";
  trocar::bind_errors();
  trocar::bind_device(module);
}
