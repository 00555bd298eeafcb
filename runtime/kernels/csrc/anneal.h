// Simulated annealing of point sources on a lattice of holes x planes: the definitions that the CPU search
// and the GPU search share, so that a seed and a number of moves are the same plan on both. Doses are in
// units of the prescription. Both are compiled without fused multiply-add.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.h"

// As TROCAR_HD, where the compiler decides what to inline.
#if defined(__CUDACC__)
#define TROCAR_HOST_DEVICE __host__ __device__
#else
#define TROCAR_HOST_DEVICE
#endif

namespace trocar::anneal {

// PCG-XSH-RR 64/32 (O'Neill 2014): small, seedable, the same on every machine.
struct Pcg32 {
  uint64_t state = 0;
  uint64_t increment = 1;

  TROCAR_HOST_DEVICE Pcg32(uint64_t seed, uint64_t stream) : increment((stream << 1) | 1) {
    next();
    state += seed;
    next();
  }
  TROCAR_HOST_DEVICE uint32_t next() {
    const uint64_t old = state;
    state = old * 6364136223846793005ULL + increment;
    const uint32_t shifted = static_cast<uint32_t>(((old >> 18) ^ old) >> 27);
    const uint32_t turn = static_cast<uint32_t>(old >> 59);
    return (shifted >> turn) | (shifted << ((32 - turn) & 31));
  }
  // Uniform in [0, count); the bias of the multiply-shift is below 2^-20 for counts in use.
  TROCAR_HOST_DEVICE int below(int count) {
    return static_cast<int>((static_cast<uint64_t>(next()) * static_cast<uint64_t>(count)) >> 32);
  }
  TROCAR_HOST_DEVICE float unit() { return static_cast<float>(next() >> 8) * (1.0f / 16777216.0f); }
};

// The hard rules. A spacing of n planes means seeds of one needle at least n planes apart.
struct Rules {
  int min_plane_gap = 2;
  bool no_adjacent_in_plane = true;
  bool no_row_of_3 = true;
  bool no_column_of_4 = true;
  bool no_tee = true;
  bool no_square = true;
  int max_needles = 0;
};

// Whether hole (c, r) may join the used holes without making a forbidden pattern: three in a row,
// four in a column, a T, or a 2 x 2 block. `used` is rows x columns, one byte a hole.
TROCAR_HOST_DEVICE inline bool pattern_allows(const uint8_t* used, int columns, int rows, int c, int r,
                                              const Rules& rules) {
  const auto at = [&](int dc, int dr) {
    const int x = c + dc, y = r + dr;
    return x >= 0 && y >= 0 && x < columns && y < rows && used[y * columns + x] != 0;
  };
  const bool left = at(-1, 0), right = at(1, 0), up = at(0, -1), down = at(0, 1);
  if (rules.no_row_of_3 && ((left && right) || (left && at(-2, 0)) || (right && at(2, 0)))) return false;
  if (rules.no_column_of_4) {
    int above = 0, below = 0;
    while (above < 3 && at(0, -above - 1)) ++above;
    while (below < 3 && at(0, below + 1)) ++below;
    if (above + below >= 3) return false;
  }
  if (rules.no_tee) {
    if ((up && down) && (left || right)) return false;  // this hole is the middle of the bar
    if (left && at(-1, -1) && at(-1, 1)) return false;  // this hole is the stem
    if (right && at(1, -1) && at(1, 1)) return false;
    // This hole is an end of the bar; the middle has a stem.
    if (up && at(0, -2) && (at(-1, -1) || at(1, -1))) return false;
    if (down && at(0, 2) && (at(-1, 1) || at(1, 1))) return false;
    // The same T lying on its side, whose bar is a row.
    if ((left && right) && (up || down)) return false;
    if (up && at(-1, -1) && at(1, -1)) return false;
    if (down && at(-1, 1) && at(1, 1)) return false;
    if (left && at(-2, 0) && (at(-1, -1) || at(-1, 1))) return false;
    if (right && at(2, 0) && (at(1, -1) || at(1, 1))) return false;
  }
  if (rules.no_square) {
    if (up && left && at(-1, -1)) return false;
    if (up && right && at(1, -1)) return false;
    if (down && left && at(-1, 1)) return false;
    if (down && right && at(1, 1)) return false;
  }
  return true;
}

// One wish: at least (side +1) or at most (side -1) `target_cc` of the strata in `mask` gets `threshold`.
// A miss costs `weight` per cc; each cc on the wrong side costs `hinge` per unit of dose that it lies off.
struct Goal {
  uint32_t mask = 0;
  int side = 1;
  float threshold = 1.0f;
  float target_cc = 0.0f;
  float weight = 1.0f;
  float hinge = 0.0f;
};

TROCAR_HOST_DEVICE inline float goal_cost(const Goal& goal, float volume_cc, float hinge_sum) {
  const float miss = goal.side > 0 ? goal.target_cc - volume_cc : volume_cc - goal.target_cc;
  return (miss > 0.0f ? goal.weight * miss : 0.0f) + goal.hinge * hinge_sum;
}

// exp(x) for x <= 0, within 1 ulp (the rational form of fdlibm's e_exp.c): the libraries of two devices
// need not round alike, and one move decided otherwise makes another plan.
TROCAR_HOST_DEVICE inline double exp_not_positive(double x) {
  if (!(x > -700.0)) return 0.0;
  const int whole = static_cast<int>(x * 1.44269504088896338700e+00 - 0.5);
  const double high = x - whole * 6.93147180369123816490e-01, low = whole * 1.90821492927058770002e-10;
  const double r = high - low, q = r * r;
  const double c = r - q * (1.66666666666666019037e-01 +
                            q * (-2.77777777770155933842e-03 +
                                 q * (6.61375632143793436117e-05 +
                                      q * (-1.65339022054652515390e-06 + q * 4.13813679705723846039e-08))));
  const double mantissa = 1.0 - ((low - (r * c) / (2.0 - c)) - high);
  const int64_t bits = static_cast<int64_t>(whole + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return mantissa * power;
}

// Metropolis: a fall always passes, a rise with probability exp(-rise / temperature). A rise draws once.
TROCAR_HOST_DEVICE inline bool passes(double rise, double temperature, Pcg32& random) {
  return !(rise > 0.0) || random.unit() < exp_not_positive(-rise / temperature);
}

}  // namespace trocar::anneal
