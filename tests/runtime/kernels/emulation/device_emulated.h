#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

namespace trocar {
void bind_probes(nanobind::module_& module);
}
