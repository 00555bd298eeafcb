// Dose histograms on the CPU: one pass over the voxels for all structures.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <vector>

#include "clones.h"
#include "dvh.h"

namespace nb = nanobind;

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

using Voxels = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

int cumulative_histograms(Voxels dose, const std::vector<Voxels>& fractions, double bins_per_unit,
                          double unit, Table histograms, Table sums) {
  const std::size_t count = fractions.size();
  if (histograms.shape(0) != count || sums.shape(0) != count || sums.shape(1) != 4 || histograms.shape(1) < 1)
    throw std::invalid_argument("cumulative_histograms: the outputs do not match the number of structures");
  std::vector<Structure> structures(count);
  const std::size_t bins = histograms.shape(1);
  for (std::size_t s = 0; s < count; ++s) {
    if (fractions[s].shape(0) != dose.shape(0))
      throw std::invalid_argument(
          "cumulative_histograms: a structure has another number of voxels than the dose");
    structures[s] = {fractions[s].data(), histograms.data() + s * bins, {}};
  }
  DvhStatus status;
  {
    nb::gil_scoped_release release;
    std::memset(histograms.data(), 0, count * bins * sizeof(double));
    status = accumulate(dose.data(), dose.shape(0), bins_per_unit, unit, static_cast<std::int32_t>(bins - 1),
                        structures.data(), count);
    for (const Structure& structure : structures) sum_from_above(structure.histogram, bins);
  }
  for (std::size_t s = 0; s < count; ++s) {
    double* const row = sums.data() + s * 4;
    row[0] = structures[s].sums.weight;
    row[1] = structures[s].sums.weighted_dose;
    row[2] = static_cast<double>(structures[s].sums.least);
    row[3] = static_cast<double>(structures[s].sums.most);
  }
  return status;
}

}  // namespace

void bind_dvh(nb::module_& module) {
  module.def(
      "cumulative_histograms", &cumulative_histograms, nb::arg("dose").noconvert(),
      nb::arg("fractions").noconvert(), nb::arg("bins_per_unit"), nb::arg("unit"),
      nb::arg("histograms").noconvert(), nb::arg("sums").noconvert(),
      "Weighted cumulative dose histogram of each structure in one pass; returns a status, 0 for success.");
}

}  // namespace trocar
