// What native code throws; bind_errors() makes them the classes of trocar.runtime.errors in Python.
#pragma once

#include <stdexcept>

namespace trocar {

// The caller's arrays or options cannot be used. The message names the argument, what was expected, what
// came.
struct InvalidInput : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// An accelerator failed; the message carries the driver's own words.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace trocar
