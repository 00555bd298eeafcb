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
void bind_preprocess(nb::module_& module);
void bind_postprocess(nb::module_& module);
void bind_overlay(nb::module_& module);
void bind_pages(nb::module_& module);
void bind_memory(nb::module_& module);

// Of the clones that were built, the one that the loader chose here.
const char* instruction_set() {
#if defined(TROCAR_HAVE_TARGET_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3";
#endif
  return "default";
}

}  // namespace trocar

NB_MODULE(_native, module) {
  module.doc() = "trocar's CPU kernels";
  trocar::bind_errors();
  module.def("instruction_set", &trocar::instruction_set, "Which of the clones runs on this processor.");
  trocar::bind_geometry(module);
  trocar::bind_dose(module);
  trocar::bind_dvh(module);
  trocar::bind_anneal(module);
  trocar::bind_preprocess(module);
  trocar::bind_postprocess(module);
  trocar::bind_overlay(module);
  trocar::bind_pages(module);
  trocar::bind_memory(module);
}
