// CUDA's language, as far as trocar's kernels use it, on the CPU: the .cu files compile with a C++
// compiler and run with no GPU; cuda_emulation.h launches them. An emulation, for the logic of a kernel:
// indices, barriers, races between the threads of a block. It says nothing about speed, and is no proof
// of a GPU.
//
// A block's threads are fibers that change places only at barriers, warp exchanges and atomics. What they
// find there depends on whose turn comes first, so a kernel that lacks a barrier gives other results under
// another schedule (see set_schedule). Shared memory holds garbage when a block begins. A barrier that
// some threads of the block do not reach is an error, as is a warp exchange that a named lane misses.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "errors.h"

// ---- the language ---------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static
// All shared variables lie in one section, so that it can be filled with garbage before a block begins.
#define __shared__ static __attribute__((section("trocar_shared")))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define TROCAR_VECTOR_TYPE(type, base)                                                        \
  struct alignas(2 * sizeof(base)) type##2 { base x, y; };                                    \
  struct type##3 { base x, y, z; };                                                           \
  struct alignas(4 * sizeof(base) < 16 ? 4 * sizeof(base) : 16) type##4 { base x, y, z, w; }; \
  inline type##2 make_##type##2(base x, base y) { return {x, y}; }                            \
  inline type##3 make_##type##3(base x, base y, base z) { return {x, y, z}; }                 \
  inline type##4 make_##type##4(base x, base y, base z, base w) { return {x, y, z, w}; }
TROCAR_VECTOR_TYPE(char, signed char)
TROCAR_VECTOR_TYPE(uchar, unsigned char)
TROCAR_VECTOR_TYPE(short, short)
TROCAR_VECTOR_TYPE(ushort, unsigned short)
TROCAR_VECTOR_TYPE(int, int)
TROCAR_VECTOR_TYPE(uint, unsigned)
TROCAR_VECTOR_TYPE(float, float)
TROCAR_VECTOR_TYPE(double, double)
#undef TROCAR_VECTOR_TYPE

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

// ---- the machine ----------------------------------------------------------------------------------

extern "C" unsigned char __start_trocar_shared[] __attribute__((weak));
extern "C" unsigned char __stop_trocar_shared[] __attribute__((weak));

namespace trocar {
namespace emulation {

constexpr int kMostThreads = 1024;
constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kMostSharedBytes = 227 * 1024;  // of the devices that have the most
constexpr unsigned char kGarbage = 0xcd;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStackBytes]};
  dim3 index;
  bool done = false;
  const std::function<bool()>* waiting = nullptr;  // runs on when this holds; null: at once
};

// What arrived at the block's barrier. Of a round and the one before: no thread is further behind.
struct Barrier {
  int arrived = 0;
  uint64_t round = 0;
  int count_nonzero[2] = {};
};

struct Warp {
  uint32_t arrived = 0;
  uint32_t mask = 0;
  uint64_t round = 0;
  uint64_t handed[2][32] = {};
};

struct Machine {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  std::function<void()> body;
  int threads = 0;
  Barrier block;
  std::vector<Warp> warps;
  unsigned char* dynamic_shared = nullptr;
  int schedule = 0;  // 0 first to last, 1 last to first, above: a random order with that seed
  std::mt19937 random;
  std::string failure;
};

inline Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

inline std::recursive_mutex& machine_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

inline void set_schedule(int schedule) { machine().schedule = schedule; }

inline int linear(const dim3& index) {
  return static_cast<int>(index.x + blockDim.x * (index.y + blockDim.y * index.z));
}

// Hands the processor to the scheduler; comes back when `ready` holds.
inline void wait_until(const std::function<bool()>& ready) {
  Machine& m = machine();
  Fiber* const self = m.running;
  self->waiting = &ready;
  swapcontext(&self->context, &m.scheduler);
}

inline void yield_sometimes() {
  Machine& m = machine();
  if (m.schedule < 2 || m.random() % 4) return;
  const std::function<bool()> at_once = [] { return true; };
  wait_until(at_once);
}

inline void fiber_main() {
  Machine& m = machine();
  m.body();
  m.running->done = true;
  swapcontext(&m.running->context, &m.scheduler);
}

inline void run_block() {
  Machine& m = machine();
  std::vector<int> order(m.threads);
  for (int i = 0; i < m.threads; ++i) order[i] = m.schedule == 1 ? m.threads - 1 - i : i;
  for (int i = 0; i < m.threads; ++i) {
    Fiber& fiber = m.fibers[i];
    fiber.done = false;
    fiber.waiting = nullptr;
    fiber.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  int left = m.threads;
  while (left) {
    if (m.schedule >= 2) std::shuffle(order.begin(), order.end(), m.random);
    bool any = false;
    for (const int i : order) {
      Fiber& fiber = m.fibers[i];
      if (fiber.done || (fiber.waiting && !(*fiber.waiting)())) continue;
      any = true;
      fiber.waiting = nullptr;
      m.running = &fiber;
      threadIdx = fiber.index;
      swapcontext(&m.scheduler, &fiber.context);
      if (!m.failure.empty()) throw DeviceError("emulated kernel: " + m.failure);
      left -= fiber.done;
    }
    if (!any)
      throw DeviceError("emulated kernel: threads wait at a barrier or exchange that others never reach");
  }
}

// A barrier of the whole block. Returns what the threads handed in: their number that was not 0.
inline int meet_block(int value) {
  Machine& m = machine();
  const uint64_t round = m.block.round;
  m.block.count_nonzero[round % 2] += value != 0;
  if (++m.block.arrived == m.threads) {
    m.block.arrived = 0;
    m.block.count_nonzero[(round + 1) % 2] = 0;
    ++m.block.round;
  }
  const std::function<bool()> passed = [&m, round] { return m.block.round > round; };
  wait_until(passed);
  return m.block.count_nonzero[round % 2];
}

// An exchange among the lanes of a mask: every lane hands in a word and may then read all of them.
inline const uint64_t* meet_warp(uint32_t mask, uint64_t value) {
  Machine& m = machine();
  const int thread = linear(threadIdx);
  const uint32_t lane = 1u << (thread % 32);
  Warp& warp = m.warps[thread / 32];
  const int in_warp = std::min(32, m.threads - thread / 32 * 32);
  if (in_warp < 32) mask &= (1u << in_warp) - 1;  // lanes that the block does not have
  if (!(mask & lane)) {
    m.failure = "a lane calls a warp exchange whose mask leaves it out";
  } else if (warp.arrived && warp.mask != mask) {
    m.failure = "lanes of one warp meet with different masks";
  }
  const uint64_t round = warp.round;
  warp.mask = mask;
  warp.arrived |= lane;
  warp.handed[round % 2][thread % 32] = value;
  if (warp.arrived == mask) {
    warp.arrived = 0;
    ++warp.round;
  }
  const std::function<bool()> passed = [&warp, round] { return warp.round > round; };
  wait_until(passed);
  return warp.handed[round % 2];
}

template <typename T>
uint64_t word_of(T value) {
  static_assert(sizeof(T) <= 8, "a shuffle takes at most 8 bytes");
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}

template <typename T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

template <typename T>
T shuffle(uint32_t mask, T value, int source_lane, int width) {
  const int lane = linear(threadIdx) % 32;
  const uint64_t* const words = meet_warp(mask, word_of(value));
  const int first = lane / width * width;
  const bool inside = source_lane >= first && source_lane < first + width;
  return from_word<T>(words[inside ? source_lane : lane]);
}

template <typename T, typename Change>
T atomic(T* address, Change change) {
  yield_sometimes();
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace emulation
}  // namespace trocar

// ---- barriers, exchanges, atomics -----------------------------------------------------------------

inline void __syncthreads() { trocar::emulation::meet_block(0); }
inline int __syncthreads_count(int value) { return trocar::emulation::meet_block(value); }
inline int __syncthreads_or(int value) { return trocar::emulation::meet_block(value) != 0; }
inline int __syncthreads_and(int value) {
  return trocar::emulation::meet_block(value) == trocar::emulation::machine().threads;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { trocar::emulation::meet_warp(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  const int first = trocar::emulation::linear(threadIdx) % 32 / width * width;
  return trocar::emulation::shuffle(mask, value, first + (lane & (width - 1)), width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return trocar::emulation::shuffle(
      mask, value, trocar::emulation::linear(threadIdx) % 32 - static_cast<int>(delta), width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  return trocar::emulation::shuffle(
      mask, value, trocar::emulation::linear(threadIdx) % 32 + static_cast<int>(delta), width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return trocar::emulation::shuffle(mask, value, (trocar::emulation::linear(threadIdx) % 32) ^ lanes, width);
}

inline unsigned __ballot_sync(unsigned mask, int value) {
  const int first = trocar::emulation::linear(threadIdx) / 32 * 32;
  const int lanes = std::min(32, trocar::emulation::machine().threads - first);
  const uint64_t* const words = trocar::emulation::meet_warp(mask, value != 0);
  unsigned ballot = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    if (mask >> lane & 1u && words[lane]) ballot |= 1u << lane;
  }
  return ballot;
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, !value) == 0; }

template <typename T, typename Combine>
T trocar_reduce(unsigned mask, T value, Combine combine) {
  const int own = trocar::emulation::linear(threadIdx) % 32;
  const int first = trocar::emulation::linear(threadIdx) / 32 * 32;
  const int lanes = std::min(32, trocar::emulation::machine().threads - first);
  const uint64_t* const words = trocar::emulation::meet_warp(mask, trocar::emulation::word_of(value));
  T result = value;
  for (int lane = 0; lane < lanes; ++lane) {
    if (lane != own && mask >> lane & 1u) {
      result = combine(result, trocar::emulation::from_word<T>(words[lane]));
    }
  }
  return result;
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value) {
  return trocar_reduce(mask, value, [](T a, T b) { return static_cast<T>(a + b); });
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value) {
  return trocar_reduce(mask, value, [](T a, T b) { return b < a ? b : a; });
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value) {
  return trocar_reduce(mask, value, [](T a, T b) { return b > a ? b : a; });
}
template <typename T>
T __reduce_or_sync(unsigned mask, T value) {
  return trocar_reduce(mask, value, [](T a, T b) { return static_cast<T>(a | b); });
}

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicSub(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return static_cast<T>(old - value); });
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return value > old ? value : old; });
}
template <typename T>
T atomicOr(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicAnd(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T old) { return static_cast<T>(old & value); });
}
template <typename T>
T atomicExch(T* address, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [value](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  return trocar::emulation::atomic(address, [compare, value](T old) { return old == compare ? value : old; });
}

// ---- small functions ------------------------------------------------------------------------------

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __float_as_uint(float value) {
  return trocar::emulation::from_word<unsigned>(trocar::emulation::word_of(value));
}
inline int __float_as_int(float value) {
  return trocar::emulation::from_word<int>(trocar::emulation::word_of(value));
}
inline float __uint_as_float(unsigned value) {
  return trocar::emulation::from_word<float>(trocar::emulation::word_of(value));
}
inline float __int_as_float(int value) {
  return trocar::emulation::from_word<float>(trocar::emulation::word_of(value));
}
inline long long __double_as_longlong(double value) {
  return trocar::emulation::from_word<long long>(trocar::emulation::word_of(value));
}
inline double __longlong_as_double(long long value) {
  return trocar::emulation::from_word<double>(trocar::emulation::word_of(value));
}
template <typename T>
T min(T a, std::common_type_t<T> b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, std::common_type_t<T> b) {
  return b > a ? b : a;
}
