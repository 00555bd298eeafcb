// Row loops over the line source functor, and the superposition of a precomputed kernel.
//
// Floating point contraction is off for this file (see CMakeLists.txt) and nothing is reassociated, so
// every clone, the scalar functor and any number of threads give the same bits: a plan does not depend
// on the machine that made it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "clones.h"
#include "dose.h"

namespace nb = nanobind;

namespace trocar {
namespace {

template <typename T, int kDimensions>
using Array = nb::ndarray<const T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;
template <typename T, int kDimensions>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<kDimensions>>;

constexpr int kBlock = 256;  // points per pass: every buffer of a block stays in the first-level cache

// ---- loops that the compiler vectorises -----------------------------------------------------------

template <bool kHinged>
TROCAR_HD void evaluate(const LineSource& table, const float* __restrict away, const float* __restrict along,
                        float* __restrict dose, int count) {
  const LineSource source = table;
  for (int i = 0; i < count; ++i) dose[i] = line_source_dose<kHinged>(source, away[i], along[i]);
}

TROCAR_CLONES void evaluate_row(const LineSource& source, const float* away, const float* along, float* dose,
                                int count) {
  if (source.hinged) {
    evaluate<true>(source, away, along, dose, count);
  } else {
    evaluate<false>(source, away, along, dose, count);
  }
}

// Differences are taken in double: two coordinates of 100 mm may lie 0.4 mm apart.
TROCAR_CLONES void project_axial(const double* __restrict x, const double* __restrict y,
                                 const double* __restrict z, const double* seed, float* __restrict away,
                                 float* __restrict along, int count) {
  const double sx = seed[0], sy = seed[1], sz = seed[2];
  for (int i = 0; i < count; ++i) {
    const float dx = static_cast<float>(x[i] - sx);
    const float dy = static_cast<float>(y[i] - sy);
    along[i] = static_cast<float>(z[i] - sz);
    away[i] = sqrtf(dx * dx + dy * dy);
  }
}

// |d x axis| rather than sqrt(d^2 - (d . axis)^2): the latter has no digits left near the axis.
TROCAR_CLONES void project_oriented(const double* __restrict x, const double* __restrict y,
                                    const double* __restrict z, const double* seed, const double* axis,
                                    float* __restrict away, float* __restrict along, int count) {
  const double sx = seed[0], sy = seed[1], sz = seed[2];
  const double ax = axis[0], ay = axis[1], az = axis[2];
  for (int i = 0; i < count; ++i) {
    const double dx = x[i] - sx, dy = y[i] - sy, dz = z[i] - sz;
    const float cx = static_cast<float>(dy * az - dz * ay);
    const float cy = static_cast<float>(dz * ax - dx * az);
    const float cz = static_cast<float>(dx * ay - dy * ax);
    along[i] = static_cast<float>(dx * ax + dy * ay + dz * az);
    away[i] = sqrtf(cx * cx + cy * cy + cz * cz);
  }
}

TROCAR_CLONES void accumulate(double* __restrict total, const float* __restrict dose, int count) {
  for (int i = 0; i < count; ++i) total[i] += static_cast<double>(dose[i]);
}

// 16 floats: one register with AVX-512, two with AVX2, four with SSE.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));

// out[0, 16 k) += weight * sum of `count` kernel rows, the partial sums held in registers.
template <int kLanes>
TROCAR_HD void add_rows(const float* const* rows, int count, int column, float weight, float* out,
                        int width) {
  Lanes sum[kLanes] = {};
  for (int s = 0; s < count; ++s) {
    const Lanes* row = reinterpret_cast<const Lanes*>(rows[s] + column);
    for (int k = 0; k < kLanes; ++k) sum[k] += row[k];
  }
  float total[16 * kLanes];
  std::memcpy(total, sum, sizeof(total));
  for (int i = 0; i < width; ++i) out[i] += weight * total[i];
}

TROCAR_CLONES void superpose_row(const float* const* rows, int count, float weight, float* out, int width) {
  int column = 0;
  for (; column + 48 < width; column += 64) {
    add_rows<4>(rows, count, column, weight, out + column, std::min(64, width - column));
  }
  for (; column < width; column += 16) {
    add_rows<1>(rows, count, column, weight, out + column, std::min(16, width - column));
  }
}

// ---- work over blocks -----------------------------------------------------------------------------

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body) {
  const int workers = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, count)));
  std::atomic<int64_t> next{0};
  auto drain = [&] {
    for (int64_t i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < workers; ++i) pool.emplace_back(drain);
  drain();
  for (std::thread& worker : pool) worker.join();
}

// Interleaved (n, 3) points as three columns.
struct Columns {
  explicit Columns(const Array<double, 2>& points)
      : count(static_cast<int64_t>(points.shape(0))), x(count), y(count), z(count) {
    const double* p = points.data();
    for (int64_t i = 0; i < count; ++i, p += 3) {
      x[i] = p[0];
      y[i] = p[1];
      z[i] = p[2];
    }
  }
  int64_t count;
  std::vector<double> x, y, z;
};

// Owns the tables that a LineSource points into.
class Tables {
 public:
  Tables(double length, double clearance, double radial_bins_per_length, double angular_bins_per_radian,
         int half_columns, bool hinged, Array<float, 2> radial, Array<float, 3> angular,
         Array<float, 3> cells)
      : radial_(copy(radial)), angular_(copy(angular)), cells_(copy(cells)) {
    const int columns = static_cast<int>(cells.shape(2));
    const bool consistent = radial.shape(0) == 7 && radial.shape(1) > 0 && angular.shape(0) == 4 &&
                            angular.shape(1) == 2 && angular.shape(2) > 0 && cells.shape(0) == 4 &&
                            cells.shape(1) > 0 && half_columns > 0 && half_columns < columns;
    if (!consistent) throw std::invalid_argument("line source tables: shapes do not belong together");
    source_.length = static_cast<float>(length);
    source_.half_length = static_cast<float>(length / 2);
    source_.clearance = static_cast<float>(clearance);
    source_.radial_bins_per_length = static_cast<float>(radial_bins_per_length);
    source_.last_radial_bin = static_cast<float>(radial.shape(1) - 1);
    source_.angular_bins_per_radian = static_cast<float>(angular_bins_per_radian);
    source_.last_angular_bin = static_cast<float>(angular.shape(2) - 1);
    source_.last_row = static_cast<int32_t>(cells.shape(1)) - 1;
    source_.columns = columns;
    source_.half_columns = half_columns;
    source_.hinged = hinged ? 1 : 0;
    point_into(radial_, radial.shape(1),
               {&source_.log2_g_a, &source_.log2_g_b, &source_.row_a, &source_.row_b, &source_.radial_node,
                &source_.log2_g_c, &source_.row_c});
    point_into(angular_, 2 * angular.shape(2),
               {&source_.column_a, &source_.column_b, &source_.angular_node, &source_.column_c});
    point_into(cells_, cells.shape(1) * cells.shape(2),
               {&source_.f_corner, &source_.f_along_v, &source_.f_along_u, &source_.f_mixed});
  }
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  const LineSource& source() const { return source_; }

 private:
  template <typename A>
  static std::vector<float> copy(const A& array) {
    return std::vector<float>(array.data(), array.data() + array.size());
  }

  static void point_into(const std::vector<float>& values, size_t plane,
                         std::initializer_list<const float**> pointers) {
    const float* next = values.data();
    for (const float** pointer : pointers) {
      *pointer = next;
      next += plane;
    }
  }

  LineSource source_{};
  std::vector<float> radial_, angular_, cells_;
};

template <typename T, int kDimensions>
Result<T, kDimensions> new_array(std::initializer_list<size_t> shape) {
  size_t size = 1;
  for (size_t extent : shape) size *= extent;
  T* data = new T[std::max<size_t>(size, 1)];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Result<T, kDimensions>(data, shape, owner);
}

Result<float, 1> dose_away_along(const Tables& tables, Array<float, 1> away, Array<float, 1> along) {
  if (away.shape(0) != along.shape(0)) throw std::invalid_argument("away and along differ in length");
  auto result = new_array<float, 1>({away.shape(0)});
  float* out = result.data();
  const int64_t count = static_cast<int64_t>(away.shape(0));
  nb::gil_scoped_release release;
  for (int64_t start = 0; start < count; start += kBlock) {
    evaluate_row(tables.source(), away.data() + start, along.data() + start, out + start,
                 static_cast<int>(std::min<int64_t>(kBlock, count - start)));
  }
  return result;
}

Result<double, 1> dose_points(const Tables& tables, Array<double, 2> points, Array<double, 2> seeds,
                              Array<double, 2> axes, bool axial, int threads) {
  if (points.shape(1) != 3 || seeds.shape(1) != 3) throw std::invalid_argument("points and seeds are (n, 3)");
  if (!axial && (axes.shape(0) != seeds.shape(0) || axes.shape(1) != 3)) {
    throw std::invalid_argument("one axis a seed");
  }
  auto result = new_array<double, 1>({points.shape(0)});
  double* out = result.data();
  const int64_t seed_count = static_cast<int64_t>(seeds.shape(0));
  nb::gil_scoped_release release;
  const Columns columns(points);
  parallel_for((columns.count + kBlock - 1) / kBlock, threads, [&](int64_t block) {
    const int64_t start = block * kBlock;
    const int count = static_cast<int>(std::min<int64_t>(kBlock, columns.count - start));
    const double *x = &columns.x[start], *y = &columns.y[start], *z = &columns.z[start];
    float away[kBlock], along[kBlock], dose[kBlock];
    double total[kBlock] = {};
    for (int64_t s = 0; s < seed_count; ++s) {
      if (axial) {
        project_axial(x, y, z, seeds.data() + 3 * s, away, along, count);
      } else {
        project_oriented(x, y, z, seeds.data() + 3 * s, axes.data() + 3 * s, away, along, count);
      }
      evaluate_row(tables.source(), away, along, dose, count);
      accumulate(total, dose, count);
    }
    std::copy(total, total + count, out + start);
  });
  return result;
}

Result<float, 2> dose_matrix(const Tables& tables, Array<double, 2> seeds, Array<double, 2> points,
                             int threads) {
  if (points.shape(1) != 3 || seeds.shape(1) != 3) throw std::invalid_argument("points and seeds are (n, 3)");
  auto result = new_array<float, 2>({seeds.shape(0), points.shape(0)});
  float* out = result.data();
  nb::gil_scoped_release release;
  const Columns columns(points);
  parallel_for(static_cast<int64_t>(seeds.shape(0)), threads, [&](int64_t s) {
    float away[kBlock], along[kBlock];
    for (int64_t start = 0; start < columns.count; start += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, columns.count - start));
      project_axial(&columns.x[start], &columns.y[start], &columns.z[start], seeds.data() + 3 * s, away,
                    along, count);
      evaluate_row(tables.source(), away, along, out + s * columns.count + start, count);
    }
  });
  return result;
}

// out[z, y, x] += weight * sum over seeds of kernel[slab[z - sz + z0], row[y - sy + y0], x - sx + x0].
// Seeds come ordered by z: those of one plane share a slab, which then stays in the cache.
void superpose(nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu> out, Array<float, 3> kernel,
               Array<int32_t, 1> slab, Array<int32_t, 1> row, int z0, int y0, int x0,
               Array<int32_t, 2> seeds_zyx, float weight, int threads) {
  const int nz = static_cast<int>(out.shape(0)), ny = static_cast<int>(out.shape(1));
  const int nx = static_cast<int>(out.shape(2));
  const int64_t row_stride = static_cast<int64_t>(kernel.shape(2));
  const int64_t slab_stride = row_stride * static_cast<int64_t>(kernel.shape(1));
  const int seed_count = static_cast<int>(seeds_zyx.shape(0));
  const int padded = (nx + 15) / 16 * 16;
  if (seeds_zyx.shape(1) != 3) throw std::invalid_argument("seeds are (m, 3)");
  auto within = [](int64_t first, int64_t count, size_t extent) {
    return first >= 0 && first + count <= static_cast<int64_t>(extent);
  };
  const int32_t* seed = seeds_zyx.data();
  for (int s = 0; s < seed_count; ++s, seed += 3) {
    if (!within(int64_t{z0} - seed[0], nz, slab.shape(0)) ||
        !within(int64_t{y0} - seed[1], ny, row.shape(0)) ||
        !within(int64_t{x0} - seed[2], padded, kernel.shape(2))) {
      throw std::invalid_argument("a seed lies beyond the kernel's reach");
    }
  }
  auto indexes = [](const Array<int32_t, 1>& table, size_t extent) {
    return std::all_of(table.data(), table.data() + table.shape(0),
                       [&](int32_t i) { return i >= 0 && i < static_cast<int64_t>(extent); });
  };
  if (!indexes(slab, kernel.shape(0)) || !indexes(row, kernel.shape(1))) {
    throw std::invalid_argument("slab or row index outside the kernel");
  }
  nb::gil_scoped_release release;
  parallel_for(nz, threads, [&](int64_t z) {
    std::vector<const float*> rows(seed_count);
    for (int y = 0; y < ny; ++y) {
      const int32_t* s = seeds_zyx.data();
      for (int i = 0; i < seed_count; ++i, s += 3) {
        rows[i] = kernel.data() + slab.data()[z - s[0] + z0] * slab_stride +
                  row.data()[y - s[1] + y0] * row_stride + (x0 - s[2]);
      }
      superpose_row(rows.data(), seed_count, weight, out.data() + (z * ny + y) * nx, nx);
    }
  });
}

}  // namespace

void bind_dose(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Tables>(module, "LineSource", "A line source's tables, laid out for lookup.")
      .def(nb::init<double, double, double, double, int, bool, Array<float, 2>, Array<float, 3>,
                    Array<float, 3>>(),
           "length"_a, "clearance"_a, "radial_bins_per_length"_a, "angular_bins_per_radian"_a,
           "half_columns"_a, "hinged"_a, "radial"_a, "angular"_a, "cells"_a);
  module.def("dose_away_along", &dose_away_along, "source"_a, "away"_a, "along"_a,
             "Dose at distances from the axis and positions along it.");
  module.def("dose_points", &dose_points, "source"_a, "points"_a, "seeds"_a, "axes"_a, "axial"_a, "threads"_a,
             "Summed dose of seeds at points.");
  module.def("dose_matrix", &dose_matrix, "source"_a, "seeds"_a, "points"_a, "threads"_a,
             "Dose of each seed along +z at each point.");
  module.def("superpose", &superpose, "out"_a, "kernel"_a, "slab"_a, "row"_a, "z0"_a, "y0"_a, "x0"_a,
             "seeds_zyx"_a, "weight"_a, "threads"_a, "Add a kernel at each seed's voxel to a grid.");
}

}  // namespace trocar
