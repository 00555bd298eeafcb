// The CUDA module: the twins of the CPU kernels under the same names. It imports without a driver.
#include <nanobind/nanobind.h>

#include "bind_errors.h"

namespace nb = nanobind;

namespace trocar {
void bind_device(nb::module_& module);
void bind_dose(nb::module_& module);
void bind_dvh(nb::module_& module);
void bind_chains(nb::module_& module);
void bind_preprocess(nb::module_& module);
void bind_postprocess(nb::module_& module);
void bind_overlay(nb::module_& module);
}  // namespace trocar

NB_MODULE(_cuda, module) {
  module.doc() = "trocar's CUDA kernels";
  trocar::bind_errors();
  trocar::bind_device(module);
  trocar::bind_dose(module);
  trocar::bind_dvh(module);
  trocar::bind_chains(module);
  trocar::bind_preprocess(module);
  trocar::bind_postprocess(module);
  trocar::bind_overlay(module);
}
