// The native module: every op binds itself here, and knows arrays only, no medicine.
#include <nanobind/nanobind.h>

#include "bind_errors.h"

namespace nb = nanobind;

namespace trocar {
extern const bool kModuleOnGpu = false;

void bind_geometry(nb::module_& module);
void bind_dose(nb::module_& module);
void bind_dvh(nb::module_& module);
void bind_anneal(nb::module_& module);
}  // namespace trocar

NB_MODULE(_native, module) {
  module.doc() = "trocar's CPU kernels";
  trocar::bind_errors();
  trocar::bind_geometry(module);
  trocar::bind_dose(module);
  trocar::bind_dvh(module);
  trocar::bind_anneal(module);
}
