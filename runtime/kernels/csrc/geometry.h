// Shapes on grids: exact Euclidean distance, sub-pixel signed distance of slices, scanline coverage,
// and resampling between slices. The numeric definitions; loops over slices stand in geometry_cpu.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace trocar::geometry {

constexpr float kFar = std::numeric_limits<float>::infinity();

// Buffers of the one-dimensional lower envelope, kept between calls.
struct Envelope {
  std::vector<float> height;
  std::vector<int> site;
  std::vector<double> start;

  explicit Envelope(std::size_t count) : height(count), site(count), start(count + 1) {}
};

// In place: values[i] = min_j (values[j] + (step * (i - j))^2), in linear time.
// Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, 2012. Infinite heights
// raise no parabola; a line with none stays infinite.
inline void lower_envelope(float* values, std::size_t count, std::size_t stride, double step,
                           Envelope& buffer) {
  const double squared_step = step * step;
  int last = -1;
  for (std::size_t i = 0; i < count; ++i) {
    const float height = values[i * stride];
    buffer.height[i] = height;
    if (!(height < kFar)) continue;
    const double lifted = height + squared_step * double(i) * double(i);
    double cut = -std::numeric_limits<double>::infinity();
    while (last >= 0) {
      const int other = buffer.site[last];
      const double other_lifted = buffer.height[other] + squared_step * double(other) * double(other);
      cut = (lifted - other_lifted) / (2.0 * squared_step * (double(i) - other));
      if (cut > buffer.start[last]) break;
      --last;
      cut = -std::numeric_limits<double>::infinity();
    }
    ++last;
    buffer.site[last] = int(i);
    buffer.start[last] = cut;
  }
  if (last < 0) return;
  buffer.start[last + 1] = std::numeric_limits<double>::infinity();
  int now = 0;
  for (std::size_t i = 0; i < count; ++i) {
    while (buffer.start[now + 1] < double(i)) ++now;
    const double away = step * (double(i) - buffer.site[now]);
    values[i * stride] = float(away * away + buffer.height[buffer.site[now]]);
  }
}

// out[i] = min(out[i], squared distance along the line to its nearest half-level crossing). A crossing
// lies between neighbours on either side of 0.5, placed by linear interpolation.
inline void line_crossings(const float* values, float* out, std::size_t count, std::size_t stride,
                           double step) {
  double behind = -std::numeric_limits<double>::infinity();
  std::size_t done = 0;  // pixels before `done` know both their neighbours
  const auto settle = [&](std::size_t end, double ahead) {
    for (; done < end; ++done) {
      const double away = step * std::min(double(done) - behind, ahead - double(done));
      out[done * stride] = float(away * away);
    }
  };
  for (std::size_t i = 0; i + 1 < count; ++i) {
    const float left = values[i * stride];
    const float right = values[(i + 1) * stride];
    if ((left >= 0.5f) == (right >= 0.5f)) continue;
    const double crossing = double(i) + (0.5 - left) / (double(right) - left);
    settle(i + 1, crossing);
    behind = crossing;
  }
  settle(count, std::numeric_limits<double>::infinity());
}

// Area within the level `shift` of a sampled distance, and the length of that level's band, in samples:
// 2 x 2 samples of each bilinear cell.
struct Covered {
  double area = 0.0;
  double band = 0.0;
};

inline Covered covered_within(const float* distance, std::size_t ny, std::size_t nx, float ramp,
                              float shift) {
  Covered sum;
  for (std::size_t y = 0; y + 1 < ny; ++y) {
    const float* low = distance + y * nx;
    const float* high = low + nx;
    for (std::size_t x = 0; x + 1 < nx; ++x) {
      const float a = low[x], b = low[x + 1], c = high[x], d = high[x + 1];
      const float corners[4] = {9 * a + 3 * b + 3 * c + d, 3 * a + 9 * b + c + 3 * d,
                                3 * a + b + 9 * c + 3 * d, a + 3 * b + 3 * c + 9 * d};
      for (float corner : corners) {
        const float fraction = 0.5f - (corner / 16.0f - shift) / ramp;
        if (fraction >= 1.0f) {
          sum.area += 1.0;
        } else if (fraction > 0.0f) {
          sum.area += fraction;
          sum.band += 1.0;
        }
      }
    }
  }
  return sum;
}

// The level, at most half a pixel from zero, that holds `area` (in pixels). Newton steps; one or two do
// unless the slice is a few pixels across.
inline float level_of_area(const float* distance, std::size_t ny, std::size_t nx, double sy, double sx,
                           double area) {
  const float ramp = float(0.25 * (sx + sy));
  const double most = 0.5 * std::min(sx, sy);
  double shift = 0.0;
  for (int step = 0; step < 4; ++step) {
    const Covered now = covered_within(distance, ny, nx, ramp, float(shift));
    const double missing = 4.0 * area - now.area;
    if (now.band == 0.0 || std::abs(missing) < 0.002 * 4.0 * area) break;
    shift = std::clamp(shift + missing * ramp / now.band, -most, most);
  }
  return float(shift);
}

}  // namespace trocar::geometry
