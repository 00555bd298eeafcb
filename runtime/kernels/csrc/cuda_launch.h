// What a CUDA kernel's file needs of the runtime: errors in the driver's words, and one way to launch.
// Tests compile the same files without a GPU: an emulation takes this place.
#pragma once

#if defined(TROCAR_EMULATE_CUDA)
#include "cuda_emulation.h"
#else

#include <cuda_runtime.h>

#include <string>
#include <utility>

#include "errors.h"

namespace trocar {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                    ")");
}

// The work of one call on one device; the thread's own current device comes back afterwards.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    check_cuda(cudaGetDevice(&before_), "current CUDA device");
    if (device != before_) check_cuda(cudaSetDevice(device), "CUDA device");
    changed_ = device != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

#if defined(__CUDACC__)
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...),
             "CUDA kernel launch");
}

// Lets a kernel take more dynamic shared memory a block than every device grants unasked.
template <typename... Parameters>
void allow_dynamic_shared(void (*kernel)(Parameters...), size_t bytes, int device) {
  int most = 0;
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "CUDA device");
  if (bytes > static_cast<size_t>(most))
    throw InvalidInput("expected a problem that takes at most " + std::to_string(most) +
                       " bytes of shared memory on this device, got one of " + std::to_string(bytes));
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
             "CUDA shared memory");
}

// Blocks of a kernel that the whole device runs at once.
template <typename... Parameters>
int resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int device) {
  int each = 0, multiprocessors = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes),
             "CUDA occupancy");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "CUDA device");
  return each * multiprocessors;
}

// `name` is the block's dynamic shared memory, as bytes aligned for any type.
#define TROCAR_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

}  // namespace trocar

#endif
