// Row loops for preprocess_pixel(), bit for bit: bilinear in 16-bit fixed point, area in float32.
//
// Rows first: samples of the two source rows (or of all, for area) merge into one row, which vectorises
// whatever the scale. Then each output column picks its samples from that row by offsets computed once a
// tile. Tiles of columns keep the row and the tables on the stack and in the first-level cache; nothing is
// allocated.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "clones.h"
#include "preprocess.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace trocar {
namespace {

constexpr int kBlock = 64;   // output columns that pass through registers together
constexpr int kTile = 512;   // output columns whose tables are kept
constexpr int kSpan = 2048;  // source columns that a tile may reach over
constexpr int kCacheLine = 64;
constexpr int kPad = 8;  // samples read past the last one, with weight 0

// ---- float16 ----------------------------------------------------------------------------------------

using ToHalves = void (*)(const float*, Half*, int);

TROCAR_CLONES_FROM_V2 void to_halves(const float* __restrict values, Half* __restrict halves, int count) {
  for (int i = 0; i < count; ++i) halves[i] = float_to_half(values[i]);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx,f16c"))) void to_halves_f16c(const float* values, Half* halves, int count) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i eight =
        _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + i), eight);
  }
  for (; i < count; ++i) halves[i] = float_to_half(values[i]);
}

ToHalves fastest_to_halves() { return __builtin_cpu_supports("f16c") ? to_halves_f16c : to_halves; }
#else
ToHalves fastest_to_halves() { return to_halves; }
#endif

// ---- one row of the output --------------------------------------------------------------------------

// Where a row goes, a pointer a channel, from the tile's first column on.
struct RowOut {
  void* plane[3];
  float scale[3], bias[3];
  bool half;
  ToHalves convert;
};

template <int kPlanes, typename LevelAt>
TROCAR_HD void scale_block(const RowOut& out, const LevelAt& level_at, float* __restrict first,
                           float* __restrict second, float* __restrict third) {
  const float s0 = out.scale[0], s1 = out.scale[1], s2 = out.scale[2], b0 = out.bias[0], b1 = out.bias[1],
              b2 = out.bias[2];
  for (int k = 0; k < kBlock; ++k) {
    float level[3];
    level_at(k, level);
    first[k] = scaled(level[0], s0, b0);
    if (kPlanes == 1) continue;
    second[k] = scaled(level[1], s1, b1);
    third[k] = scaled(level[2], s2, b2);
  }
}
template <int kPlanes, typename LevelAt>
TROCAR_HD void emit(const RowOut& out, int x, int count, const LevelAt& level_at) {
  if (!out.half && count == kBlock) {
    float* const to[3] = {static_cast<float*>(out.plane[0]) + x, static_cast<float*>(out.plane[1]) + x,
                          static_cast<float*>(out.plane[2]) + x};
    scale_block<kPlanes>(out, level_at, to[0], to[1], to[2]);
    return;
  }
  float spare[3][kBlock];
  scale_block<kPlanes>(out, level_at, spare[0], spare[1], spare[2]);
  for (int c = 0; c < kPlanes; ++c) {
    if (out.half) {
      out.convert(spare[c], static_cast<Half*>(out.plane[c]) + x, count);
    } else {
      std::memcpy(static_cast<float*>(out.plane[c]) + x, spare[c], count * sizeof(float));
    }
  }
}

// ---- bilinear ---------------------------------------------------------------------------------------

// blend() in 16 bits: no step leaves them.
TROCAR_HD int16_t blend16(int16_t a, int16_t b, int16_t weight) {
  const int16_t apart = static_cast<int16_t>(b - a);
  return static_cast<int16_t>(a + static_cast<int16_t>(((apart * weight >> 14) + 1) >> 1));
}

TROCAR_CLONES_FROM_V2 void blend_rows(const uint8_t* __restrict above, const uint8_t* __restrict below,
                                      int16_t weight, int16_t* __restrict samples, int count) {
  for (int i = 0; i < count; ++i) {
    const int16_t a = static_cast<int16_t>(above[i] << kLevelBits);
    const int16_t b = static_cast<int16_t>(below[i] << kLevelBits);
    samples[i] = blend16(a, b, weight);
  }
}

// What the next row reads, asked for block by block while this one's columns are picked: all at once would
// fill the processor's queue of loads, and waiting for them instead costs half the time where frames come
// from memory.
struct Ahead {
  const uint8_t *above, *below;
  int bytes;

  TROCAR_HD void fetch(int x, int width) const {
#if defined(__GNUC__)
    const int end = static_cast<int>(int64_t{bytes} * std::min(x + kBlock, width) / width);
    for (int i = static_cast<int>(int64_t{bytes} * x / width); i < end; i += kCacheLine) {
      __builtin_prefetch(above + i);
      __builtin_prefetch(below + i);
    }
#else
    (void)x, (void)width;
#endif
  }
};

// Tables of one plane's columns in a tile. Rounded up to whole blocks; what is beyond reads sample 0.
template <int kLanes>
struct Columns {
  int32_t first, count;            // samples of the row that the tile reaches over
  int32_t offset[kTile];           // into the row of samples
  int16_t weight[kLanes * kTile];  // repeated for each lane of a column

  void build(const Axis& axis, int64_t x, int width, int channels) {
    first = bilinear_tap(axis, x).index;
    count = bilinear_tap(axis, x + width - 1).next - first + 1;
    const int whole_blocks = (width + kBlock - 1) / kBlock * kBlock;
    for (int k = 0; k < whole_blocks; ++k) {
      const Tap tap = k < width ? bilinear_tap(axis, x + k) : Tap{first, first, 0};
      offset[k] = (tap.index - first) * channels;
      for (int lane = 0; lane < kLanes; ++lane) weight[kLanes * k + lane] = static_cast<int16_t>(tap.weight);
    }
  }
};

TROCAR_HD float level_of(int32_t sample) { return static_cast<float>(sample) * (1.0f / (1 << kLevelBits)); }

TROCAR_HD int32_t low_half(int32_t pair) { return static_cast<int16_t>(pair); }
TROCAR_HD int32_t high_half(int32_t pair) { return pair >> 16; }

// Samples move as words of a little-endian machine: `kWords` of four bytes from each column's first sample
// on.
template <int kWords>
TROCAR_HD void pick(const int16_t* samples, const int32_t* offset, int32_t* words) {
  for (int k = 0; k < kBlock; ++k) {
    std::memcpy(words + kWords * k, samples + offset[k], kWords * sizeof(int32_t));
  }
}

// A column's sample and its right-hand neighbour in one word.
struct GreyColumns {
  const int32_t* words;
  const int16_t* weight;

  TROCAR_HD float level(int k) const {
    return level_of(blend(low_half(words[k]), high_half(words[k]), weight[k]));
  }
  TROCAR_HD void operator()(int k, float* levels) const { levels[0] = level(k); }
};

TROCAR_CLONES_FROM_V2 void bilinear_grey(const int16_t* samples, const Columns<1>& columns,
                                         const Ahead& ahead, int width, const RowOut& out) {
  int32_t words[kBlock];
  for (int x = 0; x < width; x += kBlock) {
    ahead.fetch(x, width);
    pick<1>(samples, columns.offset + x, words);
    emit<1>(out, x, std::min(kBlock, width - x), GreyColumns{words, columns.weight + x});
  }
}

struct ColourColumns {
  const int32_t* words;

  TROCAR_HD void operator()(int k, float* levels) const {
    levels[0] = level_of(low_half(words[2 * k]));
    levels[1] = level_of(high_half(words[2 * k]));
    levels[2] = level_of(low_half(words[2 * k + 1]));
  }
};

// A pixel is picked with one channel of the next: four lanes.
TROCAR_CLONES_FROM_V2 void bilinear_interleaved(const int16_t* samples, const Columns<4>& columns,
                                                const Ahead& ahead, int width, const RowOut& out) {
  int32_t here[2 * kBlock], next[2 * kBlock];
  int16_t a[4 * kBlock], b[4 * kBlock];
  for (int x = 0; x < width; x += kBlock) {
    ahead.fetch(x, width);
    pick<2>(samples, columns.offset + x, here);
    pick<2>(samples + 3, columns.offset + x, next);
    std::memcpy(a, here, sizeof a);
    std::memcpy(b, next, sizeof b);
    const int16_t* const weight = columns.weight + 4 * x;
    for (int i = 0; i < 4 * kBlock; ++i) a[i] = blend16(a[i], b[i], weight[i]);
    std::memcpy(here, a, sizeof a);
    emit<3>(out, x, std::min(kBlock, width - x), ColourColumns{here});
  }
}

// Of chroma, U and V are one word, those of the next sample another.
struct YuvColumns {
  GreyColumns luma;
  const int32_t* words;
  const int16_t* weight;
  ColourMatrix matrix;

  TROCAR_HD void operator()(int k, float* levels) const {
    const int32_t here = words[2 * k], next = words[2 * k + 1];
    const float u = level_of(blend(low_half(here), low_half(next), weight[k]));
    const float v = level_of(blend(high_half(here), high_half(next), weight[k]));
    rgb_of_yuv(matrix, luma.level(k), u, v, &levels[0], &levels[1], &levels[2]);
  }
};

TROCAR_CLONES_FROM_V2 void bilinear_nv12(const int16_t* luma, const Columns<1>& columns,
                                         const int16_t* chroma, const Columns<1>& chroma_columns,
                                         const Ahead& ahead, const Ahead& chroma_ahead,
                                         const ColourMatrix& matrix, int width, const RowOut& out) {
  int32_t luma_words[kBlock], chroma_words[2 * kBlock];
  for (int x = 0; x < width; x += kBlock) {
    ahead.fetch(x, width);
    chroma_ahead.fetch(x, width);
    pick<1>(luma, columns.offset + x, luma_words);
    pick<2>(chroma, chroma_columns.offset + x, chroma_words);
    emit<3>(out, x, std::min(kBlock, width - x),
            YuvColumns{{luma_words, columns.weight + x}, chroma_words, chroma_columns.weight + x, matrix});
  }
}

// The row of samples of one plane that a tile's columns read.
template <int kChannels, int kLanes>
struct BilinearPlane {
  Columns<kLanes> columns;
  alignas(64) int16_t samples[kChannels * kSpan + kPad];

  void build(const Plane& plane, int64_t x, int width) {
    columns.build(plane.columns, x, width, kChannels);
    std::fill_n(samples + kChannels * columns.count, kPad, int16_t{0});
  }
  void blend_at(const Plane& plane, int64_t y) {
    const Tap tap = bilinear_tap(plane.rows, y);
    blend_rows(from(plane, tap.index), from(plane, tap.next), static_cast<int16_t>(tap.weight), samples,
               columns.count * kChannels);
  }
  Ahead ahead(const Plane& plane, int64_t y) const {
    if (y >= plane.rows.out) return {nullptr, nullptr, 0};
    const Tap tap = bilinear_tap(plane.rows, y);
    return {from(plane, tap.index), from(plane, tap.next), columns.count * kChannels};
  }
  const uint8_t* from(const Plane& plane, int32_t row) const {
    return plane.samples + row * plane.row_stride + int64_t{columns.first} * kChannels;
  }
};

struct NoPlane {};

template <Layout kLayout>
struct BilinearTile {
  static constexpr int kChannels = kLayout == Layout::kInterleaved ? 3 : 1;
  BilinearPlane<kChannels, kLayout == Layout::kInterleaved ? 4 : 1> plane;
  std::conditional_t<kLayout == Layout::kNv12, BilinearPlane<2, 1>, NoPlane> chroma;
  int width;

  void build(const PreprocessTask& task, int64_t x, int columns) {
    width = columns;
    plane.build(task.plane, x, columns);
    if constexpr (kLayout == Layout::kNv12) chroma.build(task.chroma, x, columns);
  }
  void row(const PreprocessTask& task, int64_t y, const RowOut& out) {
    plane.blend_at(task.plane, y);
    const Ahead ahead = plane.ahead(task.plane, y + 1);
    if constexpr (kLayout == Layout::kGrey) bilinear_grey(plane.samples, plane.columns, ahead, width, out);
    if constexpr (kLayout == Layout::kInterleaved) {
      bilinear_interleaved(plane.samples, plane.columns, ahead, width, out);
    }
    if constexpr (kLayout == Layout::kNv12) {
      chroma.blend_at(task.chroma, y);
      bilinear_nv12(plane.samples, plane.columns, chroma.samples, chroma.columns, ahead,
                    chroma.ahead(task.chroma, y + 1), task.matrix, width, out);
    }
  }
};

// ---- area -------------------------------------------------------------------------------------------

TROCAR_CLONES void add_row(const uint8_t* __restrict row, float weight, float* __restrict sums, int count) {
  for (int i = 0; i < count; ++i) sums[i] += weight * static_cast<float>(row[i]);
}

// Sums over the rows under an output row, a column of the source each, and what each output column takes of
// them.
template <int kChannels>
struct AreaPlane {
  int32_t first, count;
  Cover columns[kTile];
  alignas(64) float sums[kChannels * kSpan];

  void build(const Plane& plane, int64_t x, int width) {
    for (int k = 0; k < width; ++k) columns[k] = area_cover(plane.columns, x + k);
    first = columns[0].first;
    count = columns[width - 1].first + columns[width - 1].count - first;
  }
  void sum_at(const Plane& plane, int64_t y) {
    const Cover rows = area_cover(plane.rows, y);
    const uint8_t* row = plane.samples + rows.first * plane.row_stride + int64_t{first} * kChannels;
    std::fill_n(sums, count * kChannels, 0.0f);
    for (int32_t i = 0; i < rows.count; ++i, row += plane.row_stride) {
      add_row(row, rows.weight(i), sums, count * kChannels);
    }
  }
  TROCAR_HD void levels(int x, int width, float (*level)[kBlock]) const {
    for (int k = 0; k < width; ++k) {
      const Cover& cover = columns[x + k];
      const float* sum = sums + (cover.first - first) * kChannels;
      float total[kChannels] = {};
      for (int32_t j = 0; j < cover.count; ++j, sum += kChannels) {
        const float share = cover.weight(j);
        for (int c = 0; c < kChannels; ++c) total[c] += share * sum[c];
      }
      for (int c = 0; c < kChannels; ++c) level[c][k] = total[c];
    }
    for (int c = 0; c < kChannels; ++c) std::fill(level[c] + width, level[c] + kBlock, 0.0f);
  }
};

template <int kChannels>
struct AreaLevels {
  const float (*level)[kBlock];

  TROCAR_HD void operator()(int k, float* levels) const {
    for (int c = 0; c < kChannels; ++c) levels[c] = level[c][k];
  }
};

struct AreaYuv {
  const float* luma;
  const float (*uv)[kBlock];
  ColourMatrix matrix;

  TROCAR_HD void operator()(int k, float* levels) const {
    rgb_of_yuv(matrix, luma[k], uv[0][k], uv[1][k], &levels[0], &levels[1], &levels[2]);
  }
};

template <int kChannels>
TROCAR_HD void area_row(const AreaPlane<kChannels>& plane, int width, const RowOut& out) {
  float level[kChannels][kBlock];
  for (int x = 0; x < width; x += kBlock) {
    const int count = std::min(kBlock, width - x);
    plane.levels(x, count, level);
    emit<kChannels>(out, x, count, AreaLevels<kChannels>{level});
  }
}

TROCAR_CLONES void area_grey(const AreaPlane<1>& plane, int width, const RowOut& out) {
  area_row(plane, width, out);
}

TROCAR_CLONES void area_interleaved(const AreaPlane<3>& plane, int width, const RowOut& out) {
  area_row(plane, width, out);
}

TROCAR_CLONES void area_nv12(const AreaPlane<1>& luma, const AreaPlane<2>& chroma, const ColourMatrix& matrix,
                             int width, const RowOut& out) {
  float level[1][kBlock], uv[2][kBlock];
  for (int x = 0; x < width; x += kBlock) {
    const int count = std::min(kBlock, width - x);
    luma.levels(x, count, level);
    chroma.levels(x, count, uv);
    emit<3>(out, x, count, AreaYuv{level[0], uv, matrix});
  }
}

template <Layout kLayout>
struct AreaTile {
  AreaPlane<kLayout == Layout::kInterleaved ? 3 : 1> plane;
  std::conditional_t<kLayout == Layout::kNv12, AreaPlane<2>, NoPlane> chroma;
  int width;

  void build(const PreprocessTask& task, int64_t x, int columns) {
    width = columns;
    plane.build(task.plane, x, columns);
    if constexpr (kLayout == Layout::kNv12) chroma.build(task.chroma, x, columns);
  }
  void row(const PreprocessTask& task, int64_t y, const RowOut& out) {
    plane.sum_at(task.plane, y);
    if constexpr (kLayout == Layout::kGrey) area_grey(plane, width, out);
    if constexpr (kLayout == Layout::kInterleaved) area_interleaved(plane, width, out);
    if constexpr (kLayout == Layout::kNv12) {
      chroma.sum_at(task.chroma, y);
      area_nv12(plane, chroma, task.matrix, width, out);
    }
  }
};

// ---- the whole output -------------------------------------------------------------------------------

// Columns of a tile that reaches over no more than kSpan samples; 0 where one column alone does.
int tile_width(const PreprocessTask& task) {
  const int64_t fitting = (kSpan - 4) * task.out_columns / task.plane.columns.length;
  return static_cast<int>(std::min<int64_t>({fitting, kTile, task.out_columns}));
}

RowOut row_out(const PreprocessTask& task, int64_t y, int64_t x, ToHalves convert) {
  const int64_t size = task.half ? sizeof(Half) : sizeof(float);
  RowOut out{};
  for (int c = 0; c < 3; ++c) {
    const int64_t index = task.out_plane[c] * task.out_plane_stride + y * task.out_row_stride + x;
    out.plane[c] = static_cast<char*>(task.out) + index * size;
    out.scale[c] = task.scale[c];
    out.bias[c] = task.bias[c];
  }
  out.half = task.half;
  out.convert = convert;
  return out;
}

template <typename Tile>
void by_tiles(const PreprocessTask& task, int width) {
  Tile tile;
  const ToHalves convert = fastest_to_halves();
  for (int64_t x = 0; x < task.out_columns; x += width) {
    tile.build(task, x, static_cast<int>(std::min<int64_t>(width, task.out_columns - x)));
    for (int64_t y = 0; y < task.out_rows; ++y) tile.row(task, y, row_out(task, y, x, convert));
  }
}

template <Layout kLayout, bool kArea>
void by_pixels(const PreprocessTask& task) {
  PixelReach<kArea> reach{};
  for (int64_t y = 0; y < task.out_rows; ++y) {
    reach.row = Reach<kArea>::of(task.plane.rows, y);
    if (kLayout == Layout::kNv12) reach.chroma_row = Reach<kArea>::of(task.chroma.rows, y);
    for (int64_t x = 0; x < task.out_columns; ++x) {
      reach.column = Reach<kArea>::of(task.plane.columns, x);
      if (kLayout == Layout::kNv12) reach.chroma_column = Reach<kArea>::of(task.chroma.columns, x);
      preprocess_pixel<kLayout, kArea>(task, reach, y, x);
    }
  }
}

template <Layout kLayout>
void run(const PreprocessTask& task) {
  const int width = task.by_pixel ? 0 : tile_width(task);
  if (width && task.area) return by_tiles<AreaTile<kLayout>>(task, width);
  if (width) return by_tiles<BilinearTile<kLayout>>(task, width);
  task.area ? by_pixels<kLayout, true>(task) : by_pixels<kLayout, false>(task);
}

}  // namespace

void run_preprocess(const PreprocessTask& task, const Work&) {
  if (!task.out_rows || !task.out_columns) return;
  switch (task.layout) {
    case Layout::kGrey:
      return run<Layout::kGrey>(task);
    case Layout::kInterleaved:
      return run<Layout::kInterleaved>(task);
    case Layout::kNv12:
      return run<Layout::kNv12>(task);
  }
}

}  // namespace trocar
