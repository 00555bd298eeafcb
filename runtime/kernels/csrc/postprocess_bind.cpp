// What postprocess takes, checked alike for the CPU's arrays and a GPU's.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>
#include <vector>

#include "arrays.h"
#include "image.h"
#include "postprocess.h"

namespace nb = nanobind;

namespace trocar {
namespace {

constexpr int64_t kLabels = 256;
using Crop = std::tuple<int64_t, int64_t, int64_t, int64_t>;

void take_logits(Postprocess& call, const View& logits) {
  logits.require_dtype<float, Half>();
  logits.require_shape({-1, -1, -1}, "channels x rows x columns");
  logits.require_dense(2);
  const int64_t most = call.sigmoid ? kLabels - 1 : kLabels;
  if (logits.shape(0) < 1 || logits.shape(0) > most) {
    refuse("logits", "1 to " + std::to_string(most) + " channels", "shape " + logits.shape_text());
  }
  require_pixels(logits, logits.shape(1), logits.shape(2));
  call.logits = logits.data<void>();
  call.half_logits = logits.is<Half>();
  call.channel_stride = logits.stride(0);
  call.row_stride = logits.stride(1);
  call.channels = static_cast<int32_t>(logits.shape(0));
  call.rows = static_cast<int32_t>(logits.shape(1));
  call.columns = static_cast<int32_t>(logits.shape(2));
}

void take_labels(Postprocess& call, const View& labels) {
  labels.require_dtype<uint8_t>();
  labels.require_shape({-1, -1}, "rows x columns");
  labels.require_dense(1);
  require_pixels(labels, labels.shape(0), labels.shape(1));
  call.labels = labels.data<uint8_t>();
  call.label_stride = labels.stride(0);
  call.height = static_cast<int32_t>(labels.shape(0));
  call.width = static_cast<int32_t>(labels.shape(1));
}

void take_confidence(Postprocess& call, const View& confidence) {
  confidence.require_dtype<uint8_t, Half, float>();
  confidence.require_shape({call.height, call.width}, "rows x columns, as labels");
  confidence.require_dense(1);
  call.confidence = confidence.data<void>();
  call.confidence_type = confidence.is<uint8_t>() ? ConfidenceType::kByte
                         : confidence.is<Half>()  ? ConfidenceType::kHalf
                                                  : ConfidenceType::kFloat;
  call.confidence_stride = confidence.stride(0);
}

int32_t* take_table(const View& table, std::initializer_list<int64_t> shape, const char* meaning) {
  table.require_dtype<int32_t>();
  table.require_shape(shape, meaning);
  table.require_dense(0);
  return table.data<int32_t>();
}

// Inside the frame, and with network pixels to show unless it is empty.
void take_view(Postprocess& call, const std::optional<Crop>& crop) {
  const auto [top, left, height, width] = crop.value_or(Crop{0, 0, call.height, call.width});
  const bool inside = top >= 0 && left >= 0 && height >= 0 && width >= 0 && top <= call.height - height &&
                      left <= call.width - width;
  const int64_t came[] = {top, left, height, width};
  const int64_t frame[] = {call.height, call.width};
  if (!inside) {
    refuse("crop", "top, left, height, width inside the frame of " + tuple_of(frame, 2), tuple_of(came, 4));
  }
  call.view = {static_cast<int32_t>(top), static_cast<int32_t>(left), static_cast<int32_t>(height),
               static_cast<int32_t>(width)};
  const bool shown = height > 0 && width > 0;
  if (shown && (call.rows == 0 || call.columns == 0)) {
    const int64_t network[] = {call.channels, call.rows, call.columns};
    refuse("logits", "at least one row and column to show", "shape " + tuple_of(network, 3));
  }
}

void require_finite(int32_t faults) {
  if (faults == 0) return;
  throw InvalidInput("logits: expected finite values, got NaN or infinite ones in " + std::to_string(faults) +
                     " network pixels");
}

void postprocess(nb::handle logits_object, nb::handle labels_object, nb::handle confidence_object,
                 nb::handle areas_object, nb::handle boxes_object, nb::handle faults_object, bool sigmoid,
                 double threshold, const std::optional<Crop>& crop, uintptr_t stream) {
  Postprocess call{};
  call.sigmoid = sigmoid;
  call.threshold = static_cast<float>(threshold);
  if (sigmoid && !(call.threshold > 0.0f && call.threshold <= 1.0f)) {
    refuse("threshold", "a probability above 0, at most 1", std::to_string(threshold));
  }
  Arrays arrays(stream);
  const View logits = arrays.input("logits", logits_object);
  take_logits(call, logits);
  std::vector<View> outputs;
  outputs.push_back(arrays.output("labels", labels_object));
  take_labels(call, outputs.back());
  if (!confidence_object.is_none()) {
    outputs.push_back(arrays.output("confidence", confidence_object));
    take_confidence(call, outputs.back());
  }
  if (!areas_object.is_none()) {
    outputs.push_back(arrays.output("areas", areas_object));
    call.areas = take_table(outputs.back(), {call.classes()}, "one a class");
  }
  if (!boxes_object.is_none()) {
    outputs.push_back(arrays.output("boxes", boxes_object));
    call.boxes = take_table(outputs.back(), {call.classes(), 4}, "top, left, bottom, right a class");
  }
  int32_t faults_here = 0;
  call.faults = &faults_here;
  if (!faults_object.is_none()) {
    outputs.push_back(arrays.output("faults", faults_object));
    call.faults = take_table(outputs.back(), {1}, "one count");
  } else if (kModuleOnGpu) {
    refuse("faults", "an int32 array of one element on a GPU, whose answer comes after the call", "none");
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    arrays.require_apart(outputs[i], logits);
    for (size_t j = 0; j < i; ++j) arrays.require_apart(outputs[i], outputs[j]);
  }
  take_view(call, crop);
  {
    nb::gil_scoped_release release;
    run_postprocess(call, {1, arrays.device_id(), stream});
  }
  require_finite(faults_here);
}

}  // namespace

void bind_postprocess(nb::module_& module) {
  module.def("postprocess", &postprocess, nb::arg("logits"), nb::arg("labels"), nb::arg("confidence").none(),
             nb::arg("areas").none(), nb::arg("boxes").none(), nb::arg("faults").none(), nb::arg("sigmoid"),
             nb::arg("threshold"), nb::arg("crop").none(), nb::arg("stream"),
             "Label map, confidence, areas and boxes of a frame from a network's logits.");
}

}  // namespace trocar
