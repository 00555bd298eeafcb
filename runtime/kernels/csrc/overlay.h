// Classes painted over a frame: the numeric definition.
#pragma once

#include <cstdint>

#include "hd.h"
#include "work.h"

namespace trocar {

constexpr int kPaletteSize = 256;
constexpr std::int32_t kThickestContour = 16;  // pixels
constexpr std::uint16_t kNotDrawn = 0xffff;    // the weight of a class that is left as it is
constexpr std::uint16_t kOpaque = 256;

// A class's colour in the frame's channel order, and how many 256ths of it stand over the frame.
struct Paint {
  std::uint16_t colour[3];
  std::uint16_t weight;
};

struct Palette {
  Paint paints[kPaletteSize];
};

// What a class does to a byte of the frame, to the nearest: exact at weights of 0 and kOpaque.
struct Blend {
  std::uint16_t keep, add;

  TROCAR_HD std::uint8_t over(std::uint8_t value) const {
    return static_cast<std::uint8_t>(static_cast<std::uint16_t>(value * keep + add) / kOpaque);
  }
};

TROCAR_HD Blend blend_of(const Paint& paint, int channel, bool contour) {
  if (paint.weight == kNotDrawn) return {kOpaque, 0};
  const std::uint16_t weight = contour ? kOpaque : paint.weight;
  return {static_cast<std::uint16_t>(kOpaque - weight),
          static_cast<std::uint16_t>(paint.colour[channel] * weight + kOpaque / 2)};
}

// A pixel lies on its class's contour where the labels within `contour` pixels of it, along rows, columns and
// diagonals and inside the frame, are not all its own: `least` and `most` of them differ.
TROCAR_HD bool on_contour(std::uint8_t least, std::uint8_t most) { return least != most; }

// One call, checked. Strides are in bytes; pixels of a row are adjacent.
struct Overlay {
  std::uint8_t* frame;
  std::int64_t frame_stride;
  const std::uint8_t* labels;
  std::int64_t label_stride;
  std::int32_t height, width;
  std::int32_t contour;  // thickness in pixels, 0 for none
};

// The CPU is done when this returns; a GPU has it in its stream.
void run_overlay(const Overlay& call, const Palette& palette, const Work& work);

}  // namespace trocar
