// What device_cuda.cpp is to the CUDA module: here the arrays lie on the CPU, and there is no stream.
#include "device_emulated.h"

#include "cuda_emulation.h"

namespace nb = nanobind;

namespace trocar {

extern const bool kModuleOnGpu = false;

void bind_device(nb::module_& module) {
  module.def("set_schedule", &emulation::set_schedule, nb::arg("schedule"),
             "Whose turn comes first: 0 the first thread's, 1 the last one's, above a random order's.");
  bind_probes(module);
}

}  // namespace trocar
