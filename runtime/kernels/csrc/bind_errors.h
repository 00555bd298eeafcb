// Native exceptions become the classes of trocar.runtime.errors. Once a module.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>

#include "errors.h"

namespace trocar {

inline void raise_python(const char* type, const char* message) {
  nanobind::object errors = nanobind::module_::import_("trocar.runtime.errors");
  PyErr_SetString(nanobind::object(errors.attr(type)).ptr(), message);
}

inline void bind_errors() {
  nanobind::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const InvalidInput& error) {
      raise_python("InvalidInput", error.what());
    } catch (const DeviceError& error) {
      raise_python("DeviceError", error.what());
    }
  });
}

}  // namespace trocar
