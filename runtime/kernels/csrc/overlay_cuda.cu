// Classes over a frame on a GPU: a thread a pixel. For contours a block reads its labels and a halo once and
// finds least and most along columns, then along rows.
#include "cuda_launch.h"
#include "overlay.h"

namespace trocar {
namespace {

constexpr int kWidth = 32, kHeight = 8;  // pixels a block
constexpr int kReach = kWidth + 2 * kThickestContour;

__device__ __forceinline__ std::int32_t inside(std::int32_t value, std::int32_t extent) {
  return min(max(value, 0), extent - 1);
}

// Whether this thread's pixel lies on a contour. What lies outside the frame is as its edge.
__device__ bool find_contour(const Overlay& call, std::int32_t top, std::int32_t left) {
  __shared__ std::uint8_t labels[kHeight + 2 * kThickestContour][kReach];
  __shared__ std::uint8_t least[kHeight][kReach], most[kHeight][kReach];
  const std::int32_t contour = call.contour, columns = kWidth + 2 * contour;
  for (std::int32_t y = threadIdx.y; y < kHeight + 2 * contour; y += kHeight) {
    const std::uint8_t* const row = call.labels + inside(top - contour + y, call.height) * call.label_stride;
    for (std::int32_t x = threadIdx.x; x < columns; x += kWidth)
      labels[y][x] = row[inside(left - contour + x, call.width)];
  }
  __syncthreads();
  for (std::int32_t x = threadIdx.x; x < columns; x += kWidth) {
    std::uint8_t low = labels[threadIdx.y][x], high = low;
    for (std::int32_t k = 1; k <= 2 * contour; ++k) {
      const std::uint8_t label = labels[threadIdx.y + k][x];
      low = label < low ? label : low;
      high = label > high ? label : high;
    }
    least[threadIdx.y][x] = low;
    most[threadIdx.y][x] = high;
  }
  __syncthreads();
  std::uint8_t low = least[threadIdx.y][threadIdx.x], high = most[threadIdx.y][threadIdx.x];
  for (std::int32_t k = 1; k <= 2 * contour; ++k) {
    const std::uint8_t a = least[threadIdx.y][threadIdx.x + k], b = most[threadIdx.y][threadIdx.x + k];
    low = a < low ? a : low;
    high = b > high ? b : high;
  }
  return on_contour(low, high);
}

__global__ void __launch_bounds__(kWidth* kHeight) paint_kernel(const Overlay call, const Palette palette) {
  const std::int32_t left = static_cast<std::int32_t>(blockIdx.x) * kWidth;
  const std::int32_t x = left + static_cast<std::int32_t>(threadIdx.x);
  for (std::int64_t top = std::int64_t{blockIdx.y} * kHeight; top < call.height;
       top += std::int64_t{gridDim.y} * kHeight) {
    const bool contour = call.contour > 0 && find_contour(call, static_cast<std::int32_t>(top), left);
    const std::int64_t y = top + threadIdx.y;
    if (y >= call.height || x >= call.width) continue;
    const Paint& paint = palette.paints[call.labels[y * call.label_stride + x]];
    if (paint.weight == kNotDrawn) continue;
    std::uint8_t* const pixel = call.frame + y * call.frame_stride + 3 * std::int64_t{x};
    for (int channel = 0; channel < 3; ++channel)
      pixel[channel] = blend_of(paint, channel, contour).over(pixel[channel]);
  }
}

}  // namespace

void run_overlay(const Overlay& call, const Palette& palette, const Work& work) {
  const OnDevice on(work.device);
  const unsigned columns = (static_cast<unsigned>(call.width) + kWidth - 1) / kWidth;
  const unsigned rows = (static_cast<unsigned>(call.height) + kHeight - 1) / kHeight;
  launch(paint_kernel, dim3(columns, rows < 65535 ? rows : 65535), dim3(kWidth, kHeight), 0,
         reinterpret_cast<cudaStream_t>(work.stream), call, palette);
}

}  // namespace trocar
