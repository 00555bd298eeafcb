// The dose kernels on a GPU: one thread a value, seeds added in the caller's order, so that every value
// has the CPU's bits. What the CPU refuses by reading the arrays cannot be refused here, where they are
// read later: a seed beyond the kernel's reach makes NaN.
#include "cuda_launch.h"
#include "dose.h"
#include "errors.h"

namespace trocar {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kRowsPerBlock = 4;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int64_t kMostBlocks = 1 << 30;

unsigned blocks_for(int64_t count, int64_t per_block) {
  const int64_t blocks = (count + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

__device__ __forceinline__ float dose_at(const LineSource& source, AwayAlong at) {
  return source.hinged ? line_source_dose<true>(source, at.away, at.along)
                       : line_source_dose<false>(source, at.away, at.along);
}

__global__ void away_along_kernel(const AwayAlongDose dose) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < dose.count; i += step) {
    dose.out[i] = dose_at(dose.source, {dose.away[i], dose.along[i]});
  }
}

__global__ void points_kernel(const PointsDose dose, double* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < dose.point_count;
       i += step) {
    const double x = dose.points[3 * i], y = dose.points[3 * i + 1], z = dose.points[3 * i + 2];
    double total = 0.0;
    for (int64_t s = 0; s < dose.seed_count; ++s) {
      const double* seed = dose.seeds + 3 * s;
      AwayAlong at;
      if (dose.axes == nullptr) {
        at = project_axial(x, y, z, seed[0], seed[1], seed[2]);
      } else {
        const double* axis = dose.axes + 3 * s;
        at = project_oriented(x, y, z, seed[0], seed[1], seed[2], axis[0], axis[1], axis[2]);
      }
      total += static_cast<double>(dose_at(dose.source, at));
    }
    out[i] = total;
  }
}

// Seeds along the grid's y, points along its x.
__global__ void matrix_kernel(const PointsDose dose, float* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t s = blockIdx.y; s < dose.seed_count; s += gridDim.y) {
    const double seed_x = dose.seeds[3 * s], seed_y = dose.seeds[3 * s + 1], seed_z = dose.seeds[3 * s + 2];
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < dose.point_count;
         i += step) {
      const double* point = dose.points + 3 * i;
      out[s * dose.point_count + i] =
          dose_at(dose.source, project_axial(point[0], point[1], point[2], seed_x, seed_y, seed_z));
    }
  }
}

// Where in the kernel a seed's row for (z, y, x = 0) begins; -1 if the kernel does not reach.
__device__ __forceinline__ int64_t row_start(const Superposition& sum, int64_t s, int32_t z, int32_t y) {
  const int32_t* seed = sum.seeds_zyx + 3 * s;
  const int64_t dz = int64_t{z} - seed[0] + sum.z0;
  const int64_t dy = int64_t{y} - seed[1] + sum.y0;
  const int64_t dx = int64_t{sum.x0} - seed[2];
  if (dz < 0 || dz >= sum.slab_count || dy < 0 || dy >= sum.row_count || dx < 0 ||
      dx + sum.nx > sum.row_values) {
    return -1;
  }
  const int64_t slab = sum.slab[dz], row = sum.row[dy];
  if (slab < 0 || slab >= sum.slabs || row < 0 || row >= sum.rows) return -1;
  return (slab * sum.rows + row) * sum.row_values + dx;
}

// A warp takes 32 voxels of a row. Its lanes look up 32 seeds at a time and hand the starts around.
__global__ void __launch_bounds__(kWarp* kRowsPerBlock) superpose_kernel(const Superposition sum) {
  const int lane = threadIdx.x;
  const int32_t x = static_cast<int32_t>(blockIdx.y) * kWarp + lane;
  const int64_t row_count = int64_t{sum.nz} * sum.ny;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowsPerBlock;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.y; r < row_count; r += step) {
    const int32_t z = static_cast<int32_t>(r / sum.ny), y = static_cast<int32_t>(r % sum.ny);
    float total = 0.0f;
    bool reached = true;
    for (int32_t first = 0; first < sum.seed_count; first += kWarp) {
      const int32_t batch = sum.seed_count - first < kWarp ? sum.seed_count - first : kWarp;
      const long long mine = lane < batch ? row_start(sum, first + lane, z, y) : 0;
      reached = reached && mine >= 0;
      for (int32_t k = 0; k < batch; ++k) {
        const long long start = __shfl_sync(kAllLanes, mine, k);
        if (x < sum.nx && start >= 0) total += sum.kernel[start + x];
      }
    }
    const bool all_reached = __all_sync(kAllLanes, reached);
    if (x < sum.nx) {
      float* const out = sum.out + r * sum.nx + x;
      *out = all_reached ? *out + sum.weight * total : nanf("");
    }
  }
}

cudaStream_t stream_of(const Work& work) { return reinterpret_cast<cudaStream_t>(work.stream); }

}  // namespace

std::shared_ptr<const float> device_table(const std::vector<float>& values, int device) {
  OnDevice on(device);
  float* table = nullptr;
  const size_t bytes = values.size() * sizeof(float);
  check_cuda(cudaMalloc(reinterpret_cast<void**>(&table), bytes), "CUDA memory");
  std::shared_ptr<const float> owner(table, [](const float* p) { cudaFree(const_cast<float*>(p)); });
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "CUDA stream");
  cudaError_t status = cudaMemcpyAsync(table, values.data(), bytes, cudaMemcpyHostToDevice, stream);
  if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
  check_cuda(status, "CUDA copy");
  return owner;
}

void dose_away_along(const AwayAlongDose& dose, const Work& work) {
  if (!dose.count) return;
  OnDevice on(work.device);
  launch(away_along_kernel, blocks_for(dose.count, kThreads), kThreads, 0, stream_of(work), dose);
}

void dose_points(const PointsDose& dose, double* out, const Work& work) {
  if (!dose.point_count) return;
  OnDevice on(work.device);
  launch(points_kernel, blocks_for(dose.point_count, kThreads), kThreads, 0, stream_of(work), dose, out);
}

void dose_matrix(const PointsDose& dose, float* out, const Work& work) {
  if (!dose.point_count || !dose.seed_count) return;
  OnDevice on(work.device);
  const unsigned seeds = static_cast<unsigned>(dose.seed_count < 65535 ? dose.seed_count : 65535);
  launch(matrix_kernel, dim3(blocks_for(dose.point_count, kThreads), seeds), kThreads, 0, stream_of(work),
         dose, out);
}

void superpose(const Superposition& sum, const Work& work) {
  const int64_t rows = int64_t{sum.nz} * sum.ny;
  if (!rows || !sum.nx) return;
  const unsigned tiles = (static_cast<unsigned>(sum.nx) + kWarp - 1) / kWarp;
  if (tiles > 65535)
    throw InvalidInput("out: expected at most 2097120 voxels along x, got " + std::to_string(sum.nx));
  OnDevice on(work.device);
  launch(superpose_kernel, dim3(blocks_for(rows, kRowsPerBlock), tiles), dim3(kWarp, kRowsPerBlock), 0,
         stream_of(work), sum);
}

}  // namespace trocar
