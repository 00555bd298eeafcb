#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace trocar {
void bind_geometry(nb::module_&) {}
}  // namespace trocar
