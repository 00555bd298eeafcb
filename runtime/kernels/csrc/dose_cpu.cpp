#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace trocar {
void bind_dose(nb::module_&) {}
}  // namespace trocar
