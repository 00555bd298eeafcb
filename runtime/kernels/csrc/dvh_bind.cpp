// Dose histograms in Python, the same on either device: arrays checked by name, then the work.
#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "arrays.h"
#include "dvh.h"

namespace nb = nanobind;

namespace trocar {
namespace {

int bind_histograms(nb::handle dose_object, nb::typed<nb::list, nb::any> fraction_objects,
                    double bins_per_unit, double unit, nb::handle above_object, nb::handle sums_object,
                    nb::handle workspace_object, uintptr_t stream) {
  Arrays arrays(stream);
  const View dose = arrays.input("dose", dose_object);
  dose.require_dtype<float>();
  dose.require_dense(0);
  std::vector<View> fractions;
  std::vector<const float*> pointers;
  for (nb::handle object : fraction_objects) {
    const std::string name = "fractions[" + std::to_string(fractions.size()) + "]";
    fractions.push_back(arrays.input(name.c_str(), object));
    const View& fraction = fractions.back();
    fraction.require_dtype<float>();
    fraction.require_dense(0);
    if (fraction.shape_text() != dose.shape_text()) {
      refuse(name, "the dose's shape " + dose.shape_text(), fraction.shape_text());
    }
    pointers.push_back(fraction.data<float>());
  }
  const int64_t count = static_cast<int64_t>(fractions.size());
  if (kModuleOnGpu && count > kMostDvhStructures) {
    refuse("fractions", "at most " + std::to_string(kMostDvhStructures) + " structures on a GPU",
           std::to_string(count));
  }
  const View above = arrays.output("above", above_object);
  above.require_shape({count, -1}, "structures x bins");
  if (above.shape(1) < 1) refuse("above", "at least one bin", above.shape_text());
  const View sums = arrays.output("sums", sums_object);
  sums.require_shape({count, 4}, "structures x 4");
  const int64_t needed = dvh_workspace(dose.size(), static_cast<int32_t>(count));
  const View workspace = arrays.output("workspace", workspace_object);
  workspace.require_shape({-1}, "one dimension");
  if (workspace.size() < needed) {
    refuse("workspace", "at least " + std::to_string(needed) + " values", std::to_string(workspace.size()));
  }
  const View* const outputs[] = {&above, &sums, &workspace};
  for (const View* out : outputs) {
    out->require_dtype<double>();
    out->require_dense(0);
    Arrays::require_apart(*out, dose);
    for (const View& fraction : fractions) Arrays::require_apart(*out, fraction);
    for (const View* other : outputs) {
      if (other != out) Arrays::require_apart(*out, *other);
    }
  }
  const DvhTask task{dose.data<float>(),
                     pointers.data(),
                     dose.size(),
                     static_cast<int32_t>(count),
                     bins_per_unit,
                     unit,
                     static_cast<int32_t>(above.shape(1)) - 1,
                     above.data<double>(),
                     sums.data<double>(),
                     workspace.data<double>()};
  nb::gil_scoped_release release;
  return cumulative_histograms(task, {1, arrays.device_id(), stream});
}

}  // namespace

void bind_dvh(nb::module_& module) {
  using namespace nb::literals;
  module.def(
      "cumulative_histograms", &bind_histograms, "dose"_a, "fractions"_a, "bins_per_unit"_a, "unit"_a,
      "above"_a, "sums"_a, "workspace"_a, "stream"_a,
      "Weighted cumulative dose histogram of each structure in one pass; returns a status, 0 for success.");
  module.def("dvh_workspace", &dvh_workspace, "voxels"_a, "structures"_a,
             "How many float64 values of workspace cumulative_histograms needs.");
}

}  // namespace trocar
