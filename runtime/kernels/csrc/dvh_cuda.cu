// Dose histograms on a GPU, the same bits in every run: what is added in no fixed order is integers, and
// floating point sums run in one that depends on the number of voxels alone.
//
// `above` counts as integers until the last kernel turns it into cumulative sums in place. The workspace
// holds the extremes and the status, then one weighted sum for each structure and each block's voxels.
#include <cmath>

#include "cuda_launch.h"
#include "dvh.h"

namespace trocar {
namespace {

constexpr int kThreads = 256;
constexpr int kVoxelsPerThread = 16;
constexpr int kVoxelsPerBlock = kThreads * kVoxelsPerThread;
constexpr int kFinishThreads = 1024;
constexpr int kBinsPerThread = 8;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr unsigned kFirstNonFinite = 0x7f800000u;
constexpr unsigned kSignBit = 0x80000000u;

using Count = unsigned long long;

// A float that is not negative orders like its bits. Zero, as the workspace begins, stands for none.
struct Extremes {
  unsigned most;   // bits + 1
  unsigned least;  // the bits' complement
};

struct Fractions {
  const float* of[kMostDvhStructures];
};

__host__ __device__ constexpr int64_t head_values(int32_t structures) { return structures + 1; }

// Of the threads' values, added by halves; every thread gets it.
__device__ double block_sum(double value, double* shared) {
  const int thread = threadIdx.x;
  shared[thread] = value;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] += shared[thread + half];
    __syncthreads();
  }
  const double sum = shared[0];
  __syncthreads();
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    count_kernel(DvhTask task, Fractions fractions, double two_to_bits) {
  __shared__ double shared[kThreads];
  unsigned* const status = reinterpret_cast<unsigned*>(task.workspace);
  Extremes* const extremes = reinterpret_cast<Extremes*>(task.workspace + 1);
  double* const partial = task.workspace + head_values(task.structures);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kVoxelsPerBlock + threadIdx.x;

  float dose[kVoxelsPerThread];
  bool bad = false;
#pragma unroll
  for (int i = 0; i < kVoxelsPerThread; ++i) {
    const int64_t voxel = first + i * kThreads;
    dose[i] = voxel < task.voxels ? task.dose[voxel] : 0.0f;
    const unsigned bits = __float_as_uint(dose[i]);
    bad = bad || (bits >= kFirstNonFinite && bits != kSignBit);
  }
  if (bad) atomicOr(status, static_cast<unsigned>(kDvhBadDose));

  for (int s = 0; s < task.structures; ++s) {
    Count* const histogram = reinterpret_cast<Count*>(task.above) + s * (int64_t{task.last_bin} + 1);
    const float* const fraction = fractions.of[s];
    double weighted = 0.0;
    unsigned most = 0, least = 0;
    bool any = false;
#pragma unroll
    for (int i = 0; i < kVoxelsPerThread; ++i) {
      const int64_t voxel = first + i * kThreads;
      const float weight = voxel < task.voxels ? fraction[voxel] : 0.0f;
      if (weight == 0.0f) continue;
      if (!(weight > 0.0f && weight <= 1.0f)) {
        atomicOr(status, static_cast<unsigned>(kDvhBadFraction));
        continue;
      }
      if (bad) continue;
      any = true;
      const std::int32_t bin = dvh_bin(dose[i], task.bins_per_unit, task.unit, task.last_bin);
      atomicAdd(histogram + bin, static_cast<Count>(fixed_point(weight, two_to_bits)));
      weighted += static_cast<double>(weight) * static_cast<double>(dose[i]);
      const unsigned bits = __float_as_uint(dose[i] + 0.0f);  // -0 becomes 0
      most = max(most, bits + 1);
      least = max(least, ~bits);
    }
    if (any) {
      atomicMax(&extremes[s].most, most);
      atomicMax(&extremes[s].least, least);
    }
    // Most blocks of most structures are empty.
    const double sum = __syncthreads_or(any) ? block_sum(weighted, shared) : 0.0;
    if (threadIdx.x == 0) partial[s * static_cast<int64_t>(gridDim.x) + blockIdx.x] = sum;
  }
}

// Sum over this thread and those after it in the block.
__device__ Count sum_from_here(Count value, Count* warp_sums) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int apart = 1; apart < kWarp; apart *= 2) {
    const Count other = __shfl_down_sync(kAllLanes, value, apart);
    if (lane + apart < kWarp) value += other;
  }
  if (lane == 0) warp_sums[warp] = value;
  __syncthreads();
  for (int later = warp + 1; later < static_cast<int>(blockDim.x) / kWarp; ++later) value += warp_sums[later];
  __syncthreads();
  return value;
}

// One block a structure: its histogram from the top down, and its sums.
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(DvhTask task, int64_t blocks, double one_by_two_to_bits) {
  __shared__ double shared[kFinishThreads];
  __shared__ Count warp_sums[kFinishThreads / kWarp];
  __shared__ Count above_tile;
  const int s = blockIdx.x, thread = threadIdx.x;
  const bool bad = *reinterpret_cast<const unsigned*>(task.workspace) != kDvhOk;
  const Extremes found = reinterpret_cast<const Extremes*>(task.workspace + 1)[s];
  const double* const partial = task.workspace + head_values(task.structures) + s * blocks;
  const int64_t bins = int64_t{task.last_bin} + 1;
  double* const above = task.above + s * bins;
  const Count* const histogram = reinterpret_cast<const Count*>(above);

  double weighted = 0.0;
  for (int64_t i = thread; i < blocks; i += blockDim.x) weighted += partial[i];
  weighted = block_sum(weighted, shared);

  Count total = 0;
  const int64_t tile = int64_t{kFinishThreads} * kBinsPerThread;
  for (int64_t start = (bins - 1) / tile * tile; start >= 0; start -= tile) {
    const int64_t first = start + thread * kBinsPerThread;
    Count own[kBinsPerThread];
    Count sum = 0;
#pragma unroll
    for (int i = kBinsPerThread - 1; i >= 0; --i) {
      if (first + i < bins) sum += histogram[first + i];
      own[i] = sum;
    }
    const Count from_here = sum_from_here(sum, warp_sums);
    const Count later = total + from_here - sum;
#pragma unroll
    for (int i = 0; i < kBinsPerThread; ++i) {
      if (first + i >= bins) continue;
      above[first + i] = bad ? nan("") : static_cast<double>(later + own[i]) * one_by_two_to_bits;
    }
    if (thread == 0) above_tile = total + from_here;
    __syncthreads();
    total = above_tile;
    __syncthreads();
  }
  if (thread != 0) return;
  double* const row = task.sums + 4 * s;
  row[0] = bad ? nan("") : static_cast<double>(total) * one_by_two_to_bits;
  row[1] = bad ? nan("") : weighted;
  row[2] = bad ? nan("") : found.least ? static_cast<double>(__uint_as_float(~found.least)) : INFINITY;
  row[3] = bad ? nan("") : found.most ? static_cast<double>(__uint_as_float(found.most - 1)) : -INFINITY;
}

int64_t blocks_of(int64_t voxels) { return (voxels + kVoxelsPerBlock - 1) / kVoxelsPerBlock; }

}  // namespace

std::int64_t dvh_workspace(std::int64_t voxels, std::int32_t structures) {
  return head_values(structures) + blocks_of(voxels) * structures;
}

DvhStatus cumulative_histograms(const DvhTask& task, const Work& work) {
  if (!task.structures) return kDvhOk;
  OnDevice on(work.device);
  const cudaStream_t stream = reinterpret_cast<cudaStream_t>(work.stream);
  Fractions fractions = {};
  for (int s = 0; s < task.structures; ++s) fractions.of[s] = task.fractions[s];
  const size_t bins = static_cast<size_t>(task.last_bin) + 1;
  check_cuda(cudaMemsetAsync(task.above, 0, task.structures * bins * sizeof(double), stream), "CUDA memory");
  check_cuda(cudaMemsetAsync(task.workspace, 0, head_values(task.structures) * sizeof(double), stream),
             "CUDA memory");
  const int bits = fixed_point_bits(task.voxels);
  const int64_t blocks = blocks_of(task.voxels);
  if (blocks) {
    launch(count_kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, task, fractions,
           std::ldexp(1.0, bits));
  }
  launch(finish_kernel, task.structures, kFinishThreads, 0, stream, task, blocks, std::ldexp(1.0, -bits));
  return kDvhOk;
}

}  // namespace trocar
