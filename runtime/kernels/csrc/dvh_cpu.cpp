#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace trocar {
void bind_dvh(nb::module_&) {}
}  // namespace trocar
