// From a network's logits to a frame's label map, confidence, areas and boxes: the numeric definition.
//
// Every step is one float32 operation in a fixed order (contraction is off where this is compiled), so that
// the NumPy reference, the row loops and a GPU agree bit for bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"
#include "hd.h"
#include "work.h"

namespace trocar {

constexpr std::uint32_t kNotFinite = 0x7f800000u;  // the magnitude bits of an infinity; NaNs lie above

TROCAR_HD std::uint32_t magnitude_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits & 0x7fffffffu;
}

TROCAR_HD float two_to_the(std::int32_t n) {
  const std::uint32_t bits = static_cast<std::uint32_t>(n + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// exp(x) for x <= 0; below -87 it stays at exp(-87) (1.6e-38), and so does a NaN. Within 2 ulp.
// Range reduction and polynomial: expf of the Cephes library (S. L. Moshier).
TROCAR_HD float exp_of_negative(float x) {
  constexpr float kToInteger = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x > -87.0f ? x : -87.0f;
  const float n = (x * 1.44269504088896341f + kToInteger) - kToInteger;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * (r * r) + r) + 1.0f;
  return p * two_to_the(static_cast<std::int32_t>(n));
}

TROCAR_HD float sigmoid(float logit) {
  const float magnitude = logit < 0.0f ? -logit : logit;
  const float small = exp_of_negative(-magnitude);
  return (logit < 0.0f ? small : 1.0f) / (1.0f + small);
}

// The strongest channel so far; of equals the first. `magnitude` gathers the largest bits without sign.
struct Strongest {
  float logit;
  std::int32_t channel;
  std::uint32_t magnitude;
};

TROCAR_HD Strongest first_channel(float logit) { return {logit, 0, magnitude_bits(logit)}; }

TROCAR_HD Strongest stronger(Strongest so_far, float logit, std::int32_t channel) {
  const std::uint32_t magnitude = magnitude_bits(logit);
  const bool wins = logit > so_far.logit;
  return {wins ? logit : so_far.logit, wins ? channel : so_far.channel,
          magnitude > so_far.magnitude ? magnitude : so_far.magnitude};
}

// What one network pixel says. A pixel with any logit that is not finite is no class: label 0, confidence 0.
struct Decision {
  std::int32_t label;
  float confidence;
};

TROCAR_HD Decision decide_argmax(Strongest strongest, float exp_sum) {
  const bool finite = strongest.magnitude < kNotFinite;
  return {finite ? strongest.channel : 0, finite ? 1.0f / exp_sum : 0.0f};
}

// Channel c is label c + 1; 0 where even the strongest lies below the threshold.
TROCAR_HD Decision decide_sigmoid(Strongest strongest, float threshold) {
  const bool finite = strongest.magnitude < kNotFinite;
  const float probability = sigmoid(strongest.logit);
  const bool found = finite & (probability >= threshold);
  return {found ? strongest.channel + 1 : 0, finite ? probability : 0.0f};
}

// A probability as it is stored.
TROCAR_HD void store_confidence(std::uint8_t* to, float value) {
  *to = static_cast<std::uint8_t>(static_cast<std::int32_t>(value * 255.0f + 0.5f));
}
TROCAR_HD void store_confidence(Half* to, float value) { *to = float_to_half(value); }
TROCAR_HD void store_confidence(float* to, float value) { *to = value; }

// Nearest neighbour by pixel centres: target pixel t of `targets` shows source floor((t + 1/2) * sources /
// targets).
TROCAR_HD std::int32_t nearest_source(std::int32_t target, std::int32_t sources, std::int32_t targets) {
  return static_cast<std::int32_t>((2 * static_cast<std::int64_t>(target) + 1) * sources /
                                   (2 * static_cast<std::int64_t>(targets)));
}

// The first target that shows `source` or a later one: source s fills targets [first(s), first(s + 1)).
TROCAR_HD std::int32_t first_target(std::int32_t source, std::int32_t sources, std::int32_t targets) {
  return static_cast<std::int32_t>((2 * static_cast<std::int64_t>(source) * targets + sources - 1) /
                                   (2 * static_cast<std::int64_t>(sources)));
}

struct Rectangle {
  std::int32_t top, left, height, width;
};

// A half-open box; empty is 0, 0, 0, 0.
struct Box {
  std::int32_t top, left, bottom, right;
};

// The frame outside the field of view: what belongs to class 0 whatever the network says.
TROCAR_HD std::int32_t outside_area(std::int32_t height, std::int32_t width, Rectangle view) {
  return height * width - view.height * view.width;
}

TROCAR_HD Box outside_box(std::int32_t height, std::int32_t width, Rectangle view) {
  if (outside_area(height, width, view) == 0) return {0, 0, 0, 0};
  if (view.height == 0 || view.width == 0) return {0, 0, height, width};
  const bool above = view.top > 0, below = view.top + view.height < height;
  const bool before = view.left > 0, after = view.left + view.width < width;
  const bool beside = before || after;
  return {above || beside ? 0 : view.top + view.height, above || below || before ? 0 : view.left + view.width,
          below || beside ? height : view.top, above || below || after ? width : view.left};
}

enum class ConfidenceType : std::int32_t { kNone = 0, kByte = 1, kHalf = 2, kFloat = 3 };

// One call, checked. Strides are in elements; columns of logits, labels and confidence are adjacent.
struct Postprocess {
  const void* logits;
  bool half_logits;
  std::int64_t channel_stride, row_stride;
  std::int32_t channels, rows, columns;
  std::uint8_t* labels;
  std::int64_t label_stride;
  void* confidence;
  ConfidenceType confidence_type;
  std::int64_t confidence_stride;
  std::int32_t* areas;   // one a class, or null
  std::int32_t* boxes;   // four a class, or null
  std::int32_t* faults;  // one: network pixels with a logit that is not finite
  std::int32_t height, width;
  Rectangle view;
  bool sigmoid;
  float threshold;

  TROCAR_HD std::int32_t classes() const { return sigmoid ? channels + 1 : channels; }
};

// The CPU is done when this returns; a GPU has it in its stream.
void run_postprocess(const Postprocess& call, const Work& work);

}  // namespace trocar
