// Weighted cumulative dose histograms of several structures: the numeric definition of the op.
#pragma once

#include <cstdint>
#include <limits>

#include "hd.h"
#include "work.h"

namespace trocar {

// Bin k holds doses in [k, k + 1) * unit / bins_per_unit; the last bin holds all doses above.
// The product is exact in double (24 bits times a small integer) and the quotient correctly rounded,
// so a dose that equals a bin's lower edge falls into that bin, whatever the unit.
TROCAR_HD std::int32_t dvh_bin(float dose, double bins_per_unit, double unit, std::int32_t last_bin) {
  const double position = static_cast<double>(dose) * bins_per_unit / unit;
  return position < last_bin ? static_cast<std::int32_t>(position) : last_bin;
}

// A GPU adds in no fixed order, so it adds integers: a fraction times 2^bits, of as many bits as the sum
// over all voxels leaves room for. Exact for fractions of at least 2^(23 - bits); below, at most 2^(-bits -
// 1) off.
TROCAR_HD int fixed_point_bits(std::int64_t voxels) {
  int bits = 62;
  while (voxels > 1) {
    voxels = (voxels + 1) / 2;
    --bits;
  }
  return bits;
}

TROCAR_HD std::uint64_t fixed_point(float fraction, double two_to_bits) {
  return static_cast<std::uint64_t>(static_cast<double>(fraction) * two_to_bits + 0.5);
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

struct DvhTask {
  const float* dose;              // [voxels]
  const float* const* fractions;  // [structures] pointers to [voxels]; the pointers lie on the CPU
  std::int64_t voxels;
  std::int32_t structures;
  double bins_per_unit;
  double unit;
  std::int32_t last_bin;
  double* above;      // [structures, last_bin + 1]
  double* sums;       // [structures, 4]: weight, weighted dose, least, most
  double* workspace;  // [dvh_workspace()]
};

// A GPU's status is what stands in the sums later: NaN throughout if a dose or a fraction is bad.
DvhStatus cumulative_histograms(const DvhTask& task, const Work& work);
std::int64_t dvh_workspace(std::int64_t voxels, std::int32_t structures);
constexpr std::int32_t kMostDvhStructures = 32;

}  // namespace trocar
