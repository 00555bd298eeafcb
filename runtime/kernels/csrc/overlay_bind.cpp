// What overlay takes, checked alike for the CPU's arrays and a GPU's.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>

#include "arrays.h"
#include "image.h"
#include "overlay.h"

namespace nb = nanobind;

namespace trocar {
namespace {

using Table = nb::ndarray<const uint16_t, nb::shape<kPaletteSize, 4>, nb::c_contig, nb::device::cpu>;

void overlay(nb::handle frame_object, nb::handle labels_object, const Table& table, int64_t contour,
             uintptr_t stream) {
  Arrays arrays(stream);
  const View frame = arrays.output("frame", frame_object);
  frame.require_dtype<uint8_t>();
  frame.require_shape({-1, -1, 3}, "rows x columns x 3 channels");
  frame.require_dense(1);
  require_pixels(frame, frame.shape(0), frame.shape(1));
  const View labels = arrays.input("labels", labels_object);
  labels.require_dtype<uint8_t>();
  labels.require_shape({frame.shape(0), frame.shape(1)}, "rows x columns, as frame");
  labels.require_dense(1);
  arrays.require_apart(frame, labels);
  if (contour < 0 || contour > kThickestContour) {
    refuse("contour", "a thickness of 0 to " + std::to_string(kThickestContour) + " pixels",
           std::to_string(contour));
  }
  Palette palette;
  static_assert(sizeof palette == kPaletteSize * 4 * sizeof(uint16_t));
  std::memcpy(&palette, table.data(), sizeof palette);
  if (!frame.size()) return;
  const Overlay call = {frame.data<uint8_t>(),
                        frame.stride(0),
                        labels.data<const uint8_t>(),
                        labels.stride(0),
                        static_cast<int32_t>(frame.shape(0)),
                        static_cast<int32_t>(frame.shape(1)),
                        static_cast<int32_t>(contour)};
  nb::gil_scoped_release release;
  run_overlay(call, palette, {1, arrays.device_id(), stream});
}

}  // namespace

void bind_overlay(nb::module_& module) {
  module.def("overlay", &overlay, nb::arg("frame"), nb::arg("labels"), nb::arg("palette").noconvert(),
             nb::arg("contour"), nb::arg("stream"), "Paint classes over a frame in place.");
}

}  // namespace trocar
