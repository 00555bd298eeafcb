// Dose at sampled points, sixteen lanes at a time: adding columns, and counting what each threshold holds.
#pragma once

#include <cstdint>
#include <cstring>

#include "clones.h"

namespace trocar::anneal {

// Sixteen explicit lanes: every instruction set adds in the same order, so that a seed's plan does not hang
// on it.
constexpr int kLanes = 16;
typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(int32_t))));

constexpr int kMaxTerms = 6;     // distinct thresholds of one stratum
constexpr int kMaxColumns = 24;  // columns one move may add or remove

struct Term {
  float threshold;
  float sign;  // +1: the hinge is the dose missing below the threshold; -1: the dose above it
};

struct Stratum {
  int first_block, last_block;  // blocks of kLanes points
  float point_cc;
  int terms;
  Term term[kMaxTerms];
};

struct TermSums {
  float count[kMaxTerms];
  float hinge[kMaxTerms];
};

// Thresholds of one stratum over dose + plus - minus; either column may be the zero column.
template <int K>
inline __attribute__((always_inline)) void sum_terms(const Stratum& s, const float* dose, const float* plus,
                                                     const float* minus, TermSums& out) {
  FloatLanes hinge[K] = {};
  IntLanes count[K] = {};
  for (int b = s.first_block; b < s.last_block; ++b) {
    FloatLanes d, p, m;
    std::memcpy(&d, dose + b * kLanes, sizeof d);
    std::memcpy(&p, plus + b * kLanes, sizeof p);
    std::memcpy(&m, minus + b * kLanes, sizeof m);
    d = (d + p) - m;
    for (int k = 0; k < K; ++k) {
      const FloatLanes over = d - s.term[k].threshold;
      count[k] -= over >= 0.0f;  // a true lane is -1
      const FloatLanes wanting = over * -s.term[k].sign;
      hinge[k] += wanting > 0.0f ? wanting : FloatLanes{};
    }
  }
  for (int k = 0; k < K; ++k) {
    int total = 0;
    float sum = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) {
      total += count[k][lane];
      sum += hinge[k][lane];
    }
    out.count[k] = static_cast<float>(total);
    out.hinge[k] = sum;
  }
}

TROCAR_CLONES static void sum_stratum(const Stratum& s, const float* dose, const float* plus,
                                      const float* minus, TermSums& out) {
  switch (s.terms) {
    case 0:
      break;
    case 1:
      sum_terms<1>(s, dose, plus, minus, out);
      break;
    case 2:
      sum_terms<2>(s, dose, plus, minus, out);
      break;
    case 3:
      sum_terms<3>(s, dose, plus, minus, out);
      break;
    case 4:
      sum_terms<4>(s, dose, plus, minus, out);
      break;
    case 5:
      sum_terms<5>(s, dose, plus, minus, out);
      break;
    default:
      sum_terms<6>(s, dose, plus, minus, out);
      break;
  }
}

TROCAR_CLONES static void add_columns(float* out, const float* base, const float* plus, const float* minus,
                                      int n) {
  for (int i = 0; i < n; ++i) out[i] = (base[i] + plus[i]) - minus[i];
}

}  // namespace trocar::anneal
