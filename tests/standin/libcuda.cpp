// A stand-in for the CUDA driver, libcuda.so.1: what `trocar.runtime.session.cuda` calls of it, with its
// calling convention, on memory of the host. Tests compile it; nothing here shows that a GPU would agree.
//
// Device memory is a memfd, so that another process can map what a handle names. Copies are done when their
// stream is waited for, calls need a current context, and a process cannot open its own handle: what the
// caller forgets shows. STANDIN_GPUS says how many GPUs there are, and standin_fail names a call that fails.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kMapFailed = 205,
  kUnknown = 999
};

struct Handle {
  char magic[8];
  int64_t process, file;
  uint64_t inode, size;
  char rest[24];
};
static_assert(sizeof(Handle) == 64);

struct Block {
  uint64_t size;
  int file;        // of memory that this process made; else -1
  uint64_t inode;  // of memory that another made
  int opened;      // how often
};

using Stream = std::vector<std::function<void()>>;

std::mutex lock;
std::map<uint64_t, Block> blocks;
std::string failing;
int active[8];
thread_local std::vector<void*> contexts;

int gpus() {
  const char* said = std::getenv("STANDIN_GPUS");
  return said ? std::atoi(said) : 1;
}

bool current() { return !contexts.empty() && contexts.back(); }

Result entered(const char* call, bool in_context) {
  std::lock_guard<std::mutex> held(lock);
  if (failing == call) return kUnknown;
  return in_context && !current() ? kInvalidContext : kSuccess;
}

// The block in which all of some bytes lie.
std::map<uint64_t, Block>::iterator find(uint64_t address, uint64_t size) {
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return blocks.end();
  auto at = std::prev(after);
  return address + size <= at->first + at->second.size ? at : blocks.end();
}

uint64_t map(int file, uint64_t size) {
  void* place = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return place == MAP_FAILED ? 0 : reinterpret_cast<uint64_t>(place);
}

Result copy(const char* call, uint64_t device, uint64_t size, void* stream, std::function<void()> work) {
  if (Result result = entered(call, true)) return result;
  std::lock_guard<std::mutex> held(lock);
  if (find(device, size) == blocks.end() || !stream) return kInvalidValue;
  static_cast<Stream*>(stream)->push_back(std::move(work));
  return kSuccess;
}

}  // namespace

#define ENTER(in_context) \
  if (Result result = entered(__func__, in_context)) return result

extern "C" {

// For tests: how often memory of others is open, this thread's context, the call that fails ("" for none).
int standin_opened() {
  std::lock_guard<std::mutex> held(lock);
  int sum = 0;
  for (const auto& [address, block] : blocks) sum += block.opened;
  return sum;
}
uint64_t standin_context() { return contexts.empty() ? 0 : reinterpret_cast<uint64_t>(contexts.back()); }
void standin_fail(const char* call) {
  std::lock_guard<std::mutex> held(lock);
  failing = call;
}

int cuInit(unsigned) {
  ENTER(false);
  return gpus() ? kSuccess : 100;
}
int cuDeviceGetCount(int* count) { return *count = gpus(), kSuccess; }
int cuDeviceGet(int* device, int number) {
  return *device = number, number < gpus() ? kSuccess : kInvalidDevice;
}
int cuDeviceGetName(char* name, int size, int) { return std::snprintf(name, size, "Stand-in"), kSuccess; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  return *value = attribute == 75 ? 8 : 9, kSuccess;
}
int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* is_active) {
  return *flags = 0, *is_active = active[device], kSuccess;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  ENTER(false);
  active[device] = 1;
  *context = reinterpret_cast<void*>(0x7000'0000'1000 + device);
  return kSuccess;
}
int cuCtxSetCurrent(void* context) {
  if (!contexts.empty()) contexts.pop_back();
  contexts.push_back(context);
  return kSuccess;
}
int cuCtxPushCurrent_v2(void* context) { return contexts.push_back(context), kSuccess; }
int cuCtxPopCurrent_v2(void** context) {
  if (!current()) return kInvalidContext;
  *context = contexts.back();
  contexts.pop_back();
  return kSuccess;
}
int cuCtxSynchronize() {
  ENTER(true);
  return kSuccess;
}
int cuMemGetInfo_v2(size_t* free, size_t* whole) { return *free = *whole = size_t{1} << 30, kSuccess; }

int cuMemAlloc_v2(uint64_t* address, size_t size) {
  ENTER(true);
  int file = memfd_create("trocar-standin", MFD_CLOEXEC);
  struct stat facts;
  if (file < 0 || ftruncate(file, size) || fstat(file, &facts) || !(*address = map(file, size)))
    return kOutOfMemory;
  std::lock_guard<std::mutex> held(lock);
  blocks[*address] = {size, file, facts.st_ino, 0};
  return kSuccess;
}
int cuMemFree_v2(uint64_t address) {
  ENTER(true);
  std::lock_guard<std::mutex> held(lock);
  auto at = blocks.find(address);
  if (at == blocks.end() || at->second.file < 0) return kInvalidValue;
  munmap(reinterpret_cast<void*>(address), at->second.size);
  close(at->second.file);
  blocks.erase(at);
  return kSuccess;
}
int cuMemHostAlloc(void** address, size_t size, unsigned) {
  ENTER(true);
  *address = std::aligned_alloc(64, (size + 63) / 64 * 64);
  return *address ? kSuccess : kOutOfMemory;
}
int cuMemFreeHost(void* address) { return std::free(address), kSuccess; }
int cuMemGetAddressRange_v2(uint64_t* base, size_t* size, uint64_t address) {
  ENTER(true);
  std::lock_guard<std::mutex> held(lock);
  auto at = find(address, 1);
  if (at == blocks.end()) return kInvalidValue;
  *base = at->first;
  *size = at->second.size;
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(uint64_t device, const void* host, size_t size, void* stream) {
  return copy(__func__, device, size, stream,
              [=] { std::memcpy(reinterpret_cast<void*>(device), host, size); });
}
int cuMemcpyDtoHAsync_v2(void* host, uint64_t device, size_t size, void* stream) {
  return copy(__func__, device, size, stream,
              [=] { std::memcpy(host, reinterpret_cast<const void*>(device), size); });
}
int cuStreamCreate(void** stream, unsigned) {
  ENTER(true);
  *stream = new Stream;
  return kSuccess;
}
int cuStreamSynchronize(void* stream) {
  ENTER(true);
  std::lock_guard<std::mutex> held(lock);
  for (auto& work : *static_cast<Stream*>(stream)) work();
  static_cast<Stream*>(stream)->clear();
  return kSuccess;
}
int cuStreamDestroy_v2(void* stream) { return delete static_cast<Stream*>(stream), kSuccess; }

int cuIpcGetMemHandle(Handle* handle, uint64_t address) {
  ENTER(true);
  std::lock_guard<std::mutex> held(lock);
  auto at = blocks.find(address);
  if (at == blocks.end() || at->second.file < 0) return kInvalidValue;
  *handle = {"STANDIN", getpid(), at->second.file, at->second.inode, at->second.size, {}};
  return kSuccess;
}
int cuIpcOpenMemHandle_v2(uint64_t* address, Handle handle, unsigned flags) {
  ENTER(true);
  if (flags != 1 || std::memcmp(handle.magic, "STANDIN", 8)) return kInvalidValue;
  if (handle.process == getpid()) return kInvalidContext;
  std::lock_guard<std::mutex> held(lock);
  for (auto& [known, block] : blocks) {
    if (block.file < 0 && block.inode == handle.inode) return *address = known, ++block.opened, kSuccess;
  }
  std::string path = "/proc/" + std::to_string(handle.process) + "/fd/" + std::to_string(handle.file);
  int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return kMapFailed;
  struct stat facts;
  bool same = !fstat(file, &facts) && facts.st_ino == handle.inode;
  *address = same ? map(file, handle.size) : 0;
  close(file);
  if (!*address) return kMapFailed;
  blocks[*address] = {handle.size, -1, handle.inode, 1};
  return kSuccess;
}
int cuIpcCloseMemHandle(uint64_t address) {
  ENTER(true);
  std::lock_guard<std::mutex> held(lock);
  auto at = blocks.find(address);
  if (at == blocks.end() || at->second.file >= 0) return kInvalidValue;
  if (--at->second.opened) return kSuccess;
  munmap(reinterpret_cast<void*>(address), at->second.size);
  blocks.erase(at);
  return kSuccess;
}

int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {{kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
                                                   {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
                                                   {kMapFailed, "CUDA_ERROR_MAP_FAILED"},
                                                   {kUnknown, "CUDA_ERROR_UNKNOWN"}};
  auto found = names.find(code);
  if (found == names.end()) return kInvalidValue;
  *name = found->second;
  return kSuccess;
}

}  // extern "C"
