// CUDA's runtime, as far as trocar uses it, on the CPU: memory and streams, and a launch that has the
// machine of cuda_device_emulation.h run one block after the other.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_device_emulation.h"
#include "errors.h"

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9 };
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
constexpr unsigned cudaStreamNonBlocking = 1;

inline const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "no error";
}
inline const char* cudaGetErrorName(cudaError_t status) {
  return status == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration" : "cudaSuccess";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = ::operator new(bytes);
  std::memset(*memory, trocar::emulation::kGarbage, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  ::operator delete(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* out, const void* src, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(out, src, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace trocar {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                    ")");
}

class OnDevice {
 public:
  explicit OnDevice(int) {}
};

template <typename Kernel>
void allow_dynamic_shared(Kernel*, size_t bytes, int) {
  if (bytes > emulation::kMostSharedBytes)
    throw InvalidInput("expected a problem that takes at most " +
                       std::to_string(emulation::kMostSharedBytes) +
                       " bytes of shared memory on this device, got one of " + std::to_string(bytes));
}

template <typename Kernel>
int resident_blocks(Kernel*, int, size_t, int) {
  return 2;
}

// Block after block; a block's threads in the order of the schedule.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments&&... arguments) {
  using namespace emulation;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool possible = grid.x && grid.y && grid.z && grid.x <= 0x7fffffffu && grid.y <= 65535 &&
                        grid.z <= 65535 && threads && threads <= kMostThreads && block.z <= 64 &&
                        shared_bytes <= kMostSharedBytes;
  check_cuda(possible ? cudaSuccess : cudaErrorInvalidConfiguration, "CUDA kernel launch");
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex());
  Machine& m = machine();
  std::tuple<std::decay_t<Parameters>...> held(std::forward<Arguments>(arguments)...);
  m.body = [kernel, &held] { std::apply(kernel, held); };
  m.threads = static_cast<int>(threads);
  while (m.fibers.size() < threads) m.fibers.emplace_back();
  m.random.seed(static_cast<unsigned>(m.schedule));
  m.failure.clear();
  // Of the exact size, so that a sanitizer sees what reaches beyond it.
  std::unique_ptr<unsigned char[]> dynamic(new unsigned char[shared_bytes]);
  m.dynamic_shared = dynamic.get();
  gridDim = grid;
  blockDim = block;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = m.schedule == 1 ? blocks - 1 - i : i;
    blockIdx = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y));
    m.block = Barrier{};
    m.warps.assign((threads + 31) / 32, Warp{});
    std::memset(m.dynamic_shared, kGarbage, shared_bytes);
    std::memset(__start_trocar_shared, kGarbage,
                static_cast<size_t>(__stop_trocar_shared - __start_trocar_shared));
    run_block();
  }
}

#define TROCAR_DYNAMIC_SHARED(name) unsigned char* const name = ::trocar::emulation::machine().dynamic_shared

}  // namespace trocar
