#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

#include "geometry.h"

namespace nb = nanobind;

namespace trocar {
namespace {

using geometry::kFar;

template <typename T, int N>
using Input = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Output = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Squared heights in `values` (nz, ny, nx) become squared distances, over y and x and, unless
// `per_slice`, over z.
void envelope_axes(float* values, std::size_t nz, std::size_t ny, std::size_t nx, const double* step_zyx,
                   bool per_slice) {
  geometry::Envelope buffer(std::max({nz, ny, nx}));
  const std::size_t plane = ny * nx;
  for (std::size_t z = 0; z < nz; ++z) {
    for (std::size_t y = 0; y < ny; ++y) {
      geometry::lower_envelope(values + z * plane + y * nx, nx, 1, step_zyx[2], buffer);
    }
    for (std::size_t x = 0; x < nx; ++x) {
      geometry::lower_envelope(values + z * plane + x, ny, nx, step_zyx[1], buffer);
    }
  }
  if (per_slice) return;
  for (std::size_t i = 0; i < plane; ++i)
    geometry::lower_envelope(values + i, nz, plane, step_zyx[0], buffer);
}

void distance_transform(Input<std::uint8_t, 3> mask, double step_z, double step_y, double step_x,
                        bool per_slice, Output<float, 3> out) {
  const double step_zyx[3] = {step_z, step_y, step_x};
  const std::uint8_t* inside = mask.data();
  float* values = out.data();
  const std::size_t count = mask.size();
  nb::gil_scoped_release release;
  for (std::size_t i = 0; i < count; ++i) values[i] = inside[i] ? 0.0f : kFar;
  envelope_axes(values, out.shape(0), out.shape(1), out.shape(2), step_zyx, per_slice);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::sqrt(values[i]);
}

// One slice: distance to the half-level crossings on rows and on columns, negative within, then
// shifted so that the area within the zero level is the area of the occupancy.
void signed_slice(const float* occupancy, float* out, std::size_t ny, std::size_t nx, double sy, double sx,
                  std::vector<float>& rows, std::vector<float>& columns, geometry::Envelope& buffer) {
  for (std::size_t y = 0; y < ny; ++y) {
    geometry::line_crossings(occupancy + y * nx, rows.data() + y * nx, nx, 1, sx);
  }
  for (std::size_t x = 0; x < nx; ++x) {
    geometry::line_crossings(occupancy + x, columns.data() + x, ny, nx, sy);
    geometry::lower_envelope(rows.data() + x, ny, nx, sy, buffer);
  }
  for (std::size_t y = 0; y < ny; ++y) geometry::lower_envelope(columns.data() + y * nx, nx, 1, sx, buffer);
  double area = 0.0;
  for (std::size_t i = 0; i < ny * nx; ++i) {
    const float away = std::sqrt(std::min(rows[i], columns[i]));
    out[i] = occupancy[i] >= 0.5f ? -away : away;
    area += occupancy[i];
  }
  const float shift = geometry::level_of_area(out, ny, nx, sy, sx, area);
  for (std::size_t i = 0; i < ny * nx; ++i) out[i] -= shift;
}

void signed_slices(Input<float, 3> occupancy, double step_y, double step_x, Output<float, 3> out) {
  const std::size_t nz = occupancy.shape(0), ny = occupancy.shape(1), nx = occupancy.shape(2);
  nb::gil_scoped_release release;
  std::vector<float> rows(ny * nx), columns(ny * nx);
  geometry::Envelope buffer(std::max(ny, nx));
  for (std::size_t z = 0; z < nz; ++z) {
    const std::size_t at = z * ny * nx;
    signed_slice(occupancy.data() + at, out.data() + at, ny, nx, step_y, step_x, rows, columns, buffer);
  }
}

// Where the samples of one axis fall on the source: cell, weight of the next node, and the distance
// by which a sample lies beyond the outermost node.
struct Axis {
  std::vector<int> cell;
  std::vector<float> weight;
  std::vector<float> beyond_mm;

  Axis(std::size_t samples, double first, double step, std::size_t nodes, double node_first, double node_step)
      : cell(samples), weight(samples), beyond_mm(samples) {
    const double top = double(nodes) - 1.0;
    for (std::size_t i = 0; i < samples; ++i) {
      const double at = (first + step * double(i) - node_first) / node_step;
      const double held = std::clamp(at, 0.0, top);
      const int low = std::min(int(held), int(nodes) - 2);
      cell[i] = low;
      weight[i] = float(held - low);
      beyond_mm[i] = float(std::abs(at - held) * node_step);
    }
  }
};

// The source row at sample row `y` (all columns), then its value at each sample column.
void sample_row(const float* slice, std::size_t nx, const Axis& ys, const Axis& xs, std::size_t y,
                float scale, bool add, std::vector<float>& line, float* values) {
  const float* low = slice + std::size_t(ys.cell[y]) * nx;
  const float* high = low + nx;
  const float up = ys.weight[y];
  for (std::size_t x = 0; x < nx; ++x) line[x] = scale * (low[x] + up * (high[x] - low[x]));
  const float beyond_y = scale * ys.beyond_mm[y];
  const std::size_t count = xs.cell.size();
  for (std::size_t x = 0; x < count; ++x) {
    const float left = line[std::size_t(xs.cell[x])];
    const float right = line[std::size_t(xs.cell[x]) + 1];
    const float value = left + xs.weight[x] * (right - left) + scale * xs.beyond_mm[x] + beyond_y;
    values[x] = add ? values[x] + value : value;
  }
}

// out[plane] += weight * covered fraction of the shape between slices `lower` and `upper` at `t`,
// each slice shifted in its plane by `shift_xy` (m, 2, 2) mm and the blend grown by `grow` mm; `split` x
// `split` samples a voxel.
void blend_planes(Input<float, 3> distance, double node_x, double node_y, double node_sx, double node_sy,
                  Input<std::int32_t, 1> plane, Input<std::int32_t, 2> slices, Input<double, 1> t,
                  Input<double, 1> weight, Input<double, 3> shift_xy, Input<double, 1> grow, double out_x,
                  double out_y, double out_sx, double out_sy, int split, Output<float, 3> out) {
  const std::size_t ny = distance.shape(1), nx = distance.shape(2);
  const std::size_t out_ny = out.shape(1), out_nx = out.shape(2);
  const double fine_x = out_sx / split, fine_y = out_sy / split;
  const double first_x = out_x - 0.5 * (out_sx - fine_x), first_y = out_y - 0.5 * (out_sy - fine_y);
  const float slope = float(2.0 / (fine_x + fine_y));
  nb::gil_scoped_release release;
  std::vector<float> line(nx), values(out_nx * split);
  for (std::size_t m = 0; m < plane.shape(0); ++m) {
    const int pair = t(m) > 0.0 ? 2 : 1;
    const float middle = 0.5f + slope * float(grow(m));
    const float share = float(weight(m) / (split * split));
    std::vector<Axis> xs, ys;
    for (int s = 0; s < pair; ++s) {
      xs.emplace_back(out_nx * split, first_x - shift_xy(m, s, 0), fine_x, nx, node_x, node_sx);
      ys.emplace_back(out_ny * split, first_y - shift_xy(m, s, 1), fine_y, ny, node_y, node_sy);
    }
    for (std::size_t y = 0; y < out_ny * split; ++y) {
      for (int s = 0; s < pair; ++s) {
        const float scale = float(s ? t(m) : 1.0 - t(m));
        const float* slice = distance.data() + std::size_t(slices(m, s)) * ny * nx;
        sample_row(slice, nx, ys[s], xs[s], y, scale, s > 0, line, values.data());
      }
      float* row = out.data() + (std::size_t(plane(m)) * out_ny + y / split) * out_nx;
      for (std::size_t x = 0; x < out_nx; ++x) {
        float covered = 0.0f;
        for (int i = 0; i < split; ++i) {
          covered += std::clamp(middle - slope * values[x * split + i], 0.0f, 1.0f);
        }
        row[x] += share * covered;
      }
    }
  }
}

// Adds `share` times the covered part of each pixel of a row between two abscissae (pixel units,
// pixel i spans [i, i + 1]).
void cover_span(float* row, std::size_t nx, double from, double to, float share) {
  from = std::clamp(from, 0.0, double(nx));
  to = std::clamp(to, 0.0, double(nx));
  if (!(to > from)) return;
  const std::size_t first = std::min(std::size_t(from), nx - 1);
  const std::size_t last = std::min(std::size_t(to), nx - 1);
  if (first == last) {
    row[first] += share * float(to - from);
    return;
  }
  row[first] += share * float(double(first + 1) - from);
  for (std::size_t i = first + 1; i < last; ++i) row[i] += share;
  row[last] += share * float(to - double(last));
}

// Even-odd coverage of one slice's closed polygons: `lines` scan lines a pixel row, exact along x.
void cover_slice(const double* xy, const std::int64_t* starts, std::size_t polygons, std::size_t ny,
                 std::size_t nx, int lines, std::vector<std::vector<double>>& crossings, float* out) {
  for (auto& line : crossings) line.clear();
  const double top = double(ny) * lines;
  for (std::size_t p = 0; p < polygons; ++p) {
    const std::int64_t begin = starts[p], end = starts[p + 1];
    for (std::int64_t i = begin; i < end; ++i) {
      const double* a = xy + 2 * i;
      const double* b = xy + 2 * (i + 1 < end ? i + 1 : begin);
      if (a[1] > b[1]) std::swap(a, b);
      // Scan line k lies at (k + 0.5) / lines; an edge holds its lower end and not its upper one.
      const double first = std::ceil(a[1] * lines - 0.5), stop = std::ceil(b[1] * lines - 0.5);
      for (double k = std::max(first, 0.0); k < std::min(stop, top); k += 1.0) {
        const double y = (k + 0.5) / lines;
        crossings[std::size_t(k)].push_back(a[0] + (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]));
      }
    }
  }
  const float share = 1.0f / float(lines);
  for (std::size_t k = 0; k < crossings.size(); ++k) {
    auto& line = crossings[k];
    std::sort(line.begin(), line.end());
    float* row = out + (k / std::size_t(lines)) * nx;
    for (std::size_t i = 0; i + 1 < line.size(); i += 2) cover_span(row, nx, line[i], line[i + 1], share);
  }
}

void cover_polygons(Input<double, 2> xy, Input<std::int64_t, 1> starts, Input<std::int64_t, 1> slice_starts,
                    int lines, Output<float, 3> out) {
  const std::size_t ny = out.shape(1), nx = out.shape(2);
  nb::gil_scoped_release release;
  std::vector<std::vector<double>> crossings(ny * std::size_t(lines));
  for (std::size_t z = 0; z < out.shape(0); ++z) {
    const std::int64_t first = slice_starts(z);
    cover_slice(xy.data(), starts.data() + first, std::size_t(slice_starts(z + 1) - first), ny, nx, lines,
                crossings, out.data() + z * ny * nx);
  }
}

}  // namespace

void bind_geometry(nb::module_& module) {
  using namespace nb::literals;
  module.def("distance_transform", &distance_transform, "mask"_a, "step_z"_a, "step_y"_a, "step_x"_a,
             "per_slice"_a, "out"_a);
  module.def("signed_slices", &signed_slices, "occupancy"_a, "step_y"_a, "step_x"_a, "out"_a);
  module.def("blend_planes", &blend_planes, "distance"_a, "node_x"_a, "node_y"_a, "node_sx"_a, "node_sy"_a,
             "plane"_a, "slices"_a, "t"_a, "weight"_a, "shift_xy"_a, "grow"_a, "out_x"_a, "out_y"_a,
             "out_sx"_a, "out_sy"_a, "split"_a, "out"_a);
  module.def("cover_polygons", &cover_polygons, "xy"_a, "starts"_a, "slice_starts"_a, "lines"_a, "out"_a);
}

}  // namespace trocar
