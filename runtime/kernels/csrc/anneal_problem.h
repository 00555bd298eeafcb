// What is searched: sites, strata, goals and rules, checked and in the form that chains read. Host only.
#pragma once

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

#include "anneal.h"
#include "anneal_moves.h"
#include "anneal_points.h"

namespace trocar::anneal {

// A goal's share of one stratum: which of the stratum's terms it reads.
struct Share {
  int stratum, term;
};

// The arrays as they came; their owner keeps them alive while a Problem is made of them.
struct ProblemArrays {
  const float* matrix;  // candidates x points
  int candidates, points;
  const int32_t *hole, *plane;  // [candidates]
  int columns, rows, planes;
  const int32_t* starts;  // [strata + 1] multiples of 16
  const float* point_cc;  // [strata]
  int strata;
  const float* seed_cost;  // [candidates]
};

// The temperature of a run of `moves` moves at its `move`th. The host alone works it out, for both devices.
inline double temperature_at(int64_t move, int64_t moves, double t_start, double t_end) {
  return t_start * std::pow(t_end / t_start, static_cast<double>(move) / moves);
}

// All but the matrix is copied.
struct Problem {
  const float* matrix;
  int candidates, points, columns, rows, planes;
  std::vector<int32_t> hole, plane, site, open_hole;
  std::vector<float> seed_cost;
  std::vector<Stratum> strata;
  std::vector<Goal> goals;
  std::vector<std::vector<Share>> shares;  // of each goal
  Rules rules;
  double needle_cost;

  Problem(const ProblemArrays& in, std::vector<Goal> wishes, const Rules& hard, float cost_of_needle)
      : matrix(in.matrix),
        candidates(in.candidates),
        points(in.points),
        columns(in.columns),
        rows(in.rows),
        planes(in.planes),
        hole(in.hole, in.hole + in.candidates),
        plane(in.plane, in.plane + in.candidates),
        seed_cost(in.seed_cost, in.seed_cost + in.candidates),
        goals(std::move(wishes)),
        rules(hard),
        needle_cost(cost_of_needle) {
    if (points % kLanes != 0) throw std::invalid_argument("points must be padded to a multiple of 16");
    if (in.strata > kMaxStrata) throw std::invalid_argument("expected at most 32 strata");
    place_candidates();
    build_strata(in);
  }

  int holes() const { return columns * rows; }
  Sites sites() const {
    return {candidates,  columns,      rows,        planes,           static_cast<int>(open_hole.size()),
            hole.data(), plane.data(), site.data(), open_hole.data(), seed_cost.data()};
  }

 private:
  void place_candidates() {
    site.assign(static_cast<size_t>(holes()) * planes, -1);
    for (int c = 0; c < candidates; ++c) {
      if (hole[c] < 0 || hole[c] >= holes() || plane[c] < 0 || plane[c] >= planes)
        throw std::invalid_argument("a candidate lies outside the lattice");
      site[static_cast<size_t>(hole[c]) * planes + plane[c]] = c;
      if (std::find(open_hole.begin(), open_hole.end(), hole[c]) == open_hole.end())
        open_hole.push_back(hole[c]);
    }
  }

  void build_strata(const ProblemArrays& in) {
    for (int s = 0; s < in.strata; ++s) {
      const int first = in.starts[s], last = in.starts[s + 1];
      if (first < 0 || first % kLanes || last % kLanes || first > last || last > points)
        throw std::invalid_argument("strata must be ascending multiples of 16 within the points");
      Stratum stratum{first / kLanes, last / kLanes, in.point_cc[s], 0, {}};
      for (const Goal& goal : goals)
        if (goal.mask >> s & 1) term_index(stratum, goal);
      strata.push_back(stratum);
    }
    for (const Goal& goal : goals) {
      shares.emplace_back();
      for (int s = 0; s < in.strata; ++s)
        if (goal.mask >> s & 1) shares.back().push_back({s, term_index(strata[s], goal)});
    }
  }

  static int term_index(Stratum& stratum, const Goal& goal) {
    const float sign = goal.side > 0 ? 1.0f : -1.0f;
    for (int k = 0; k < stratum.terms; ++k)
      if (stratum.term[k].threshold == goal.threshold && stratum.term[k].sign == sign) return k;
    if (stratum.terms == kMaxTerms) throw std::invalid_argument("more than 6 thresholds on one structure");
    stratum.term[stratum.terms] = {goal.threshold, sign};
    return stratum.terms++;
  }
};

}  // namespace trocar::anneal
