// Limits of images that kernels take: so small that no index of a pixel overflows 32 bits on the way.
#pragma once

#include <string>

#include "arrays.h"

namespace trocar {

constexpr int64_t kMostPixels = int64_t{1} << 30;

inline void require_pixels(const View& image, int64_t rows, int64_t columns) {
  if (rows * columns > kMostPixels) {
    refuse(image.name(), "at most " + std::to_string(kMostPixels) + " pixels", "shape " + image.shape_text());
  }
}

}  // namespace trocar
