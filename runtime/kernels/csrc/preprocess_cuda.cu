// One thread an output pixel, which is preprocess_pixel(). A block's positions in the source are worked out
// once, by its first threads: they need 64-bit divisions. Neighbouring threads write neighbouring values of
// each plane.
#include "cuda_launch.h"
#include "preprocess.h"

namespace trocar {
namespace {

constexpr int kColumns = 32;  // a warp lies along a row
constexpr int kRows = 8;
constexpr int64_t kMostBlocks = 65535;

// Where a block's columns and rows read the plane and NV12's chroma.
template <bool kArea>
struct BlockReach {
  typename Reach<kArea>::Type column[kColumns], chroma_column[kColumns], row[kRows], chroma_row[kRows];
};

template <Layout kLayout, bool kArea>
__global__ void __launch_bounds__(kColumns* kRows) preprocess_kernel(const PreprocessTask task) {
  TROCAR_DYNAMIC_SHARED(shared);
  BlockReach<kArea>& block = *reinterpret_cast<BlockReach<kArea>*>(shared);
  const int64_t left = static_cast<int64_t>(blockIdx.x) * kColumns, x = left + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kRows;
  const int thread = threadIdx.y * kColumns + threadIdx.x;
  if (thread < kColumns && x < task.out_columns) {
    block.column[thread] = Reach<kArea>::of(task.plane.columns, x);
    if (kLayout == Layout::kNv12) block.chroma_column[thread] = Reach<kArea>::of(task.chroma.columns, x);
  }
  for (int64_t top = static_cast<int64_t>(blockIdx.y) * kRows; top < task.out_rows; top += step) {
    const int row = thread - kColumns;  // by the second warp, while the first does the columns
    if (row >= 0 && row < kRows && top + row < task.out_rows) {
      block.row[row] = Reach<kArea>::of(task.plane.rows, top + row);
      if (kLayout == Layout::kNv12) block.chroma_row[row] = Reach<kArea>::of(task.chroma.rows, top + row);
    }
    __syncthreads();
    const int64_t y = top + threadIdx.y;
    if (x < task.out_columns && y < task.out_rows) {
      PixelReach<kArea> reach{block.row[threadIdx.y], block.column[threadIdx.x], {}, {}};
      if (kLayout == Layout::kNv12) {
        reach.chroma_row = block.chroma_row[threadIdx.y];
        reach.chroma_column = block.chroma_column[threadIdx.x];
      }
      preprocess_pixel<kLayout, kArea>(task, reach, y, x);
    }
    __syncthreads();
  }
}

template <Layout kLayout, bool kArea>
void start(const PreprocessTask& task, const Work& work) {
  const int64_t bands = (task.out_rows + kRows - 1) / kRows;
  const dim3 grid(static_cast<unsigned>((task.out_columns + kColumns - 1) / kColumns),
                  static_cast<unsigned>(bands < kMostBlocks ? bands : kMostBlocks));
  launch(preprocess_kernel<kLayout, kArea>, grid, dim3(kColumns, kRows), sizeof(BlockReach<kArea>),
         reinterpret_cast<cudaStream_t>(work.stream), task);
}

template <Layout kLayout>
void start(const PreprocessTask& task, const Work& work) {
  task.area ? start<kLayout, true>(task, work) : start<kLayout, false>(task, work);
}

}  // namespace

void run_preprocess(const PreprocessTask& task, const Work& work) {
  if (!task.out_rows || !task.out_columns) return;
  OnDevice on(work.device);
  switch (task.layout) {
    case Layout::kGrey:
      return start<Layout::kGrey>(task, work);
    case Layout::kInterleaved:
      return start<Layout::kInterleaved>(task, work);
    case Layout::kNv12:
      return start<Layout::kNv12>(task, work);
  }
}

}  // namespace trocar
