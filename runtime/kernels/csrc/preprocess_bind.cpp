// The arguments of preprocess, checked alike for both devices.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <array>
#include <optional>
#include <string>

#include "arrays.h"
#include "preprocess.h"

namespace nb = nanobind;

namespace trocar {
namespace {

using Three = std::array<float, 3>;

// Rows and columns of the frame that are read.
struct Crop {
  int64_t top, left, height, width;
};

Layout layout_of(const std::string& pixel_format) {
  if (pixel_format == "grey") return Layout::kGrey;
  if (pixel_format == "nv12") return Layout::kNv12;
  if (pixel_format == "rgb" || pixel_format == "bgr") return Layout::kInterleaved;
  refuse("pixel_format", "bgr, rgb, nv12 or grey", pixel_format);
}

void require_side(const std::string& name, int64_t side) {
  if (side > kLargestSide) {
    refuse(name, "sides of at most " + std::to_string(kLargestSide), std::to_string(side));
  }
}

// Height of the frame, from an array that may hold NV12's chroma below its luma.
int64_t frame_rows(const View& src, Layout layout, bool chroma_apart) {
  if (layout != Layout::kNv12 || chroma_apart) return src.shape(0);
  if (src.shape(0) % 3) refuse("src", "NV12 of height * 3 / 2 rows", "shape " + src.shape_text());
  return src.shape(0) / 3 * 2;
}

void require_frame(const View& src, Layout layout) {
  src.require_dtype<uint8_t>();
  if (layout == Layout::kInterleaved) {
    src.require_shape({-1, -1, 3}, "height x width x 3");
    src.require_dense(1);
  } else {
    src.require_shape({-1, -1}, layout == Layout::kGrey ? "height x width" : "NV12 rows x width");
    src.require_dense(1);
  }
}

void require_crop(const Crop& crop, int64_t rows, int64_t columns) {
  const bool inside = crop.top >= 0 && crop.left >= 0 && crop.height >= 1 && crop.width >= 1 &&
                      crop.height <= rows - crop.top && crop.width <= columns - crop.left;
  if (inside) return;
  const int64_t got[] = {crop.top, crop.left, crop.height, crop.width};
  refuse("crop", "at least one pixel of a frame of " + std::to_string(rows) + " x " + std::to_string(columns),
         tuple_of(got, 4) + " (top, left, height, width)");
}

Plane plane_of(const uint8_t* samples, int64_t row_stride, const Crop& crop, const View& out, int64_t cell) {
  return {samples,
          row_stride,
          {crop.top, crop.height, out.shape(1), cell},
          {crop.left, crop.width, out.shape(2), cell}};
}

void preprocess(nb::handle src_array, nb::handle chroma_array, nb::handle out_array,
                const std::string& pixel_format, const std::optional<std::array<int64_t, 4>>& crop_or_none,
                bool area, bool reverse_channels, const Three& scale, const Three& bias,
                const std::array<float, 5>& matrix, bool by_pixel, uintptr_t stream) {
  const Layout layout = layout_of(pixel_format);
  Arrays arrays(stream);
  const View src = arrays.input("src", src_array);
  const bool chroma_apart = !chroma_array.is_none();
  const View chroma = arrays.input("chroma", chroma_apart ? chroma_array : src_array);
  const View out = arrays.output("out", out_array);
  require_frame(src, layout);
  const int64_t rows = frame_rows(src, layout, chroma_apart), columns = src.shape(1);
  require_side("src", rows);
  require_side("src", columns);
  if (layout == Layout::kNv12) {
    if (rows % 2 || columns % 2) {
      refuse("src", "NV12 of even height and width", std::to_string(rows) + " x " + std::to_string(columns));
    }
    if (chroma_apart) {
      chroma.require_dtype<uint8_t>();
      chroma.require_shape({rows / 2, columns}, "height / 2 x width");
      chroma.require_dense(1);
    }
  }

  out.require_dtype<float, Half>();
  out.require_shape({layout == Layout::kGrey ? 1 : 3, -1, -1}, "channels x height x width");
  out.require_dense(2);
  require_side("out", out.shape(1));
  require_side("out", out.shape(2));
  Arrays::require_apart(out, src);
  Arrays::require_apart(out, chroma);

  const std::array<int64_t, 4> box = crop_or_none.value_or(std::array<int64_t, 4>{0, 0, rows, columns});
  const Crop crop{box[0], box[1], box[2], box[3]};
  require_crop(crop, rows, columns);

  PreprocessTask task{};
  task.layout = layout;
  task.area = area;
  task.half = out.is<Half>();
  task.by_pixel = by_pixel;
  task.plane = plane_of(src.data<uint8_t>(), src.stride(0), crop, out, 1);
  if (layout == Layout::kNv12) {
    const uint8_t* const below = src.data<uint8_t>() + rows * src.stride(0);
    task.chroma = chroma_apart ? plane_of(chroma.data<uint8_t>(), chroma.stride(0), crop, out, 2)
                               : plane_of(below, src.stride(0), crop, out, 2);
  }
  task.matrix = {matrix[0], matrix[1], matrix[2], matrix[3], matrix[4]};
  task.out = out.data<void>();
  task.out_rows = out.shape(1);
  task.out_columns = out.shape(2);
  task.out_plane_stride = out.stride(0);
  task.out_row_stride = out.stride(1);
  for (int c = 0; c < 3; ++c) {
    const int plane = layout == Layout::kGrey ? 0 : reverse_channels ? 2 - c : c;
    task.out_plane[c] = plane;
    task.scale[c] = scale[plane];
    task.bias[c] = bias[plane];
  }
  nb::gil_scoped_release release;
  run_preprocess(task, {1, arrays.device_id(), stream});
}

}  // namespace

void bind_preprocess(nb::module_& module) {
  using namespace nb::literals;
  module.def("preprocess", &preprocess, "src"_a, "chroma"_a.none(), "out"_a, "pixel_format"_a,
             "crop"_a.none(), "area"_a, "reverse_channels"_a, "scale"_a, "bias"_a, "matrix"_a, "by_pixel"_a,
             "stream"_a, "Crop, resize, colour, scale and bias of one frame.");
}

}  // namespace trocar
