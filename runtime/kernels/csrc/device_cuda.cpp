// Streams, events, buffers and copies: what a caller needs to use the CUDA kernels with no other library.
#include <cuda_runtime_api.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <vector>

#include "arrays.h"
#include "cuda_launch.h"

namespace nb = nanobind;

namespace trocar {

extern const bool kModuleOnGpu = true;

namespace {

class Stream {
 public:
  explicit Stream(int device) : device_(device) {
    OnDevice on(device);
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "CUDA stream");
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int device() const { return device_; }
  cudaStream_t native() const { return stream_; }
  uintptr_t handle() const { return reinterpret_cast<uintptr_t>(stream_); }
  void synchronize() const {
    nb::gil_scoped_release release;
    check_cuda(cudaStreamSynchronize(stream_), "CUDA stream");
  }

 private:
  int device_;
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(int device) {
    OnDevice on(device);
    check_cuda(cudaEventCreate(&event_), "CUDA event");
  }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(uintptr_t stream) const {
    check_cuda(cudaEventRecord(event_, reinterpret_cast<cudaStream_t>(stream)), "CUDA event");
  }
  // Milliseconds from the earlier event; waits for this one.
  float since(const Event& earlier) const {
    float elapsed = 0.0f;
    nb::gil_scoped_release release;
    check_cuda(cudaEventSynchronize(event_), "CUDA event");
    check_cuda(cudaEventElapsedTime(&elapsed, earlier.event_, event_), "CUDA event");
    return elapsed;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Work recorded once and launched as one: what lies between its kernels is then no launch from Python.
class Graph {
 public:
  // Records what is put into the stream until finish().
  explicit Graph(const Stream& stream) : stream_(stream.native()) {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "CUDA graph");
  }
  ~Graph() {
    if (!executable_) finish_or_drop();
    if (executable_) cudaGraphExecDestroy(executable_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void finish() { check_cuda(executable_ ? cudaErrorIllegalState : finish_or_drop(), "CUDA graph"); }
  void launch() const { check_cuda(cudaGraphLaunch(executable_, stream_), "CUDA graph"); }

 private:
  cudaError_t finish_or_drop() {
    cudaGraph_t graph = nullptr;
    cudaError_t status = cudaStreamEndCapture(stream_, &graph);
    if (status == cudaSuccess) status = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    return status;
  }

  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

dl::dtype parse_dtype(const std::string& name) {
  const dl::dtype known[] = {element_type<uint8_t>(), element_type<int16_t>(),  element_type<int32_t>(),
                             element_type<int64_t>(), element_type<uint32_t>(), element_type<uint64_t>(),
                             element_type<Half>(),    element_type<float>(),    element_type<double>()};
  for (const dl::dtype type : known) {
    if (name_of(type) == name) return type;
  }
  throw InvalidInput(
      "dtype: expected uint8, int16, int32, int64, uint32, uint64, float16, float32 or float64, got " + name);
}

nb::ndarray<nb::array_api> empty(const std::vector<int64_t>& shape, const std::string& dtype, int device) {
  const dl::dtype type = parse_dtype(dtype);
  std::vector<size_t> extents;
  size_t bytes = type.bits / 8;
  for (const int64_t extent : shape) {
    if (extent < 0 || extent > kMaxExtent) {
      refuse("shape", "extents from 0 to " + std::to_string(kMaxExtent), std::to_string(extent));
    }
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(extent), &bytes)) {
      refuse("shape", "fewer elements", tuple_of(shape.data(), static_cast<int>(shape.size())));
    }
    extents.push_back(static_cast<size_t>(extent));
  }
  OnDevice on(device);
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, bytes ? bytes : 1), "CUDA memory");
  nb::capsule owner(memory, [](void* p) noexcept { cudaFree(p); });
  return nb::ndarray<nb::array_api>(memory, extents.size(), extents.data(), owner, nullptr, type,
                                    nb::device::cuda::value, device);
}

// Between any two memories; both dense and of one shape.
void copy(nb::handle src_object, nb::handle out_object, uintptr_t stream) {
  nb::ndarray<nb::ro> src;
  nb::ndarray<> out;
  if (!nb::try_cast(src_object, src, false)) {
    refuse("src", "an array that DLPack can share", nb::type_name(src_object.type()).c_str());
  }
  if (!nb::try_cast(out_object, out, false)) {
    refuse("out", "a writable array that DLPack can share", nb::type_name(out_object.type()).c_str());
  }
  const View from("src", src, false), to("out", nb::ndarray<nb::ro>(out), true);
  if (src.dtype() != out.dtype()) refuse("out", name_of(src.dtype()), name_of(out.dtype()));
  if (src.ndim() != out.ndim() ||
      !std::equal(src.shape_ptr(), src.shape_ptr() + src.ndim(), out.shape_ptr())) {
    refuse("out", "shape " + from.shape_text(), to.shape_text());
  }
  from.require_dense(0);
  to.require_dense(0);
  if (!from.size()) return;
  nb::gil_scoped_release release;
  OnDevice on(on_gpu(from.device_type()) ? from.device_id() : to.device_id());
  check_cuda(cudaMemcpyAsync(to.data<void>(), from.data<void>(), src.nbytes(), cudaMemcpyDefault,
                             reinterpret_cast<cudaStream_t>(stream)),
             "CUDA copy");
}

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return 0;
  check_cuda(status, "CUDA devices");
  return count;
}

nb::typed<nb::dict, nb::str, nb::any> properties(int device) {
  cudaDeviceProp found;
  check_cuda(cudaGetDeviceProperties(&found, device), "CUDA device");
  nb::dict result;
  result["name"] = found.name;
  result["compute_capability"] = std::to_string(found.major) + "." + std::to_string(found.minor);
  result["multiprocessors"] = found.multiProcessorCount;
  result["memory_bytes"] = found.totalGlobalMem;
  result["l2_bytes"] = found.l2CacheSize;
  return result;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

nb::typed<nb::dict, nb::str, nb::any> build() {
  int driver = 0;
  check_cuda(cudaDriverGetVersion(&driver), "CUDA driver");
  nb::dict result;
  result["architectures"] = TROCAR_CUDA_ARCHITECTURES;
  result["nvcc"] = TROCAR_NVCC_VERSION;
  result["runtime"] = version_text(CUDART_VERSION);
  result["driver"] = driver ? nb::object(nb::str(version_text(driver).c_str())) : nb::none();
  return result;
}

}  // namespace

void bind_device(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Stream>(module, "Stream", "A CUDA stream that does not wait for the default one.")
      .def(nb::init<int>(), "device"_a)
      .def_prop_ro("handle", &Stream::handle)
      .def_prop_ro("device", &Stream::device)
      .def("synchronize", &Stream::synchronize, "Wait for the work in it.");
  nb::class_<Event>(module, "Event", "A point in a stream, with its time.")
      .def(nb::init<int>(), "device"_a)
      .def("record", &Event::record, "stream"_a, "Put the event into a stream.")
      .def("since", &Event::since, "earlier"_a, "Milliseconds from an earlier event; waits for this one.");
  nb::class_<Graph>(module, "Graph", "Work recorded in a stream, to launch as one.")
      .def(nb::init<const Stream&>(), "stream"_a, nb::keep_alive<1, 2>())
      .def("finish", &Graph::finish, "End the recording.")
      .def("launch", &Graph::launch, "Put the work into the stream.");
  module.def("empty", &empty, "shape"_a, "dtype"_a, "device"_a,
             "A new array on a CUDA device, uninitialised.");
  module.def("copy", &copy, "src"_a, "out"_a, "stream"_a,
             "Copy between the CPU and CUDA devices, in a stream.");
  module.def("device_count", &device_count, "CUDA devices that the driver has.");
  module.def("properties", &properties, "device"_a, "A device's name and size.");
  module.def("build", &build, "What the module was built with, and the driver's version, if any.");
}

}  // namespace trocar
