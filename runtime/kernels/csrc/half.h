// IEEE half precision as 16 bits, converted alike on every device: to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.h"

namespace trocar {

struct Half {
  uint16_t bits;
};

TROCAR_HD float half_to_float(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000u) << 16;
  const uint32_t magnitude = half.bits & 0x7fffu;
  float value;
  if (magnitude >= 0x7c00u) {  // infinite or NaN
    const uint32_t bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
    memcpy(&value, &bits, sizeof(value));
  } else {
    // Placed in a float's exponent 112 too low, subnormals too; the product is exact.
    const uint32_t bits = magnitude << 13;
    memcpy(&value, &bits, sizeof(value));
    value *= 0x1p112f;
  }
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  bits |= sign;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

TROCAR_HD Half float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u | (bits >> 13 & 0x3ffu);  // a NaN stays one
  } else if (bits >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and above round to infinity
  } else if (bits < 0x38800000u) {
    // Below the least normal half: adding 0.5 lets the adder round at 2^-24.
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    uint32_t rounded;
    memcpy(&rounded, &magnitude, sizeof(rounded));
    half = rounded - 0x3f000000u;
  } else {
    half = (bits + 0xfffu + (bits >> 13 & 1u) - 0x38000000u) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace trocar
