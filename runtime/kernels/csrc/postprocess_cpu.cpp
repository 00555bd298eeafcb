// Logits to label map, confidence, areas and boxes in one pass over the network's rows.
//
// A row is decided at the network's resolution in tiles that stay in the first-level cache, counted there
// with the number of frame pixels each network pixel fills, then spread over the frame's rows.
#include <algorithm>
#include <cstring>

#include "clones.h"
#include "postprocess.h"

namespace trocar {
namespace {

constexpr int kTile = 512;     // network columns decided at a time
constexpr int kStore = 16;     // frame columns that one store fills
constexpr int kClasses = 257;  // 256 labels and, in sigmoid mode, none of them

// Network columns [first, first + count) and the frame columns each of them fills, from the view's left edge.
// The first `stored` of them fill at most kStore and have that many before the tile's end.
struct Tile {
  std::int32_t first, count, stored;
  std::int32_t begin[kTile + 1];
  std::int32_t width[kTile];
};

struct Decided {
  std::int32_t label[kTile];
  std::uint8_t label_byte[kTile];
  float confidence[kTile];
};

// ---- loops that the compiler vectorises -----------------------------------------------------------

TROCAR_HD float load_logit(const float* logit) { return *logit; }
TROCAR_HD float load_logit(const Half* logit) { return half_to_float(*logit); }

template <typename T>
TROCAR_HD void find_strongest(const T* __restrict logits, std::int64_t channel_stride, std::int32_t channels,
                              int count, float* __restrict logit, std::int32_t* __restrict channel,
                              std::uint32_t* __restrict magnitude) {
  for (int i = 0; i < count; ++i) {
    const Strongest first = first_channel(load_logit(logits + i));
    logit[i] = first.logit;
    channel[i] = first.channel;
    magnitude[i] = first.magnitude;
  }
  for (std::int32_t c = 1; c < channels; ++c) {
    const T* const row = logits + c * channel_stride;
    for (int i = 0; i < count; ++i) {
      const Strongest next = stronger({logit[i], channel[i], magnitude[i]}, load_logit(row + i), c);
      logit[i] = next.logit;
      channel[i] = next.channel;
      magnitude[i] = next.magnitude;
    }
  }
}

// Returns how many pixels have a logit that is not finite.
template <typename T>
TROCAR_HD int decide(const Postprocess& call, const T* __restrict logits, int count, Decided& decided) {
  float strongest[kTile];
  float sum[kTile];
  std::uint32_t magnitude[kTile];
  find_strongest(logits, call.channel_stride, call.channels, count, strongest, decided.label, magnitude);
  if (call.sigmoid) {
    const float threshold = call.threshold;
    for (int i = 0; i < count; ++i) {
      const Decision decision = decide_sigmoid({strongest[i], decided.label[i], magnitude[i]}, threshold);
      decided.label[i] = decision.label;
      decided.confidence[i] = decision.confidence;
    }
  } else {
    for (int i = 0; i < count; ++i) sum[i] = 0.0f;
    if (call.confidence_type != ConfidenceType::kNone) {
      for (std::int32_t c = 0; c < call.channels; ++c) {
        const T* const row = logits + c * call.channel_stride;
        for (int i = 0; i < count; ++i) sum[i] += exp_of_negative(load_logit(row + i) - strongest[i]);
      }
    }
    for (int i = 0; i < count; ++i) {
      const Decision decision = decide_argmax({strongest[i], decided.label[i], magnitude[i]}, sum[i]);
      decided.label[i] = decision.label;
      decided.confidence[i] = decision.confidence;
    }
  }
  for (int i = 0; i < count; ++i) decided.label_byte[i] = static_cast<std::uint8_t>(decided.label[i]);
  int faults = 0;
  for (int i = 0; i < count; ++i) faults += magnitude[i] >= kNotFinite;
  return faults;
}

TROCAR_CLONES int decide_float(const Postprocess& call, const float* logits, int count, Decided& decided) {
  return decide(call, logits, count, decided);
}

TROCAR_CLONES int decide_half(const Postprocess& call, const Half* logits, int count, Decided& decided) {
  return decide(call, logits, count, decided);
}

// How many frame columns show class c.
TROCAR_CLONES std::int32_t count_columns(const std::int32_t* label, const std::int32_t* width, int count,
                                         std::int32_t c) {
  std::int32_t columns = 0;
  for (int i = 0; i < count; ++i) columns += label[i] == c ? width[i] : 0;
  return columns;
}

template <typename T>
TROCAR_HD void store_all(const float* __restrict values, int count, T* __restrict stored) {
  for (int i = 0; i < count; ++i) store_confidence(stored + i, values[i]);
}
TROCAR_CLONES void store_bytes(const float* values, int count, std::uint8_t* stored) {
  store_all(values, count, stored);
}
TROCAR_CLONES void store_halves(const float* values, int count, Half* stored) {
  store_all(values, count, stored);
}

// Repeats each value over its frame columns. A short run is one store of kStore, whose surplus the next runs
// overwrite; the last runs, which have no room for surplus, are stored exactly.
template <typename T>
TROCAR_HD void spread_all(const Tile& tile, const T* __restrict values, T* __restrict row) {
  for (int i = 0; i < tile.stored; ++i) {
    const T value = values[i];
    T* const to = row + tile.begin[i];
    for (int k = 0; k < kStore; ++k) to[k] = value;
  }
  for (int i = tile.stored; i < tile.count; ++i) std::fill_n(row + tile.begin[i], tile.width[i], values[i]);
}
TROCAR_CLONES void spread(const Tile& tile, const std::uint8_t* values, std::uint8_t* row) {
  spread_all(tile, values, row);
}
TROCAR_CLONES void spread(const Tile& tile, const Half* values, Half* row) { spread_all(tile, values, row); }
TROCAR_CLONES void spread(const Tile& tile, const float* values, float* row) {
  spread_all(tile, values, row);
}

// ---- over the frame -------------------------------------------------------------------------------

// Fills the tile's part of frame rows [begin, end) of the view; `image` is the frame's first pixel.
template <typename T>
void fill_rows(const Postprocess& call, const Tile& tile, const T* values, T* image, std::int64_t stride,
               std::int32_t begin, std::int32_t end) {
  T* const first = image + (call.view.top + begin) * stride + call.view.left;
  spread(tile, values, first);
  const std::size_t bytes = (tile.begin[tile.count] - tile.begin[0]) * sizeof(T);
  const T* const from = first + tile.begin[0];
  for (std::int32_t y = 1; y < end - begin; ++y) std::memcpy(first + tile.begin[0] + y * stride, from, bytes);
}

void fill_confidence(const Postprocess& call, const Tile& tile, const float* confidence, std::int32_t begin,
                     std::int32_t end) {
  if (call.confidence_type == ConfidenceType::kByte) {
    std::uint8_t bytes[kTile];
    store_bytes(confidence, tile.count, bytes);
    fill_rows(call, tile, bytes, static_cast<std::uint8_t*>(call.confidence), call.confidence_stride, begin,
              end);
  } else if (call.confidence_type == ConfidenceType::kHalf) {
    Half halves[kTile];
    store_halves(confidence, tile.count, halves);
    fill_rows(call, tile, halves, static_cast<Half*>(call.confidence), call.confidence_stride, begin, end);
  } else if (call.confidence_type == ConfidenceType::kFloat) {
    fill_rows(call, tile, confidence, static_cast<float*>(call.confidence), call.confidence_stride, begin,
              end);
  }
}

template <typename T>
void zero_outside(T* image, std::int64_t stride, std::int32_t height, std::int32_t width, Rectangle view) {
  for (std::int32_t y = 0; y < height; ++y) {
    T* const row = image + y * stride;
    if (y < view.top || y >= view.top + view.height) {
      std::fill_n(row, width, T{});
    } else {
      std::fill_n(row, view.left, T{});
      std::fill_n(row + view.left + view.width, width - view.left - view.width, T{});
    }
  }
}

// Areas and boxes of all classes so far, in the frame.
struct Totals {
  std::int32_t area[kClasses];
  Box box[kClasses];

  Totals(const Postprocess& call) {
    for (std::int32_t c = 0; c < call.classes(); ++c) {
      area[c] = 0;
      box[c] = {0, 0, 0, 0};
    }
    area[0] = outside_area(call.height, call.width, call.view);
    box[0] = outside_box(call.height, call.width, call.view);
  }

  void add(std::int32_t c, std::int32_t pixels, Box more) {
    Box& whole = box[c];
    whole = area[c] == 0 ? more
                         : Box{std::min(whole.top, more.top), std::min(whole.left, more.left),
                               std::max(whole.bottom, more.bottom), std::max(whole.right, more.right)};
    area[c] += pixels;
  }

  void store(const Postprocess& call) const {
    for (std::int32_t c = 0; c < call.classes(); ++c) {
      if (call.areas != nullptr) call.areas[c] = area[c];
      if (call.boxes != nullptr) std::memcpy(call.boxes + 4 * c, &box[c], sizeof box[c]);
    }
  }
};

void lay_tile(Tile& tile, const Postprocess& call, std::int32_t first) {
  tile.first = first;
  tile.count = std::min(kTile, call.columns - first);
  for (int i = 0; i <= tile.count; ++i)
    tile.begin[i] = first_target(first + i, call.columns, call.view.width);
  for (int i = 0; i < tile.count; ++i) tile.width[i] = tile.begin[i + 1] - tile.begin[i];
  const std::int32_t end = tile.begin[tile.count];
  tile.stored = 0;
  while (tile.stored < tile.count && tile.width[tile.stored] <= kStore &&
         end - tile.begin[tile.stored] >= kStore)
    ++tile.stored;
}

int decide_row(const Postprocess& call, const Tile& tile, std::int32_t row, Decided& decided) {
  const std::int64_t offset = row * call.row_stride + tile.first;
  return call.half_logits
             ? decide_half(call, static_cast<const Half*>(call.logits) + offset, tile.count, decided)
             : decide_float(call, static_cast<const float*>(call.logits) + offset, tile.count, decided);
}

// The frame columns of a class that shows somewhere: those of its first and of its last network pixel that
// fill any.
void find_columns(const Tile& tile, const std::uint8_t* label, int c, std::int32_t* left,
                  std::int32_t* right) {
  const std::uint8_t* const end = label + tile.count;
  const std::uint8_t* first = static_cast<const std::uint8_t*>(memchr(label, c, tile.count));
  while (tile.width[first - label] == 0)
    first = static_cast<const std::uint8_t*>(memchr(first + 1, c, end - (first + 1)));
  const std::uint8_t* last = static_cast<const std::uint8_t*>(memrchr(label, c, tile.count));
  while (tile.width[last - label] == 0)
    last = static_cast<const std::uint8_t*>(memrchr(label, c, last - label));
  *left = tile.begin[first - label];
  *right = tile.begin[last - label + 1];
}

// Counts the frame rows [begin, end) that one network row fills.
void count_row(const Postprocess& call, const Tile& tile, const Decided& decided, std::int32_t begin,
               std::int32_t end, Totals& totals) {
  const Rectangle view = call.view;
  for (std::int32_t c = 0; c < call.classes(); ++c) {
    const std::int32_t columns = count_columns(decided.label, tile.width, tile.count, c);
    if (columns == 0) continue;
    std::int32_t left, right;
    find_columns(tile, decided.label_byte, c, &left, &right);
    totals.add(c, columns * (end - begin),
               {view.top + begin, view.left + left, view.top + end, view.left + right});
  }
}

void zero_outside(const Postprocess& call) {
  if (call.height == 0 || call.width == 0) return;
  zero_outside(call.labels, call.label_stride, call.height, call.width, call.view);
  if (call.confidence_type == ConfidenceType::kByte) {
    zero_outside(static_cast<std::uint8_t*>(call.confidence), call.confidence_stride, call.height, call.width,
                 call.view);
  } else if (call.confidence_type == ConfidenceType::kHalf) {
    zero_outside(static_cast<Half*>(call.confidence), call.confidence_stride, call.height, call.width,
                 call.view);
  } else if (call.confidence_type == ConfidenceType::kFloat) {
    zero_outside(static_cast<float*>(call.confidence), call.confidence_stride, call.height, call.width,
                 call.view);
  }
}

}  // namespace

void run_postprocess(const Postprocess& call, const Work&) {
  zero_outside(call);
  Totals totals(call);
  const bool counted = call.areas != nullptr || call.boxes != nullptr;
  std::int32_t faults = 0;
  Tile tile;
  Decided decided;
  for (std::int32_t first = 0; first < call.columns && call.rows > 0; first += kTile) {
    lay_tile(tile, call, first);
    for (std::int32_t row = 0; row < call.rows; ++row) {
      faults += decide_row(call, tile, row, decided);
      const std::int32_t begin = first_target(row, call.rows, call.view.height);
      const std::int32_t end = first_target(row + 1, call.rows, call.view.height);
      if (begin == end || tile.begin[0] == tile.begin[tile.count]) continue;
      if (counted) count_row(call, tile, decided, begin, end, totals);
      fill_rows(call, tile, decided.label_byte, call.labels, call.label_stride, begin, end);
      fill_confidence(call, tile, decided.confidence, begin, end);
    }
  }
  totals.store(call);
  *call.faults = faults;
}

}  // namespace trocar
