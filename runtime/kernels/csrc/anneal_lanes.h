// Sums over points on the CPU, a vector of sixteen at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "anneal_points.h"
#include "clones.h"

namespace trocar::anneal {

typedef float FloatLanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(int32_t))));

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
    d = exchange(d, p, m);
    for (int k = 0; k < K; ++k) {
      const FloatLanes over = d - s.term[k].threshold;
      count[k] -= over >= 0.0f;  // a true lane is -1
      hinge[k] += hinge_of(over, s.term[k].sign);
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
  for (int i = 0; i < n; ++i) out[i] = exchange(base[i], plus[i], minus[i]);
}

}  // namespace trocar::anneal
