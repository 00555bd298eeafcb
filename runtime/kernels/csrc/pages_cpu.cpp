// Pages that another process can take away: a shared-memory object that its owner truncates, or that the file
// system has no room to back, raises SIGBUS at the next touch and would end this process. Under this guard
// the page becomes zeros of our own, and whoever used it asks afterwards whether that happened.
#include <nanobind/nanobind.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <stdexcept>

namespace nb = nanobind;

namespace trocar {
namespace {

constexpr int kRanges = 1024;

struct Range {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> torn{false};
};

// The handler reads this with no lock, at any moment.
std::array<Range, kRanges> ranges;
std::mutex taking;
struct sigaction previous;
uintptr_t page_bytes = 4096;

void on_sigbus(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Range& range : ranges) {
    const uintptr_t begin = range.begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= range.end.load(std::memory_order_acquire)) continue;
    void* page = reinterpret_cast<void*>(address & ~(page_bytes - 1));
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap(page, page_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) break;
    range.torn.store(true, std::memory_order_release);
    return;
  }
  // Not ours: the fault comes again, to whom it belonged before.
  sigaction(SIGBUS, &previous, nullptr);
}

void install() {
  page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, &previous) != 0) throw std::runtime_error("SIGBUS cannot be handled");
}

int guard_pages(uintptr_t address, uintptr_t size_bytes) {
  static std::once_flag once;
  std::call_once(once, install);
  const std::lock_guard<std::mutex> lock(taking);
  for (int slot = 0; slot < kRanges; ++slot) {
    Range& range = ranges[slot];
    if (range.begin.load() != 0) continue;
    range.torn.store(false);
    range.end.store(address + size_bytes);
    range.begin.store(address, std::memory_order_release);
    return slot;
  }
  throw std::runtime_error("no place is left for more guarded memory");
}

Range& at(int slot) {
  if (slot < 0 || slot >= kRanges) throw nb::index_error("no such guard");
  return ranges[slot];
}

void release_pages(int slot) {
  Range& range = at(slot);
  const std::lock_guard<std::mutex> lock(taking);
  range.begin.store(0, std::memory_order_release);
}

bool pages_torn(int slot) { return at(slot).torn.load(std::memory_order_acquire); }

// Holds the interpreter's lock: the look takes less than handing it over.
bool pages_whole(int slot, int descriptor, uint64_t size_bytes) {
  struct stat facts = {};
  return !pages_torn(slot) && fstat(descriptor, &facts) == 0 && facts.st_size >= 0 &&
         static_cast<uint64_t>(facts.st_size) >= size_bytes;
}

}  // namespace

void bind_pages(nb::module_& module) {
  using namespace nb::literals;
  module.def("guard_pages", &guard_pages, "address"_a, "size_bytes"_a,
             "Survive the loss of mapped pages; returns the guard's number.");
  module.def("release_pages", &release_pages, "slot"_a, "End a guard; before its pages are unmapped.");
  module.def("pages_torn", &pages_torn, "slot"_a, "Whether pages under a guard were lost since it began.");
  module.def("pages_whole", &pages_whole, "slot"_a, "descriptor"_a, "size_bytes"_a,
             "Whether none was lost, and the file behind them still has that many bytes.");
}

}  // namespace trocar
