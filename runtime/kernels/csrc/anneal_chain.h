// One annealing chain on the CPU: incremental dose, the cost of a move, the best plan met.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "anneal.h"
#include "anneal_lanes.h"
#include "anneal_moves.h"
#include "anneal_problem.h"

namespace trocar::anneal {

class Annealer {
 public:
  Annealer(Problem problem, uint64_t seed, uint64_t stream)
      : problem_(std::move(problem)),
        points_(problem_.points),
        candidates_(problem_.candidates),
        needle_cost_(problem_.needle_cost),
        dose_(points_, 0.0f),
        scratch_(points_, 0.0f),
        zero_(points_, 0.0f),
        seeds_(candidates_),
        slot_(candidates_, -1),
        seeds_in_hole_(problem_.holes(), 0),
        used_(problem_.holes(), 0),
        at_{problem_.sites(), problem_.rules,        Pcg32(seed, stream), seeds_.data(),
            slot_.data(),     seeds_in_hole_.data(), used_.data()} {
    cost_ = best_cost_ = full_cost(dose_.data());
  }
  Annealer(const Annealer&) = delete;  // `at_` points into this object's vectors
  Annealer& operator=(const Annealer&) = delete;

  // Starts from these candidates, dropping what the rules forbid (in order); returns what was dropped.
  std::vector<int> set_plan(const std::vector<int>& candidates) {
    while (at_.count) at_.forget(seeds_[at_.count - 1]);
    std::vector<int> dropped;
    for (int c : candidates) {
      require_candidate(c);
      if (at_.may_add(c))
        at_.place(c);
      else
        dropped.push_back(c);
    }
    recompute(dose_.data());
    cost_ = full_cost(dose_.data());
    remember();
    return dropped;
  }

  // Adds these candidates in order, each only if the rules allow it and it lowers the cost; returns how many.
  int add_if_better(const std::vector<int>& candidates) {
    int added = 0;
    for (int c : candidates) {
      require_candidate(c);
      if (slot_[c] >= 0 || !at_.may_add(c)) continue;
      const double cost = cost_with(c);
      if (cost >= cost_) continue;
      keep(c, cost);
      ++added;
    }
    return added;
  }

  // Adds the best legal candidate again and again until none lowers the cost; returns how many.
  int add_greedily() {
    for (int added = 0;; ++added) {
      int best = -1;
      double best_cost = cost_;
      for (int c = 0; c < candidates_; ++c) {
        if (slot_[c] >= 0 || !at_.may_add(c)) continue;
        const double cost = cost_with(c);
        if (cost < best_cost) best = c, best_cost = cost;
      }
      if (best < 0) return added;
      keep(best, best_cost);
    }
  }

  // Evaluates `moves` moves while the temperature falls geometrically; returns how many were accepted.
  int64_t run(int64_t moves, double t_start, double t_end) {
    if (candidates_ == 0) return 0;
    int64_t accepted = 0;
    double temperature = t_start;
    Move move;
    for (int64_t i = 0; i < moves; ++i) {
      if (i % kMovesPerTemperature == 0) temperature = temperature_at(i, moves, t_start, t_end);
      at_.propose(move);
      if (move.added == 0 && move.removed == 0) continue;
      if (try_move(move, temperature)) ++accepted;
    }
    evaluated_ += moves;
    return accepted;
  }

  double cost() const { return cost_; }
  double best_cost() const { return best_cost_; }
  double seeds_cost() const { return at_.seeds_cost; }
  const Problem& problem() const { return problem_; }
  int64_t evaluated() const { return evaluated_; }
  std::vector<int> plan() const { return {seeds_.begin(), seeds_.begin() + at_.count}; }
  std::vector<int> best() const { return best_; }
  std::vector<float> dose() const { return dose_; }

  // The cost of any set of candidates, from scratch and without regard to rules.
  double cost_of(const std::vector<int>& candidates) const {
    std::vector<float> dose(points_, 0.0f);
    std::vector<uint8_t> used(used_.size(), 0);
    for (int c : candidates) {
      require_candidate(c);
      add_columns(dose.data(), dose.data(), column(c), zero_.data(), points_);
      used[problem_.hole[c]] = 1;
    }
    double seeds = 0.0;
    for (int c : candidates) seeds += problem_.seed_cost[c];
    const int needles = static_cast<int>(std::count(used.begin(), used.end(), 1));
    return dose_cost(dose.data(), zero_.data(), zero_.data()) + needle_cost_ * needles + seeds;
  }

  // Largest difference between the incremental dose and a full recompute.
  double drift() {
    recompute(scratch_.data());
    float worst = 0.0f;
    for (int i = 0; i < points_; ++i) worst = std::max(worst, std::fabs(scratch_[i] - dose_[i]));
    return worst;
  }

 private:
  void require_candidate(int c) const {
    if (c < 0 || c >= candidates_) throw std::invalid_argument("no candidate of that number");
  }

  const float* column(int candidate) const {
    return problem_.matrix + static_cast<size_t>(candidate) * points_;
  }

  double dose_cost(const float* dose, const float* plus, const float* minus) const {
    TermSums sums[kMaxStrata];
    const std::vector<Stratum>& strata = problem_.strata;
    for (size_t s = 0; s < strata.size(); ++s) sum_stratum(strata[s], dose, plus, minus, sums[s]);
    double cost = 0.0;
    for (size_t g = 0; g < problem_.goals.size(); ++g) {
      float volume = 0.0f, hinge = 0.0f;
      for (const Share& share : problem_.shares[g]) {
        volume += sums[share.stratum].count[share.term] * strata[share.stratum].point_cc;
        hinge += sums[share.stratum].hinge[share.term] * strata[share.stratum].point_cc;
      }
      cost += goal_cost(problem_.goals[g], volume, hinge);
    }
    return cost;
  }

  double full_cost(const float* dose) const {
    return dose_cost(dose, zero_.data(), zero_.data()) + needle_cost_ * at_.needles + at_.seeds_cost;
  }

  void recompute(float* out) const {
    std::memset(out, 0, sizeof(float) * points_);
    for (int i = 0; i < at_.count; ++i) add_columns(out, out, column(seeds_[i]), zero_.data(), points_);
  }

  double cost_with(int c) const {
    return dose_cost(dose_.data(), column(c), zero_.data()) +
           needle_cost_ * (at_.needles + (used_[problem_.hole[c]] ? 0 : 1)) + at_.seeds_cost +
           problem_.seed_cost[c];
  }

  void keep(int c, double cost) {
    at_.place(c);
    add_columns(dose_.data(), dose_.data(), column(c), zero_.data(), points_);
    cost_ = cost;
    if (cost_ < best_cost_) remember();
  }

  void remember() {
    best_cost_ = cost_;
    best_.assign(seeds_.begin(), seeds_.begin() + at_.count);
  }

  bool try_move(const Move& move, double temperature) {
    const float* base = dose_.data();
    const int pairs = std::max(move.added, move.removed);
    for (int i = 0; i + 1 < pairs; ++i) {
      add_columns(scratch_.data(), base, plus_column(move, i), minus_column(move, i), points_);
      base = scratch_.data();
    }
    const float* plus = plus_column(move, pairs - 1);
    const float* minus = minus_column(move, pairs - 1);
    const double cost = dose_cost(base, plus, minus) + needle_cost_ * at_.needles + at_.seeds_cost;
    if (!passes(cost - cost_, temperature, at_.random)) {
      at_.undo(move);
      return false;
    }
    add_columns(dose_.data(), base, plus, minus, points_);
    if (++applied_ % kMovesPerRecompute == 0) recompute(dose_.data());  // rounding does not pile up
    cost_ = cost;
    if (cost_ < best_cost_) remember();
    return true;
  }

  const float* plus_column(const Move& m, int i) const {
    return i < m.added ? column(m.add[i]) : zero_.data();
  }
  const float* minus_column(const Move& m, int i) const {
    return i < m.removed ? column(m.remove[i]) : zero_.data();
  }

  Problem problem_;
  int points_, candidates_;
  double needle_cost_;
  std::vector<float> dose_, scratch_, zero_;
  std::vector<int32_t> seeds_, slot_;
  std::vector<int32_t> seeds_in_hole_;
  std::vector<uint8_t> used_;
  Occupancy<int32_t> at_;
  std::vector<int> best_;
  int64_t applied_ = 0, evaluated_ = 0;
  double cost_ = 0.0, best_cost_ = 0.0;
};

}  // namespace trocar::anneal
