// Logits to label map, confidence, areas and boxes on a GPU. A block decides a stretch of one network row, a
// thread a pixel; then its threads write the frame rows that the stretch fills. Classes are counted in shared
// memory first and reach the caller's arrays once a block.
#include "cuda_launch.h"
#include "postprocess.h"

namespace trocar {
namespace {

constexpr int kThreads = 128;  // network columns a block
constexpr int kClasses = 257;  // 256 labels and, in sigmoid mode, none of them
constexpr std::int32_t kNowhere = 0x7fffffff;

__device__ __forceinline__ void store(const Postprocess& call, std::int32_t y, std::int32_t x,
                                      std::int32_t label, float confidence) {
  call.labels[y * call.label_stride + x] = static_cast<std::uint8_t>(label);
  const std::int64_t at = y * call.confidence_stride + x;
  switch (call.confidence_type) {
    case ConfidenceType::kByte:
      return store_confidence(static_cast<std::uint8_t*>(call.confidence) + at, confidence);
    case ConfidenceType::kHalf:
      return store_confidence(static_cast<Half*>(call.confidence) + at, confidence);
    case ConfidenceType::kFloat:
      return store_confidence(static_cast<float*>(call.confidence) + at, confidence);
    case ConfidenceType::kNone:
      return;
  }
}

// Before: what is known without the network. A class that was not seen has a right edge of 0.
__global__ void begin_kernel(const Postprocess call) {
  if (threadIdx.x == 0) *call.faults = 0;
  const std::int32_t outside = outside_area(call.height, call.width, call.view);
  for (std::int32_t c = threadIdx.x; c < call.classes(); c += blockDim.x) {
    const bool shown = c == 0 && outside > 0;
    if (call.areas != nullptr) call.areas[c] = shown ? outside : 0;
    if (call.boxes == nullptr) continue;
    const Box box = shown ? outside_box(call.height, call.width, call.view) : Box{kNowhere, kNowhere, 0, 0};
    call.boxes[4 * c] = box.top;
    call.boxes[4 * c + 1] = box.left;
    call.boxes[4 * c + 2] = box.bottom;
    call.boxes[4 * c + 3] = box.right;
  }
}

__global__ void end_kernel(const Postprocess call) {
  for (std::int32_t c = threadIdx.x; c < call.classes(); c += blockDim.x)
    if (call.boxes[4 * c + 3] == 0) call.boxes[4 * c] = call.boxes[4 * c + 1] = call.boxes[4 * c + 2] = 0;
}

__global__ void outside_kernel(const Postprocess call) {
  const Rectangle view = call.view;
  const std::int32_t x = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (x >= call.width) return;
  for (std::int32_t y = static_cast<std::int32_t>(blockIdx.y); y < call.height; y += gridDim.y) {
    const bool seen =
        y >= view.top && y - view.top < view.height && x >= view.left && x - view.left < view.width;
    if (!seen) store(call, y, x, 0, 0.0f);
  }
}

__device__ __forceinline__ float load_logit(const float* logit) { return *logit; }
__device__ __forceinline__ float load_logit(const Half* logit) { return half_to_float(*logit); }

template <typename T>
__device__ __forceinline__ Decision decide(const Postprocess& call, const T* logits, bool* fault) {
  Strongest strongest = first_channel(load_logit(logits));
  for (std::int32_t c = 1; c < call.channels; ++c)
    strongest = stronger(strongest, load_logit(logits + c * call.channel_stride), c);
  *fault = strongest.magnitude >= kNotFinite;
  if (call.sigmoid) return decide_sigmoid(strongest, call.threshold);
  float sum = 0.0f;
  if (call.confidence_type != ConfidenceType::kNone)
    for (std::int32_t c = 0; c < call.channels; ++c)
      sum += exp_of_negative(load_logit(logits + c * call.channel_stride) - strongest.logit);
  return decide_argmax(strongest, sum);
}

struct Counts {
  std::int32_t area[kClasses], left[kClasses], right[kClasses];
};

__device__ __forceinline__ void add_to_caller(const Postprocess& call, const Counts& counts, std::int32_t c,
                                              std::int32_t begin, std::int32_t end) {
  if (counts.area[c] == 0) return;
  const Rectangle view = call.view;
  if (call.areas != nullptr) atomicAdd(call.areas + c, counts.area[c] * (end - begin));
  if (call.boxes == nullptr) return;
  atomicMin(call.boxes + 4 * c, view.top + begin);
  atomicMin(call.boxes + 4 * c + 1, view.left + counts.left[c]);
  atomicMax(call.boxes + 4 * c + 2, view.top + end);
  atomicMax(call.boxes + 4 * c + 3, view.left + counts.right[c]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) decide_kernel(const Postprocess call, std::int32_t tiles) {
  __shared__ std::uint8_t labels[kThreads];
  __shared__ float confidences[kThreads];
  __shared__ Counts counts;
  const std::int32_t row = static_cast<std::int32_t>(blockIdx.x) / tiles;
  const std::int32_t first = static_cast<std::int32_t>(blockIdx.x) % tiles * kThreads;
  const std::int32_t column = first + static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t last = min(first + kThreads, call.columns);
  const Rectangle view = call.view;
  const std::int32_t begin = first_target(row, call.rows, view.height);
  const std::int32_t end = first_target(row + 1, call.rows, view.height);
  const bool counted = end > begin && (call.areas != nullptr || call.boxes != nullptr);
  if (counted) {
    for (std::int32_t c = threadIdx.x; c < call.classes(); c += kThreads) {
      counts.area[c] = counts.right[c] = 0;
      counts.left[c] = kNowhere;
    }
    __syncthreads();
  }
  if (column < last) {
    bool fault;
    const Decision decision =
        decide(call, static_cast<const T*>(call.logits) + row * call.row_stride + column, &fault);
    if (fault) atomicAdd(call.faults, 1);
    labels[threadIdx.x] = static_cast<std::uint8_t>(decision.label);
    confidences[threadIdx.x] = decision.confidence;
    const std::int32_t left = first_target(column, call.columns, view.width);
    const std::int32_t right = first_target(column + 1, call.columns, view.width);
    if (counted && right > left) {
      atomicAdd(&counts.area[decision.label], right - left);
      atomicMin(&counts.left[decision.label], left);
      atomicMax(&counts.right[decision.label], right);
    }
  }
  __syncthreads();
  const std::int32_t x_end = first_target(last, call.columns, view.width);
  for (std::int32_t x = first_target(first, call.columns, view.width) + threadIdx.x; x < x_end;
       x += kThreads) {
    const std::int32_t from = nearest_source(x, call.columns, view.width) - first;
    for (std::int32_t y = begin; y < end; ++y)
      store(call, view.top + y, view.left + x, labels[from], confidences[from]);
  }
  if (counted)
    for (std::int32_t c = threadIdx.x; c < call.classes(); c += kThreads)
      add_to_caller(call, counts, c, begin, end);
}

unsigned blocks_of(std::int32_t values, int block) {
  return (static_cast<unsigned>(values) + block - 1) / block;
}

}  // namespace

void run_postprocess(const Postprocess& call, const Work& work) {
  const OnDevice on(work.device);
  const cudaStream_t stream = reinterpret_cast<cudaStream_t>(work.stream);
  launch(begin_kernel, 1, kThreads, 0, stream, call);
  if (outside_area(call.height, call.width, call.view) > 0) {
    const unsigned rows = static_cast<unsigned>(call.height < 65535 ? call.height : 65535);
    launch(outside_kernel, dim3(blocks_of(call.width, kThreads), rows), kThreads, 0, stream, call);
  }
  if (call.rows > 0 && call.columns > 0) {
    const unsigned tiles = blocks_of(call.columns, kThreads);
    const dim3 blocks(tiles * static_cast<unsigned>(call.rows));
    launch(call.half_logits ? decide_kernel<Half> : decide_kernel<float>, blocks, kThreads, 0, stream, call,
           static_cast<std::int32_t>(tiles));
  }
  if (call.boxes != nullptr) launch(end_kernel, 1, kThreads, 0, stream, call);
}

}  // namespace trocar
