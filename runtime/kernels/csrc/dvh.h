// Weighted cumulative dose histograms of several structures: the numeric definition of the op.
#pragma once

#include <cstdint>
#include <limits>

namespace trocar {

// Bin k holds doses in [k, k + 1) * unit / bins_per_unit; the last bin holds all doses above.
// The product is exact in double (24 bits times a small integer) and the quotient correctly rounded,
// so a dose that equals a bin's lower edge falls into that bin, whatever the unit.
inline std::int32_t dvh_bin(float dose, double bins_per_unit, double unit, std::int32_t last_bin) {
  const double position = static_cast<double>(dose) * bins_per_unit / unit;
  return position < last_bin ? static_cast<std::int32_t>(position) : last_bin;
}

// Sums over the voxels a structure covers, in voxel order. A product of two floats is exact in double:
// a fused multiply-add rounds alike, so every target gives the same bits.
struct DvhSums {
  double weight = 0.0;
  double weighted_dose = 0.0;
  float least = std::numeric_limits<float>::infinity();
  float most = -std::numeric_limits<float>::infinity();

  void add(float dose, float fraction) {
    weight += static_cast<double>(fraction);
    weighted_dose += static_cast<double>(fraction) * static_cast<double>(dose);
    least = dose < least ? dose : least;
    most = dose > most ? dose : most;
  }
};

enum DvhStatus : int { kDvhOk = 0, kDvhBadDose = 1, kDvhBadFraction = 2 };

}  // namespace trocar
