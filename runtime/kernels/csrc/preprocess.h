// The numeric definition of one preprocessed pixel: crop, resize, colour, scale and bias. The CPU's row loops
// and the CUDA kernel give the bits of preprocess_pixel(); positions and weights are exact in integers, so
// every device and the NumPy reference agree on them.
#pragma once

#include <cstdint>

#include "half.h"
#include "hd.h"
#include "work.h"

namespace trocar {

constexpr int64_t kLargestSide = int64_t{1} << 24;  // keeps all products of two sides far inside 64 bits
constexpr int kLevelBits = 7;  // bilinear samples count 1/128 of a level: 255 fits 16 bits
constexpr int kWeightBits = 15;
constexpr int kMostWeight = (1 << kWeightBits) - 1;

enum class Layout : int32_t { kGrey, kInterleaved, kNv12 };

// One axis of a plane: `out` positions over `length` pixels from `begin`. A sample spans `cell` pixels: 1, or
// 2 of NV12's chroma, whose samples sit in the middle of their pixels.
struct Axis {
  int64_t begin;
  int64_t length;
  int64_t out;
  int64_t cell;

  TROCAR_HD int32_t first() const { return static_cast<int32_t>(begin / cell); }
  TROCAR_HD int32_t last() const { return static_cast<int32_t>((begin + length - 1) / cell); }
};

// Bilinear: sample `index` and, with `weight` / 2^15, sample `next`.
struct Tap {
  int32_t index;
  int32_t next;
  int32_t weight;
};

// Centres coincide: position (x + 1/2) length / out of the crop. Beyond the outermost samples they repeat.
TROCAR_HD Tap bilinear_tap(const Axis& axis, int64_t x) {
  const int64_t unit = 2 * axis.out * axis.cell;
  const int64_t position = (2 * x + 1) * axis.length + 2 * axis.out * axis.begin - axis.out * axis.cell;
  const int32_t first = axis.first(), last = axis.last();
  if (position <= first * unit) return {first, first, 0};
  const int64_t index = position / unit;
  if (index >= last) return {last, last, 0};
  const int64_t weight = (((position - index * unit) << kWeightBits) + unit / 2) / unit;
  return {static_cast<int32_t>(index), static_cast<int32_t>(index) + 1,
          static_cast<int32_t>(weight < kMostWeight ? weight : kMostWeight)};
}

// a + (b - a) weight / 2^15, rounded half up; |b - a| < 2^15. Written as compilers know pmulhrsw.
TROCAR_HD int32_t blend(int32_t a, int32_t b, int32_t weight) {
  return a + ((((b - a) * weight >> (kWeightBits - 1)) + 1) >> 1);
}

// Area: the samples under an output's footprint, with their shares of it.
struct Cover {
  int32_t first;
  int32_t count;
  float head;
  float body;
  float tail;

  TROCAR_HD float weight(int32_t i) const { return i == 0 ? head : i == count - 1 ? tail : body; }
};

TROCAR_HD Cover area_cover(const Axis& axis, int64_t x) {
  const int64_t unit = axis.out * axis.cell;  // lengths in 1 / out of a pixel
  const int64_t low = axis.begin * axis.out + x * axis.length;
  const int64_t high = low + axis.length;
  const int64_t first = low / unit;
  const int64_t last = (high - 1) / unit;
  const float whole = static_cast<float>(axis.length);
  const int64_t head_end = (first + 1) * unit < high ? (first + 1) * unit : high;
  const int64_t tail_begin = last * unit > low ? last * unit : low;
  return {static_cast<int32_t>(first), static_cast<int32_t>(last - first + 1),
          static_cast<float>(head_end - low) / whole, static_cast<float>(unit) / whole,
          static_cast<float>(high - tail_begin) / whole};
}

// Limited range luma and chroma to R, G, B of 0 to 255. Coefficients: luma, red of V, green of U, of V, blue
// of U.
struct ColourMatrix {
  float luma, red_v, green_u, green_v, blue_u;
};

TROCAR_HD float within_levels(float value) {
  value = value > 0.0f ? value : 0.0f;
  return value < 255.0f ? value : 255.0f;
}

TROCAR_HD void rgb_of_yuv(const ColourMatrix& m, float y, float u, float v, float* r, float* g, float* b) {
  const float grey = (y - 16.0f) * m.luma;
  const float blueness = u - 128.0f, redness = v - 128.0f;
  *r = within_levels(grey + redness * m.red_v);
  *g = within_levels((grey + blueness * m.green_u) + redness * m.green_v);
  *b = within_levels(grey + blueness * m.blue_u);
}

// One plane of samples, `channels` of them interleaved.
struct Plane {
  const uint8_t* samples;
  int64_t row_stride;
  Axis rows, columns;
};

// A whole call. Channels are the source's, or R, G, B of NV12; `out_plane` says where each goes.
struct PreprocessTask {
  Layout layout;
  bool area;
  bool half;      // float16 out
  bool by_pixel;  // on the CPU: no row loops, what tests hold the fast path against
  Plane plane;    // grey, interleaved colour or luma
  Plane chroma;   // NV12 alone
  ColourMatrix matrix;
  void* out;
  int64_t out_rows, out_columns, out_plane_stride, out_row_stride;
  int32_t out_plane[3];
  float scale[3], bias[3];
};

// Does a checked task on the module's device: preprocess_cpu.cpp or preprocess_cuda.cu.
void run_preprocess(const PreprocessTask& task, const Work& work);

template <int kChannels>
TROCAR_HD void bilinear_levels(const Plane& plane, const Tap& row, const Tap& column, float* level) {
  const uint8_t* const above = plane.samples + row.index * plane.row_stride;
  const uint8_t* const below = plane.samples + row.next * plane.row_stride;
  for (int c = 0; c < kChannels; ++c) {
    const int64_t left = int64_t{column.index} * kChannels + c;
    const int64_t right = int64_t{column.next} * kChannels + c;
    const int32_t a = blend(above[left] << kLevelBits, below[left] << kLevelBits, row.weight);
    const int32_t b = blend(above[right] << kLevelBits, below[right] << kLevelBits, row.weight);
    level[c] = static_cast<float>(blend(a, b, column.weight)) * (1.0f / (1 << kLevelBits));
  }
}

// Columns first, from the top, then along the row: sums in float32 in this order.
template <int kChannels>
TROCAR_HD void area_levels(const Plane& plane, const Cover& rows, const Cover& columns, float* level) {
  for (int c = 0; c < kChannels; ++c) level[c] = 0.0f;
  for (int32_t j = 0; j < columns.count; ++j) {
    const uint8_t* const top =
        plane.samples + rows.first * plane.row_stride + (int64_t{columns.first} + j) * kChannels;
    const float share = columns.weight(j);
    for (int c = 0; c < kChannels; ++c) {
      float sum = 0.0f;
      for (int32_t i = 0; i < rows.count; ++i) {
        sum += rows.weight(i) * static_cast<float>(top[i * plane.row_stride + c]);
      }
      level[c] += share * sum;
    }
  }
}

// What an output row or column reads of a plane, by either way of resizing.
template <bool kArea>
struct Reach;
template <>
struct Reach<false> {
  using Type = Tap;
  static TROCAR_HD Tap of(const Axis& axis, int64_t x) { return bilinear_tap(axis, x); }
  template <int kChannels>
  static TROCAR_HD void levels(const Plane& plane, const Tap& row, const Tap& column, float* level) {
    bilinear_levels<kChannels>(plane, row, column, level);
  }
};
template <>
struct Reach<true> {
  using Type = Cover;
  static TROCAR_HD Cover of(const Axis& axis, int64_t x) { return area_cover(axis, x); }
  template <int kChannels>
  static TROCAR_HD void levels(const Plane& plane, const Cover& row, const Cover& column, float* level) {
    area_levels<kChannels>(plane, row, column, level);
  }
};

// Where an output pixel's samples lie: in the plane and in NV12's chroma.
template <bool kArea>
struct PixelReach {
  typename Reach<kArea>::Type row, column, chroma_row, chroma_column;
};

TROCAR_HD float scaled(float level, float scale, float bias) { return level * scale + bias; }

TROCAR_HD void write(void* out, int64_t index, float value) { static_cast<float*>(out)[index] = value; }
TROCAR_HD void write_half(void* out, int64_t index, float value) {
  static_cast<Half*>(out)[index] = float_to_half(value);
}

template <Layout kLayout, bool kArea>
TROCAR_HD void preprocess_pixel(const PreprocessTask& task, const PixelReach<kArea>& reach, int64_t y,
                                int64_t x) {
  constexpr int kChannels = kLayout == Layout::kInterleaved ? 3 : 1;
  constexpr int kPlanes = kLayout == Layout::kGrey ? 1 : 3;
  float level[3];
  Reach<kArea>::template levels<kChannels>(task.plane, reach.row, reach.column, level);
  if (kLayout == Layout::kNv12) {
    float uv[2];
    Reach<kArea>::template levels<2>(task.chroma, reach.chroma_row, reach.chroma_column, uv);
    rgb_of_yuv(task.matrix, level[0], uv[0], uv[1], &level[0], &level[1], &level[2]);
  }
  for (int c = 0; c < kPlanes; ++c) {
    const float value = scaled(level[c], task.scale[c], task.bias[c]);
    const int64_t index = task.out_plane[c] * task.out_plane_stride + y * task.out_row_stride + x;
    if (task.half) {
      write_half(task.out, index, value);
    } else {
      write(task.out, index, value);
    }
  }
}

}  // namespace trocar
