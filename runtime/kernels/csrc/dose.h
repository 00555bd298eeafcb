// The numeric definition of one line source's dose at one point: TG-43U1 with its tables laid out for
// constant-time lookup. Float32 throughout; the row loops in dose_cpu.cpp and the CUDA kernels
// inline this functor, so every path rounds alike. Lengths are in the tables' unit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "hd.h"
#include "work.h"

namespace trocar {

// A piecewise linear function of a bin coordinate p is stored as one line a + b p per unit bin. Where a
// node falls inside a bin, a hinge c max(p - node, 0) bends the line there; tables whose nodes all fall
// on bin edges (published ones do) have no hinges.
struct LineSource {
  float length;
  float half_length;
  float clearance;
  float radial_bins_per_length;
  float last_radial_bin;
  float angular_bins_per_radian;
  float last_angular_bin;
  int32_t last_row;      // anisotropy cells along r, less one
  int32_t columns;       // anisotropy cells along theta, both halves
  int32_t half_columns;  // cells of the +z half
  int32_t hinged;
  // One array a coefficient: a gather needs a base that does not move with the lane.
  const float *log2_g_a, *log2_g_b, *row_a, *row_b;         // [radial bin]
  const float *radial_node, *log2_g_c, *row_c;              // [radial bin], hinges
  const float *column_a, *column_b;                         // [half, angular bin]
  const float *angular_node, *column_c;                     // [half, angular bin], hinges
  const float *f_corner, *f_along_v, *f_along_u, *f_mixed;  // [row, column], times the scale
};

TROCAR_HD float smaller(float a, float b) { return a < b ? a : b; }
TROCAR_HD float larger(float a, float b) { return a > b ? a : b; }

// atan(t) for |t| <= tan(pi/8), relative error 3e-8 (the polynomial of Cephes' atanf).
TROCAR_HD float small_arctan(float t) {
  const float q = t * t;
  const float p =
      ((8.05374449538e-2f * q - 1.38776856032e-1f) * q + 1.99777106478e-1f) * q - 3.33329491539e-1f;
  return p * q * t + t;
}

// The angle of (x, y) in the first quadrant; relative accuracy is kept as y / x goes to 0.
TROCAR_HD float quadrant_arctan2(float y, float x) {
  const float high = larger(x, y);
  const float low = smaller(x, y);
  const bool wide = low > 0.414213562f * high;
  const float t = (wide ? low - high : low) / (wide ? low + high : high);
  const float angle = small_arctan(t) + (wide ? 0.785398163f : 0.0f);
  return y > x ? 1.57079633f - angle : angle;
}

// 2^x for |x| <= 126, relative error 1e-7.
TROCAR_HD float exp2_bounded(float x) {
  const int32_t whole = static_cast<int32_t>(x + 127.5f) - 127;
  const float f = x - static_cast<float>(whole);
  float p = 1.535336188319500e-4f;
  p = p * f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  const int32_t bits = (whole + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof(power));
  return p * power;
}

// Dose of one source: `away` >= 0 from its axis, `along` it (+ is theta = 0).
template <bool kHinged>
TROCAR_HD float line_source_dose(const LineSource& s, float away, float along) {
  const float ahead = fabsf(along);

  // Inside the capsule the point is lifted to the clearance. The tiny floor keeps the axis off 0 / 0:
  // beta / (L rho) is then exact to rounding, with no branch.
  const float beyond_end = larger(ahead - s.half_length, 0.0f);
  const float rho = larger(larger(away, s.clearance - beyond_end), 1e-9f);
  const float r = sqrtf(rho * rho + along * along);

  // beta = atan2(L rho, rho^2 + z^2 - L^2/4); the second argument is negative beside the source.
  const float across = s.length * rho;
  const float forward = rho * rho + (ahead - s.half_length) * (ahead + s.half_length);
  const float acute = quadrant_arctan2(across, fabsf(forward));
  const float beta = forward < 0.0f ? 3.14159265f - acute : acute;
  const float geometry = beta / across;

  const float radial_position = r * s.radial_bins_per_length;
  const int32_t radial_bin = static_cast<int32_t>(smaller(radial_position, s.last_radial_bin));
  float log2_g = s.log2_g_a[radial_bin] + s.log2_g_b[radial_bin] * radial_position;
  float row = s.row_a[radial_bin] + s.row_b[radial_bin] * radial_position;

  // theta is measured from the nearer pole, which keeps its digits near 180 degrees too.
  const float angle = quadrant_arctan2(rho, ahead) * s.angular_bins_per_radian;
  const int32_t half = along < 0.0f ? 1 : 0;
  const int32_t angular_bin = static_cast<int32_t>(smaller(angle, s.last_angular_bin)) +
                              half * (static_cast<int32_t>(s.last_angular_bin) + 1);
  float column = s.column_a[angular_bin] + s.column_b[angular_bin] * angle;

  if (kHinged) {
    const float radial_excess = larger(radial_position - s.radial_node[radial_bin], 0.0f);
    log2_g += s.log2_g_c[radial_bin] * radial_excess;
    row += s.row_c[radial_bin] * radial_excess;
    column += s.column_c[angular_bin] * larger(angle - s.angular_node[angular_bin], 0.0f);
  }

  const int32_t last_column = (half ? s.columns - s.half_columns : s.half_columns) - 1;
  int32_t i = static_cast<int32_t>(row);
  int32_t j = static_cast<int32_t>(column);
  i = i < s.last_row ? i : s.last_row;
  j = j < last_column ? j : last_column;
  const float u = row - static_cast<float>(i);
  const float v = column - static_cast<float>(j);
  const int32_t cell = i * s.columns + j + half * s.half_columns;
  const float anisotropy =
      s.f_corner[cell] + s.f_along_v[cell] * v + (s.f_along_u[cell] + s.f_mixed[cell] * v) * u;

  return geometry * anisotropy * exp2_bounded(larger(smaller(log2_g, 126.0f), -126.0f));
}

// A seed's frame at one point. Differences are taken in double: two coordinates of 100 mm may lie
// 0.4 mm apart.
struct AwayAlong {
  float away;
  float along;
};

TROCAR_HD AwayAlong project_axial(double x, double y, double z, double seed_x, double seed_y, double seed_z) {
  const float dx = static_cast<float>(x - seed_x);
  const float dy = static_cast<float>(y - seed_y);
  return {sqrtf(dx * dx + dy * dy), static_cast<float>(z - seed_z)};
}

// |d x axis| rather than sqrt(d^2 - (d . axis)^2): the latter has no digits left near the axis.
TROCAR_HD AwayAlong project_oriented(double x, double y, double z, double seed_x, double seed_y,
                                     double seed_z, double axis_x, double axis_y, double axis_z) {
  const double dx = x - seed_x, dy = y - seed_y, dz = z - seed_z;
  const float cx = static_cast<float>(dy * axis_z - dz * axis_y);
  const float cy = static_cast<float>(dz * axis_x - dx * axis_z);
  const float cz = static_cast<float>(dx * axis_y - dy * axis_x);
  return {sqrtf(cx * cx + cy * cy + cz * cz), static_cast<float>(dx * axis_x + dy * axis_y + dz * axis_z)};
}

// ---- the operations, on either device -------------------------------------------------------------

// A table where the device can read it. `device` is a GPU's index; the CPU has but one memory.
std::shared_ptr<const float> device_table(const std::vector<float>& values, int device);

struct AwayAlongDose {
  LineSource source;
  const float *away, *along;  // [count]
  float* out;                 // [count]
  int64_t count;
};

struct PointsDose {
  LineSource source;
  const double* points;  // [points, 3]
  const double* seeds;   // [seeds, 3]
  const double* axes;    // [seeds, 3], or null: along +z
  int64_t point_count, seed_count;
};

// out[z, y, x] += weight * sum over seeds of kernel[slab[z - sz + z0], row[y - sy + y0], x - sx + x0].
struct Superposition {
  float* out;  // [nz, ny, nx]
  int32_t nz, ny, nx;
  const float* kernel;  // [slabs, rows, row_values]
  int32_t slabs, rows, row_values;
  const int32_t *slab, *row;  // [slab_count], [row_count]
  int32_t slab_count, row_count;
  int32_t z0, y0, x0;
  const int32_t* seeds_zyx;  // [seed_count, 3]
  int32_t seed_count;
  float weight;
};

void dose_away_along(const AwayAlongDose& dose, const Work& work);
void dose_points(const PointsDose& dose, double* out, const Work& work);  // out [points], summed over seeds
void dose_matrix(const PointsDose& dose, float* out, const Work& work);   // out [seeds, points], axial
void superpose(const Superposition& sum, const Work& work);

}  // namespace trocar
