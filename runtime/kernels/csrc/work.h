// Where and how one call's work is done.
#pragma once

#include <cstdint>

namespace trocar {

struct Work {
  int threads = 1;       // the CPU's
  int device = 0;        // the GPU's
  uintptr_t stream = 0;  // the caller's, on that GPU
};

}  // namespace trocar
