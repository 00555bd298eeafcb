// The dose kernels in Python, the same on either device: arrays checked by name, then the work.
#include <nanobind/nanobind.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "dose.h"

namespace nb = nanobind;

namespace trocar {
namespace {

using HostTable = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

// Owns the tables that a LineSource points into.
class Tables {
 public:
  Tables(double length, double clearance, double radial_bins_per_length, double angular_bins_per_radian,
         int half_columns, bool hinged, HostTable radial, HostTable angular, HostTable cells, int device)
      : device_(device) {
    const bool consistent = radial.ndim() == 2 && radial.shape(0) == 7 && radial.shape(1) > 0 &&
                            angular.ndim() == 3 && angular.shape(0) == 4 && angular.shape(1) == 2 &&
                            angular.shape(2) > 0 && cells.ndim() == 3 && cells.shape(0) == 4 &&
                            cells.shape(1) > 0 && half_columns > 0 &&
                            half_columns < static_cast<int>(cells.shape(2));
    if (!consistent) throw InvalidInput("line source tables: shapes do not belong together");
    source_.length = static_cast<float>(length);
    source_.half_length = static_cast<float>(length / 2);
    source_.clearance = static_cast<float>(clearance);
    source_.radial_bins_per_length = static_cast<float>(radial_bins_per_length);
    source_.last_radial_bin = static_cast<float>(radial.shape(1) - 1);
    source_.angular_bins_per_radian = static_cast<float>(angular_bins_per_radian);
    source_.last_angular_bin = static_cast<float>(angular.shape(2) - 1);
    source_.last_row = static_cast<int32_t>(cells.shape(1)) - 1;
    source_.columns = static_cast<int32_t>(cells.shape(2));
    source_.half_columns = half_columns;
    source_.hinged = hinged ? 1 : 0;
    radial_ = place(radial, {&source_.log2_g_a, &source_.log2_g_b, &source_.row_a, &source_.row_b,
                             &source_.radial_node, &source_.log2_g_c, &source_.row_c});
    angular_ =
        place(angular, {&source_.column_a, &source_.column_b, &source_.angular_node, &source_.column_c});
    cells_ = place(cells, {&source_.f_corner, &source_.f_along_v, &source_.f_along_u, &source_.f_mixed});
  }

  const LineSource& on(int device) const {
    if (device != device_) {
      refuse("source", "tables on CUDA device " + std::to_string(device), std::to_string(device_));
    }
    return source_;
  }

 private:
  // Copies a table to the device; its equal parts, one after another, are what the pointers point to.
  std::shared_ptr<const float> place(const HostTable& table, std::initializer_list<const float**> parts) {
    const std::vector<float> values(table.data(), table.data() + table.size());
    std::shared_ptr<const float> placed = device_table(values, device_);
    const float* next = placed.get();
    for (const float** part : parts) {
      *part = next;
      next += values.size() / parts.size();
    }
    return placed;
  }

  LineSource source_{};
  int device_;
  std::shared_ptr<const float> radial_, angular_, cells_;
};

View points_of(Arrays& arrays, const char* name, nb::handle object) {
  View points = arrays.input(name, object);
  points.require_dtype<double>();
  points.require_shape({-1, 3}, "x, y, z");
  points.require_dense(0);
  return points;
}

View dense(View view) {
  view.require_dense(0);
  return view;
}

void bind_away_along(const Tables& tables, nb::handle away_object, nb::handle along_object,
                     nb::handle out_object, uintptr_t stream) {
  Arrays arrays(stream);
  const View away = dense(arrays.input("away", away_object));
  const View along = dense(arrays.input("along", along_object));
  const View out = dense(arrays.output("out", out_object));
  for (const View* view : {&away, &along, &out}) {
    view->require_dtype<float>();
    view->require_shape({view == &away ? -1 : away.shape(0)}, "one value a point");
  }
  Arrays::require_apart(out, away);
  Arrays::require_apart(out, along);
  const AwayAlongDose dose{tables.on(arrays.device_id()), away.data<float>(), along.data<float>(),
                           out.data<float>(), out.size()};
  nb::gil_scoped_release release;
  dose_away_along(dose, {1, arrays.device_id(), stream});
}

void bind_points(const Tables& tables, nb::handle points_object, nb::handle seeds_object,
                 nb::handle axes_object, nb::handle out_object, int threads, uintptr_t stream) {
  Arrays arrays(stream);
  const View points = points_of(arrays, "points", points_object);
  const View seeds = points_of(arrays, "seeds", seeds_object);
  const View out = dense(arrays.output("out", out_object));
  out.require_dtype<double>();
  out.require_shape({points.shape(0)}, "one dose a point");
  Arrays::require_apart(out, points);
  Arrays::require_apart(out, seeds);
  PointsDose dose{tables.on(arrays.device_id()),
                  points.data<double>(),
                  seeds.data<double>(),
                  nullptr,
                  points.shape(0),
                  seeds.shape(0)};
  std::optional<View> axes;
  if (!axes_object.is_none()) {
    axes = points_of(arrays, "axes", axes_object);
    axes->require_shape({seeds.shape(0), 3}, "one axis a seed");
    Arrays::require_apart(out, *axes);
    dose.axes = axes->data<double>();
  }
  nb::gil_scoped_release release;
  dose_points(dose, out.data<double>(), {threads, arrays.device_id(), stream});
}

void bind_matrix(const Tables& tables, nb::handle seeds_object, nb::handle points_object,
                 nb::handle out_object, int threads, uintptr_t stream) {
  Arrays arrays(stream);
  const View seeds = points_of(arrays, "seeds", seeds_object);
  const View points = points_of(arrays, "points", points_object);
  const View out = dense(arrays.output("out", out_object));
  out.require_dtype<float>();
  out.require_shape({seeds.shape(0), points.shape(0)}, "seeds x points");
  Arrays::require_apart(out, seeds);
  Arrays::require_apart(out, points);
  const PointsDose dose{tables.on(arrays.device_id()),
                        points.data<double>(),
                        seeds.data<double>(),
                        nullptr,
                        points.shape(0),
                        seeds.shape(0)};
  nb::gil_scoped_release release;
  dose_matrix(dose, out.data<float>(), {threads, arrays.device_id(), stream});
}

int32_t narrow(int64_t extent) { return static_cast<int32_t>(extent); }  // a View's extents fit

void bind_superpose(nb::handle out_object, nb::handle kernel_object, nb::handle slab_object,
                    nb::handle row_object, int z0, int y0, int x0, nb::handle seeds_object, float weight,
                    int threads, uintptr_t stream) {
  Arrays arrays(stream);
  const View out = dense(arrays.output("out", out_object));
  const View kernel = dense(arrays.input("kernel values", kernel_object));
  const View slab = dense(arrays.input("kernel slabs", slab_object));
  const View row = dense(arrays.input("kernel rows", row_object));
  const View seeds = dense(arrays.input("seeds", seeds_object));
  for (const View* view : {&out, &kernel}) {
    view->require_dtype<float>();
    view->require_shape({-1, -1, -1}, "z, y, x");
  }
  for (const View* view : {&slab, &row}) {
    view->require_dtype<int32_t>();
    view->require_shape({-1}, "one index an offset");
  }
  seeds.require_dtype<int32_t>();
  seeds.require_shape({-1, 3}, "z, y, x");
  for (const View* view : {&kernel, &slab, &row, &seeds}) Arrays::require_apart(out, *view);
  const Superposition sum{out.data<float>(),
                          narrow(out.shape(0)),
                          narrow(out.shape(1)),
                          narrow(out.shape(2)),
                          kernel.data<float>(),
                          narrow(kernel.shape(0)),
                          narrow(kernel.shape(1)),
                          narrow(kernel.shape(2)),
                          slab.data<int32_t>(),
                          row.data<int32_t>(),
                          narrow(slab.shape(0)),
                          narrow(row.shape(0)),
                          z0,
                          y0,
                          x0,
                          seeds.data<int32_t>(),
                          narrow(seeds.shape(0)),
                          weight};
  nb::gil_scoped_release release;
  superpose(sum, {threads, arrays.device_id(), stream});
}

}  // namespace

void bind_dose(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Tables>(module, "LineSource", "A line source's tables on one device, laid out for lookup.")
      .def(nb::init<double, double, double, double, int, bool, HostTable, HostTable, HostTable, int>(),
           "length"_a, "clearance"_a, "radial_bins_per_length"_a, "angular_bins_per_radian"_a,
           "half_columns"_a, "hinged"_a, "radial"_a, "angular"_a, "cells"_a, "device"_a);
  module.def("dose_away_along", &bind_away_along, "source"_a, "away"_a, "along"_a, "out"_a, "stream"_a,
             "Dose at distances from the axis and positions along it.");
  module.def("dose_points", &bind_points, "source"_a, "points"_a, "seeds"_a, "axes"_a.none(), "out"_a,
             "threads"_a, "stream"_a, "Summed dose of seeds at points.");
  module.def("dose_matrix", &bind_matrix, "source"_a, "seeds"_a, "points"_a, "out"_a, "threads"_a, "stream"_a,
             "Dose of each seed along +z at each point.");
  module.def("superpose", &bind_superpose, "out"_a, "kernel"_a, "slab"_a, "row"_a, "z0"_a, "y0"_a, "x0"_a,
             "seeds_zyx"_a, "weight"_a, "threads"_a, "stream"_a,
             "Add a kernel at each seed's voxel to a grid.");
}

}  // namespace trocar
