// Row loops over the line source functor, and the superposition of a precomputed kernel.
//
// Floating point contraction is off for this file (see CMakeLists.txt) and nothing is reassociated, so
// every clone, the scalar functor and any number of threads give the same bits: a plan does not depend
// on the machine that made it.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "clones.h"
#include "dose.h"
#include "errors.h"

namespace trocar {
namespace {

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

TROCAR_CLONES void project_axial_row(const double* __restrict x, const double* __restrict y,
                                     const double* __restrict z, const double* seed, float* __restrict away,
                                     float* __restrict along, int count) {
  const double sx = seed[0], sy = seed[1], sz = seed[2];
  for (int i = 0; i < count; ++i) {
    const AwayAlong at = project_axial(x[i], y[i], z[i], sx, sy, sz);
    away[i] = at.away;
    along[i] = at.along;
  }
}

TROCAR_CLONES void project_oriented_row(const double* __restrict x, const double* __restrict y,
                                        const double* __restrict z, const double* seed, const double* axis,
                                        float* __restrict away, float* __restrict along, int count) {
  const double sx = seed[0], sy = seed[1], sz = seed[2];
  const double ax = axis[0], ay = axis[1], az = axis[2];
  for (int i = 0; i < count; ++i) {
    const AwayAlong at = project_oriented(x[i], y[i], z[i], sx, sy, sz, ax, ay, az);
    away[i] = at.away;
    along[i] = at.along;
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
  Columns(const double* points, int64_t point_count) : count(point_count), x(count), y(count), z(count) {
    for (int64_t i = 0; i < count; ++i, points += 3) {
      x[i] = points[0];
      y[i] = points[1];
      z[i] = points[2];
    }
  }
  int64_t count;
  std::vector<double> x, y, z;
};

void require_reach(const Superposition& sum) {
  const int padded = (sum.nx + 15) / 16 * 16;
  auto within = [](int64_t first, int64_t count, int64_t extent) {
    return first >= 0 && first + count <= extent;
  };
  const int32_t* seed = sum.seeds_zyx;
  for (int s = 0; s < sum.seed_count; ++s, seed += 3) {
    if (!within(int64_t{sum.z0} - seed[0], sum.nz, sum.slab_count) ||
        !within(int64_t{sum.y0} - seed[1], sum.ny, sum.row_count) ||
        !within(int64_t{sum.x0} - seed[2], padded, sum.row_values)) {
      throw InvalidInput("a seed lies beyond the kernel's reach");
    }
  }
  auto indexes = [](const int32_t* table, int32_t count, int32_t extent) {
    return std::all_of(table, table + count, [&](int32_t i) { return i >= 0 && i < extent; });
  };
  if (!indexes(sum.slab, sum.slab_count, sum.slabs) || !indexes(sum.row, sum.row_count, sum.rows)) {
    throw InvalidInput("slab or row index outside the kernel");
  }
}

}  // namespace

std::shared_ptr<const float> device_table(const std::vector<float>& values, int) {
  auto copy = std::make_shared<const std::vector<float>>(values);
  return {copy, copy->data()};
}

void dose_away_along(const AwayAlongDose& dose, const Work&) {
  for (int64_t start = 0; start < dose.count; start += kBlock) {
    evaluate_row(dose.source, dose.away + start, dose.along + start, dose.out + start,
                 static_cast<int>(std::min<int64_t>(kBlock, dose.count - start)));
  }
}

void dose_points(const PointsDose& dose, double* out, const Work& work) {
  const Columns columns(dose.points, dose.point_count);
  parallel_for((columns.count + kBlock - 1) / kBlock, work.threads, [&](int64_t block) {
    const int64_t start = block * kBlock;
    const int count = static_cast<int>(std::min<int64_t>(kBlock, columns.count - start));
    const double *x = &columns.x[start], *y = &columns.y[start], *z = &columns.z[start];
    float away[kBlock], along[kBlock], values[kBlock];
    double total[kBlock] = {};
    for (int64_t s = 0; s < dose.seed_count; ++s) {
      if (dose.axes == nullptr) {
        project_axial_row(x, y, z, dose.seeds + 3 * s, away, along, count);
      } else {
        project_oriented_row(x, y, z, dose.seeds + 3 * s, dose.axes + 3 * s, away, along, count);
      }
      evaluate_row(dose.source, away, along, values, count);
      accumulate(total, values, count);
    }
    std::copy(total, total + count, out + start);
  });
}

void dose_matrix(const PointsDose& dose, float* out, const Work& work) {
  const Columns columns(dose.points, dose.point_count);
  parallel_for(dose.seed_count, work.threads, [&](int64_t s) {
    float away[kBlock], along[kBlock];
    for (int64_t start = 0; start < columns.count; start += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, columns.count - start));
      project_axial_row(&columns.x[start], &columns.y[start], &columns.z[start], dose.seeds + 3 * s, away,
                        along, count);
      evaluate_row(dose.source, away, along, out + s * columns.count + start, count);
    }
  });
}

// Seeds come ordered by z: those of one plane share a slab, which then stays in the cache.
void superpose(const Superposition& sum, const Work& work) {
  require_reach(sum);
  const int64_t slab_stride = int64_t{sum.rows} * sum.row_values;
  parallel_for(sum.nz, work.threads, [&](int64_t z) {
    std::vector<const float*> rows(sum.seed_count);
    for (int y = 0; y < sum.ny; ++y) {
      const int32_t* s = sum.seeds_zyx;
      for (int i = 0; i < sum.seed_count; ++i, s += 3) {
        rows[i] = sum.kernel + sum.slab[z - s[0] + sum.z0] * slab_stride +
                  sum.row[y - s[1] + sum.y0] * int64_t{sum.row_values} + (sum.x0 - s[2]);
      }
      superpose_row(rows.data(), sum.seed_count, sum.weight, sum.out + (z * sum.ny + y) * sum.nx, sum.nx);
    }
  });
}

}  // namespace trocar
