// Dose at sampled points: what each threshold holds of a stratum. Sixteen lanes, explicit: whatever adds
// (a vector unit, threads of a GPU) adds in the same order, so that a seed's plan does not hang on it.
#pragma once

#include "anneal.h"

namespace trocar::anneal {

constexpr int kLanes = 16;
constexpr int kMaxTerms = 6;    // distinct thresholds of one stratum
constexpr int kMaxStrata = 32;  // a goal's mask has a bit a stratum

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

// `Value` is one point's float, or a vector of kLanes of them.
template <class Value>
TROCAR_HD Value exchange(Value dose, Value plus, Value minus) {
  return (dose + plus) - minus;
}

// The hinge of doses that lie `over` the threshold.
template <class Value>
TROCAR_HD Value hinge_of(Value over, float sign) {
  const Value wanting = over * -sign;
  return wanting > 0.0f ? wanting : Value{};
}

}  // namespace trocar::anneal
