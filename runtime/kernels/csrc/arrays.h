// The caller's arrays, of any library that speaks DLPack, checked by name.
//
//   Arrays arrays(stream);
//   const View src = arrays.input("src", src_object);
//   const View out = arrays.output("out", out_object);
//   src.require_dtype<uint8_t>();
//   src.require_shape({-1, -1, 3}, "height x width x 3");
//   src.require_dense(1);                 // pixels of a row are adjacent; rows may be padded
//   arrays.require_apart(out, src);
//
// Nothing is copied and nothing is converted. A refusal throws InvalidInput, whose message names the
// argument, what was expected and what came. Views hold the caller's arrays: keep them in a scope that
// has the GIL, and let go of it only around the work.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include "errors.h"
#include "half.h"

namespace trocar {

// Which kind of memory this module's kernels work on: module.cpp and module_cuda.cpp say.
extern const bool kModuleOnGpu;

constexpr int kMaxDimensions = 8;
constexpr int64_t kMaxExtent = std::numeric_limits<int32_t>::max();

namespace dl = nanobind::dlpack;

inline bool on_gpu(int device_type) {
  return device_type == nanobind::device::cuda::value || device_type == nanobind::device::cuda_managed::value;
}

inline bool on_cpu(int device_type) {
  return device_type == nanobind::device::cpu::value || device_type == nanobind::device::cuda_host::value;
}

template <typename T>
inline dl::dtype element_type() {
  return nanobind::dtype<T>();
}
template <>
inline dl::dtype element_type<Half>() {
  return {static_cast<uint8_t>(dl::dtype_code::Float), 16, 1};
}

inline std::string name_of(dl::dtype type) {
  const std::string bits = std::to_string(type.bits);
  const std::string lanes = type.lanes == 1 ? "" : " x " + std::to_string(type.lanes);
  switch (static_cast<dl::dtype_code>(type.code)) {
    case dl::dtype_code::Int:
      return "int" + bits + lanes;
    case dl::dtype_code::UInt:
      return "uint" + bits + lanes;
    case dl::dtype_code::Float:
      return "float" + bits + lanes;
    case dl::dtype_code::Bfloat:
      return "bfloat" + bits + lanes;
    case dl::dtype_code::Complex:
      return "complex" + bits + lanes;
    case dl::dtype_code::Bool:
      return "bool";
    default:
      return "DLPack type " + std::to_string(type.code) + " of " + bits + " bits";
  }
}

inline std::string name_of_device(int type, int id) {
  if (on_cpu(type)) return "the CPU";
  if (on_gpu(type)) return "CUDA device " + std::to_string(id);
  return "DLPack device type " + std::to_string(type);
}

// As Python writes it; with `wildcards`, -1 stands for any value.
inline std::string tuple_of(const int64_t* values, int count, bool wildcards = false) {
  std::string text = "(";
  for (int i = 0; i < count; ++i) {
    if (i) text += ", ";
    text += wildcards && values[i] == -1 ? std::string("any") : std::to_string(values[i]);
  }
  return text + (count == 1 ? ",)" : ")");
}

[[noreturn]] inline void refuse(const std::string& name, const std::string& expected,
                                const std::string& came) {
  throw InvalidInput(name + ": expected " + expected + ", got " + came);
}

// One array of a call. Strides count elements.
class View {
 public:
  View(std::string name, nanobind::ndarray<nanobind::ro> array, bool output)
      : name_(std::move(name)), array_(std::move(array)) {
    if (array_.ndim() > kMaxDimensions) {
      refuse(name_, "at most " + std::to_string(kMaxDimensions) + " dimensions",
             std::to_string(array_.ndim()));
    }
    for (int axis = 0; axis < ndim(); ++axis) {
      if (shape(axis) > kMaxExtent) {
        refuse(name_, "extents of at most " + std::to_string(kMaxExtent), "shape " + shape_text());
      }
    }
    require_strides(output);
  }

  const std::string& name() const { return name_; }
  int ndim() const { return static_cast<int>(array_.ndim()); }
  int64_t shape(int axis) const { return array_.shape_ptr()[axis]; }
  int64_t stride(int axis) const { return array_.stride_ptr()[axis]; }
  int64_t size() const { return static_cast<int64_t>(array_.size()); }
  int device_type() const { return array_.device_type(); }
  int device_id() const { return on_gpu(device_type()) ? array_.device_id() : 0; }

  template <typename T>
  bool is() const {
    return array_.dtype() == element_type<T>();
  }

  // Null where the array has no elements.
  template <typename T>
  T* data() const {
    return size() ? static_cast<T*>(const_cast<void*>(static_cast<const void*>(array_.data()))) : nullptr;
  }

  std::string shape_text() const { return tuple_of(array_.shape_ptr(), ndim()); }

  // One of the types named.
  template <typename... T>
  void require_dtype() const {
    if ((is<T>() || ...)) return;
    std::string expected;
    ((expected += (expected.empty() ? "" : " or ") + name_of(element_type<T>())), ...);
    refuse(name_, expected, name_of(array_.dtype()));
  }

  // -1 stands for any extent; `meaning` says what the axes are.
  void require_shape(std::initializer_list<int64_t> expected, const char* meaning) const {
    bool same = static_cast<int>(expected.size()) == ndim();
    for (int axis = 0; same && axis < ndim(); ++axis) {
      const int64_t wanted = expected.begin()[axis];
      same = wanted == -1 || wanted == shape(axis);
    }
    if (same) return;
    refuse(name_,
           std::string(meaning) + " of shape " +
               tuple_of(expected.begin(), static_cast<int>(expected.size()), true),
           "shape " + shape_text());
  }

  // The axes from `first` on lie in memory like a C array; the ones before may be strided.
  void require_dense(int first) const {
    int64_t stride_wanted = 1;
    for (int axis = ndim() - 1; axis >= first; --axis) {
      if (size() && shape(axis) > 1 && stride(axis) != stride_wanted) {
        refuse(name_, "dense axes from axis " + std::to_string(first) + " on",
               "strides " + tuple_of(array_.stride_ptr(), ndim()) + " of shape " + shape_text());
      }
      stride_wanted *= shape(axis);
    }
  }

  // First byte and one past the last.
  uintptr_t begin() const { return reinterpret_cast<uintptr_t>(data<char>()); }
  uintptr_t end() const { return begin() + static_cast<uintptr_t>(span()) * array_.itemsize(); }

 private:
  // Elements from the first to the last, both counted; 0 of an empty array.
  int64_t span() const {
    if (!size()) return 0;
    int64_t last = 0;
    for (int axis = 0; axis < ndim(); ++axis) last += (shape(axis) - 1) * stride(axis);
    return last + 1;
  }

  void require_strides(bool output) const {
    if (!size()) return;
    const std::string came = "strides " + tuple_of(array_.stride_ptr(), ndim()) + " of shape " + shape_text();
    int64_t inner = 1;  // elements that the axes after this one reach over
    for (int axis = ndim() - 1; axis >= 0; --axis) {
      if (shape(axis) == 1) continue;
      if (stride(axis) < 0) refuse(name_, "strides of at least 0", came);
      int64_t reach;
      if (__builtin_mul_overflow(shape(axis) - 1, stride(axis), &reach) ||
          __builtin_add_overflow(inner, reach, &reach) || reach > std::numeric_limits<int64_t>::max() / 32) {
        refuse(name_, "strides that stay inside memory", came);
      }
      if (output && stride(axis) < inner) refuse(name_, "elements apart, the last axis innermost", came);
      inner = reach;
    }
  }

  std::string name_;
  nanobind::ndarray<nanobind::ro> array_;
};

// The arrays of one call: all on one device, of the kind that this module serves.
class Arrays {
 public:
  // `stream` is the caller's CUDA stream; the CPU has none and takes 0.
  explicit Arrays(uintptr_t stream) {
    if (kModuleOnGpu && stream <= 2) {
      refuse("stream", "a CUDA stream of the caller's",
             "the default stream (" + std::to_string(stream) + ")");
    }
    if (!kModuleOnGpu && stream) refuse("stream", "none for arrays on the CPU", std::to_string(stream));
  }

  View input(const char* name, nanobind::handle object) { return view(name, object, false); }
  View output(const char* name, nanobind::handle object) { return view(name, object, true); }

  // The CUDA device that all arrays lie on; 0 on the CPU.
  int device_id() const { return device_id_; }

  // Their memory does not touch, from first byte to last.
  static void require_apart(const View& out, const View& other) {
    if (out.begin() < other.end() && other.begin() < out.end()) {
      refuse(out.name(), "memory apart from " + other.name(), "arrays that overlap");
    }
  }

 private:
  View view(const char* name, nanobind::handle object, bool output) {
    nanobind::ndarray<nanobind::ro> array;
    if (!nanobind::try_cast(object, array, false)) {
      refuse(name, "an array that DLPack can share", nanobind::type_name(object.type()).c_str());
    }
    nanobind::ndarray<> writable;
    if (output && !nanobind::try_cast(object, writable, false)) {
      refuse(name, "a writable array", "a read-only one");
    }
    View checked(name, std::move(array), output);
    require_device(checked);
    return checked;
  }

  void require_device(const View& array) {
    const int type = array.device_type();
    if (!(kModuleOnGpu ? on_gpu(type) : on_cpu(type))) {
      refuse(array.name(), kModuleOnGpu ? "an array on a CUDA device" : "an array on the CPU",
             "one on " + name_of_device(type, array.device_id()));
    }
    if (device_known_ && array.device_id() != device_id_) {
      refuse(array.name(), "an array on " + name_of_device(type, device_id_) + ", as the others",
             "one on " + name_of_device(type, array.device_id()));
    }
    device_id_ = array.device_id();
    device_known_ = true;
  }

  int device_id_ = 0;
  bool device_known_ = false;
};

}  // namespace trocar
