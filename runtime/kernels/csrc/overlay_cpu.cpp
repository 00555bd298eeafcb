// Classes over a frame, in blocks of pixels: most blocks show one class and are skipped or blended whole.
#include <algorithm>
#include <cstring>

#include "clones.h"
#include "overlay.h"

namespace trocar {
namespace {

constexpr int kBlock = 16;  // pixels
constexpr int kBytes = 3 * kBlock;
constexpr int kTile = 2048;  // columns whose contour is found at a time: a multiple of kBlock
constexpr int kReach = kTile + 2 * kThickestContour;

// A block's blend, byte by byte, as two rows for the compiler.
struct BlockBlend {
  std::uint16_t keep[kBytes], add[kBytes];

  void set(int pixel, const Blend* blends) {
    for (int channel = 0; channel < 3; ++channel) {
      keep[3 * pixel + channel] = blends[channel].keep;
      add[3 * pixel + channel] = blends[channel].add;
    }
  }
};

// The palette, laid out for the two kinds of block.
struct Paints {
  int least = kPaletteSize;  // of the classes that are drawn
  bool drawn[kPaletteSize];
  Blend blends[2][kPaletteSize][3];  // off and on a contour
  BlockBlend whole[kPaletteSize];    // of classes that are drawn

  explicit Paints(const Palette& palette) {
    for (int label = 0; label < kPaletteSize; ++label) {
      const Paint& paint = palette.paints[label];
      drawn[label] = paint.weight != kNotDrawn;
      for (int channel = 0; channel < 3; ++channel) {
        blends[0][label][channel] = blend_of(paint, channel, false);
        blends[1][label][channel] = blend_of(paint, channel, true);
      }
      if (drawn[label]) least = std::min(least, label);
      if (drawn[label])
        for (int pixel = 0; pixel < kBlock; ++pixel) whole[label].set(pixel, blends[0][label]);
    }
  }
};

// ---- loops that the compiler vectorises -----------------------------------------------------------

TROCAR_CLONES void blend_block(std::uint8_t* __restrict pixels, const BlockBlend& blend) {
  for (int i = 0; i < kBytes; ++i) pixels[i] = Blend{blend.keep[i], blend.add[i]}.over(pixels[i]);
}

// By value: through std::min's references a loop over bytes does not vectorise.
TROCAR_HD std::uint8_t lesser(std::uint8_t a, std::uint8_t b) { return a < b ? a : b; }
TROCAR_HD std::uint8_t greater(std::uint8_t a, std::uint8_t b) { return a > b ? a : b; }

// Whether a label of `least` or more is among some.
TROCAR_CLONES bool reaches(const std::uint8_t* __restrict labels, int count, int least) {
  std::uint8_t most = 0;
  for (int x = 0; x < count; ++x) most = greater(most, labels[x]);
  return most >= least;
}

// The least and the most label of each column in `rows` rows.
TROCAR_CLONES void span_rows(const std::uint8_t* __restrict labels, std::int64_t stride, std::int32_t rows,
                             int columns, std::uint8_t* __restrict least, std::uint8_t* __restrict most) {
  for (int x = 0; x < columns; ++x) least[x] = most[x] = labels[x];
  for (std::int32_t y = 1; y < rows; ++y) {
    const std::uint8_t* const row = labels + y * stride;
    for (int x = 0; x < columns; ++x) {
      least[x] = lesser(least[x], row[x]);
      most[x] = greater(most[x], row[x]);
    }
  }
}

// Whether the `reach` columns from each one on differ, from what span_rows found.
TROCAR_CLONES void find_edges(const std::uint8_t* __restrict least, const std::uint8_t* __restrict most,
                              int reach, int columns, std::uint8_t* __restrict edges) {
  std::uint8_t low[kTile], high[kTile];
  for (int x = 0; x < columns; ++x) {
    low[x] = least[x];
    high[x] = most[x];
  }
  for (int k = 1; k < reach; ++k) {
    for (int x = 0; x < columns; ++x) {
      low[x] = lesser(low[x], least[x + k]);
      high[x] = greater(high[x], most[x + k]);
    }
  }
  for (int x = 0; x < columns; ++x) edges[x] = on_contour(low[x], high[x]);
}

// ---- over the frame -------------------------------------------------------------------------------

// Contour pixels of row y, columns [first, first + columns).
void find_contour(const Overlay& call, std::int32_t y, std::int32_t first, int columns, std::uint8_t* edges) {
  std::uint8_t least[kReach], most[kReach];
  const std::int32_t contour = call.contour;
  const std::int32_t top = std::max(0, y - contour), bottom = std::min(call.height, y + contour + 1);
  const std::int32_t left = std::max(0, first - contour);
  const std::int32_t right = std::min(call.width, first + columns + contour);
  const int before = left - (first - contour), inside = right - left;
  span_rows(call.labels + top * call.label_stride + left, call.label_stride, bottom - top, inside,
            least + before, most + before);
  // What lies outside the frame is as its edge.
  const int after = columns + 2 * contour - before - inside;
  std::fill_n(least, before, least[before]);
  std::fill_n(most, before, most[before]);
  std::fill_n(least + before + inside, after, least[before + inside - 1]);
  std::fill_n(most + before + inside, after, most[before + inside - 1]);
  find_edges(least, most, 2 * contour + 1, columns, edges);
}

bool block_reaches(const std::uint8_t* labels, int least) {
  std::uint8_t most = 0;
  for (int x = 0; x < kBlock; ++x) most = greater(most, labels[x]);
  return most >= least;
}

// The columns beyond which a row shows nothing that is drawn, in whole blocks: most rows of most frames are
// left alone, and telling so is a tenth of looking for their contours.
struct Span {
  int begin, end;
};

Span drawn_span(const std::uint8_t* labels, int columns, int least) {
  if (!reaches(labels, columns, least)) return {0, 0};
  int begin = 0, end = columns;
  while (begin + kBlock <= columns && !block_reaches(labels + begin, least)) begin += kBlock;
  while (end - kBlock > begin && !block_reaches(labels + end - kBlock, least)) end -= kBlock;
  return {begin, end};
}

bool all_are(const std::uint8_t* values, std::uint8_t value) {
  std::uint64_t first, second;
  std::memcpy(&first, values, 8);
  std::memcpy(&second, values + 8, 8);
  const std::uint64_t wanted = 0x0101010101010101u * value;
  return ((first ^ wanted) | (second ^ wanted)) == 0;
}

void paint_mixed(std::uint8_t* pixels, const std::uint8_t* labels, const std::uint8_t* edges, int count,
                 const Paints& paints) {
  constexpr Blend kNothing[3] = {{kOpaque, 0}, {kOpaque, 0}, {kOpaque, 0}};
  BlockBlend blend;
  for (int pixel = 0; pixel < count; ++pixel) blend.set(pixel, paints.blends[edges[pixel]][labels[pixel]]);
  for (int pixel = count; pixel < kBlock; ++pixel) blend.set(pixel, kNothing);
  if (count == kBlock) {
    blend_block(pixels, blend);
  } else {
    std::uint8_t copy[kBytes] = {};
    std::memcpy(copy, pixels, 3 * count);
    blend_block(copy, blend);
    std::memcpy(pixels, copy, 3 * count);
  }
}

void paint_row(std::uint8_t* pixels, const std::uint8_t* labels, const std::uint8_t* edges, int columns,
               const Paints& paints) {
  for (int x = 0; x < columns; x += kBlock) {
    const int count = std::min(kBlock, columns - x);
    if (count == kBlock && all_are(labels + x, labels[x]) && all_are(edges + x, 0)) {
      if (paints.drawn[labels[x]]) blend_block(pixels + 3 * x, paints.whole[labels[x]]);
    } else {
      paint_mixed(pixels + 3 * x, labels + x, edges + x, count, paints);
    }
  }
}

}  // namespace

void run_overlay(const Overlay& call, const Palette& palette, const Work&) {
  const Paints paints(palette);
  std::uint8_t edges[kTile] = {};
  for (std::int32_t y = 0; y < call.height; ++y) {
    for (std::int32_t first = 0; first < call.width; first += kTile) {
      const std::uint8_t* const labels = call.labels + y * call.label_stride;
      const Span span = drawn_span(labels + first, std::min(kTile, call.width - first), paints.least);
      const int begin = first + span.begin, columns = span.end - span.begin;
      if (columns == 0) continue;
      if (call.contour > 0) find_contour(call, y, begin, columns, edges);
      paint_row(call.frame + y * call.frame_stride + 3 * static_cast<std::int64_t>(begin), labels + begin,
                edges, columns, paints);
    }
  }
}

}  // namespace trocar
