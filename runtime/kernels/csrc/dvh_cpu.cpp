// Dose histograms on the CPU: one pass over the voxels for all structures.
#include <cstring>
#include <vector>

#include "clones.h"
#include "dvh.h"

namespace trocar {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::uint32_t kSignBit = 0x80000000u;
constexpr std::uint32_t kFirstNonFinite = 0x7f800000u;

struct Structure {
  const float* fraction;
  double* histogram;
  DvhSums sums;
};

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Whether any of a block's values is not +0. Most blocks of most structures are empty: this is the hot loop.
inline bool any_set(const float* values, std::size_t count) {
  std::uint32_t any = 0;
  for (std::size_t i = 0; i < count; ++i) any |= bits_of(values[i]);
  return any != 0;
}

// Finite and not negative (-0 passes): one unsigned comparison a value, so that it vectorises.
inline bool doses_valid(const float* dose, std::size_t count) {
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = bits_of(dose[i]);
    bad |= static_cast<std::uint32_t>((bits >= kFirstNonFinite) & (bits != kSignBit));
  }
  return bad == 0;
}

TROCAR_CLONES
DvhStatus accumulate(const float* dose, std::size_t voxels, double bins_per_unit, double unit,
                     std::int32_t last_bin, Structure* structures, std::size_t structure_count) {
  std::int32_t bin[kBlock];
  for (std::size_t start = 0; start < voxels; start += kBlock) {
    const std::size_t count = voxels - start < kBlock ? voxels - start : kBlock;
    const float* const block_dose = dose + start;
    if (!doses_valid(block_dose, count)) return kDvhBadDose;
    bool binned = false;
    for (std::size_t s = 0; s < structure_count; ++s) {
      Structure& structure = structures[s];
      const float* const fraction = structure.fraction + start;
      if (!any_set(fraction, count)) continue;
      if (!binned) {
        for (std::size_t i = 0; i < count; ++i)
          bin[i] = dvh_bin(block_dose[i], bins_per_unit, unit, last_bin);
        binned = true;
      }
      DvhSums sums = structure.sums;
      for (std::size_t i = 0; i < count; ++i) {
        const float weight = fraction[i];
        if (weight == 0.0f) continue;
        if (!(weight > 0.0f && weight <= 1.0f)) return kDvhBadFraction;
        structure.histogram[bin[i]] += static_cast<double>(weight);
        sums.add(block_dose[i], weight);
      }
      structure.sums = sums;
    }
  }
  return kDvhOk;
}

// From what each bin holds to what lies in it and above, in place.
void sum_from_above(double* histogram, std::size_t bins) {
  for (std::size_t bin = bins - 1; bin-- > 0;) histogram[bin] += histogram[bin + 1];
}

}  // namespace

std::int64_t dvh_workspace(std::int64_t, std::int32_t) { return 0; }

DvhStatus cumulative_histograms(const DvhTask& task, const Work&) {
  const std::size_t bins = static_cast<std::size_t>(task.last_bin) + 1;
  std::vector<Structure> structures(task.structures);
  for (std::size_t s = 0; s < structures.size(); ++s) {
    structures[s] = {task.fractions[s], task.above + s * bins, {}};
  }
  if (!structures.empty()) std::memset(task.above, 0, structures.size() * bins * sizeof(double));
  const DvhStatus status = accumulate(task.dose, task.voxels, task.bins_per_unit, task.unit, task.last_bin,
                                      structures.data(), structures.size());
  for (std::size_t s = 0; s < structures.size(); ++s) {
    sum_from_above(structures[s].histogram, bins);
    const DvhSums& sums = structures[s].sums;
    double* const row = task.sums + s * 4;
    row[0] = sums.weight;
    row[1] = sums.weighted_dose;
    row[2] = static_cast<double>(sums.least);
    row[3] = static_cast<double>(sums.most);
  }
  return status;
}

}  // namespace trocar
