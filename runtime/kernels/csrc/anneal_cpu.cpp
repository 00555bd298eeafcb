#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace trocar {
void bind_anneal(nb::module_&) {}
}  // namespace trocar
