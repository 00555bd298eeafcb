// Small kernels, right and wrong, that show what the emulation does: see test_emulation.py.
#include "cuda_launch.h"
#include "device_emulated.h"

namespace nb = nanobind;

namespace trocar {
namespace {

constexpr int kThreads = 96;

// Reverses a row through shared memory; right only with the barrier.
__global__ void reverse_kernel(int* out, bool barrier) {
  __shared__ int row[kThreads];
  const int i = threadIdx.x;
  row[i] = i;
  if (barrier) __syncthreads();
  out[i] = row[kThreads - 1 - i];
}

// Counts with an atomic, or by reading and writing, with another thread's turn between.
__global__ void count_kernel(int* out, bool atomic) {
  if (atomic) {
    atomicAdd(out, 1);
  } else {
    const int before = *out;
    __syncwarp();
    *out = before + 1;
  }
}

__global__ void half_barrier_kernel(int*) {
  if (threadIdx.x < kThreads / 2) __syncthreads();
}

__global__ void half_exchange_kernel(int* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

__global__ void foreign_lane_kernel(int* out) { out[0] = __shfl_sync(1u, 1, 0); }

__global__ void exchanges_kernel(int* out) {
  const unsigned all = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  out[0 * kThreads + threadIdx.x] = __shfl_sync(all, lane, 5);
  out[1 * kThreads + threadIdx.x] = __shfl_up_sync(all, lane, 1);
  out[2 * kThreads + threadIdx.x] = __shfl_down_sync(all, lane, 30);
  out[3 * kThreads + threadIdx.x] = __shfl_xor_sync(all, lane, 16);
  out[4 * kThreads + threadIdx.x] = __shfl_down_sync(all, lane, 1, 8);
  out[5 * kThreads + threadIdx.x] = static_cast<int>(__ballot_sync(all, lane < 3));
  out[6 * kThreads + threadIdx.x] = __reduce_add_sync(all, lane);
  out[7 * kThreads + threadIdx.x] = __syncthreads_count(threadIdx.x < 40);
  out[8 * kThreads + threadIdx.x] = __syncthreads_or(threadIdx.x == 95);
  out[9 * kThreads + threadIdx.x] = __syncthreads_and(threadIdx.x != 95);
}

__global__ void garbage_kernel(int* out) {
  __shared__ int fixed;
  TROCAR_DYNAMIC_SHARED(bytes);
  out[2 * blockIdx.x] = fixed;
  out[2 * blockIdx.x + 1] = bytes[0];
  fixed = bytes[0] = 1;
}

void probe(const std::string& name, uintptr_t address, int flag) {
  int* const out = reinterpret_cast<int*>(address);
  if (name == "reverse") launch(reverse_kernel, 1, kThreads, 0, nullptr, out, flag != 0);
  if (name == "count") launch(count_kernel, 2, kThreads, 0, nullptr, out, flag != 0);
  if (name == "half barrier") launch(half_barrier_kernel, 1, kThreads, 0, nullptr, out);
  if (name == "half exchange") launch(half_exchange_kernel, 1, kThreads, 0, nullptr, out);
  if (name == "foreign lane") launch(foreign_lane_kernel, 1, 2, 0, nullptr, out);
  if (name == "exchanges") launch(exchanges_kernel, 1, kThreads, 0, nullptr, out);
  if (name == "garbage") launch(garbage_kernel, 2, 1, 16, nullptr, out);
  if (name == "threads") launch(half_barrier_kernel, 1, flag, 0, nullptr, out);
}

}  // namespace

void bind_probes(nb::module_& module) {
  module.def("probe", &probe, nb::arg("name"), nb::arg("address"), nb::arg("flag"), "Run a small kernel.");
}

}  // namespace trocar
