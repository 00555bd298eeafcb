// One annealing chain: proposals, hard rules, incremental dose, the best plan met.
#pragma once

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "anneal.h"
#include "anneal_points.h"

namespace trocar::anneal {

namespace nb = nanobind;

struct Move {
  int add[kMaxColumns];
  int remove[kMaxColumns];
  int added = 0, removed = 0;
};

class Annealer {
 public:
  using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

  // matrix: candidates x padded points, kept alive by the caller's reference held here.
  // hole/plane: where each candidate sits. strata: first point of each stratum and the end, multiples of 16.
  Annealer(Matrix matrix, Ints candidate_hole, Ints candidate_plane, int columns, int rows, int planes,
           Ints strata, Floats point_cc, std::vector<Goal> goals, Rules rules, float needle_cost,
           Floats seed_cost, uint64_t seed, uint64_t stream)
      : matrix_(matrix),
        points_(static_cast<int>(matrix.shape(1))),
        candidates_(static_cast<int>(matrix.shape(0))),
        columns_(columns),
        rows_(rows),
        planes_(planes),
        goals_(std::move(goals)),
        rules_(rules),
        needle_cost_(needle_cost),
        random_(seed, stream) {
    if (points_ % kLanes != 0) throw std::invalid_argument("points must be padded to a multiple of 16");
    if (candidate_hole.shape(0) != matrix.shape(0) || candidate_plane.shape(0) != matrix.shape(0))
      throw std::invalid_argument("candidate_hole and candidate_plane need one entry a candidate");
    if (seed_cost.shape(0) != matrix.shape(0))
      throw std::invalid_argument("seed_cost needs one entry a candidate");
    seed_cost_.assign(seed_cost.data(), seed_cost.data() + candidates_);
    if (strata.shape(0) != point_cc.shape(0) + 1)
      throw std::invalid_argument("strata needs one entry more than point_cc");
    site_.assign(static_cast<size_t>(columns) * rows * planes, -1);
    for (int c = 0; c < candidates_; ++c) {
      const int h = candidate_hole.data()[c], p = candidate_plane.data()[c];
      if (h < 0 || h >= columns * rows || p < 0 || p >= planes)
        throw std::invalid_argument("a candidate lies outside the lattice");
      hole_.push_back(h);
      plane_.push_back(p);
      site_[static_cast<size_t>(h) * planes + p] = c;
      if (holes_.empty() || std::find(holes_.begin(), holes_.end(), h) == holes_.end()) holes_.push_back(h);
    }
    build_strata(strata, point_cc);
    dose_.assign(points_, 0.0f);
    scratch_.assign(points_, 0.0f);
    zero_.assign(points_, 0.0f);
    slot_.assign(candidates_, -1);
    seeds_in_hole_.assign(static_cast<size_t>(columns) * rows, 0);
    used_.assign(static_cast<size_t>(columns) * rows, 0);
    cost_ = best_cost_ = full_cost(dose_.data());
  }

  // Starts from these candidates, dropping what the rules forbid (in order); returns what was dropped.
  std::vector<int> set_plan(const std::vector<int>& candidates) {
    while (!seeds_.empty()) forget(seeds_.back());
    std::vector<int> dropped;
    for (int c : candidates) {
      if (c < 0 || c >= candidates_) throw std::invalid_argument("no candidate of that number");
      if (may_add(c))
        place(c);
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
      if (c < 0 || c >= candidates_) throw std::invalid_argument("no candidate of that number");
      if (slot_[c] >= 0 || !may_add(c)) continue;
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
        if (slot_[c] >= 0 || !may_add(c)) continue;
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
    const double ratio = t_end / t_start;
    double temperature = t_start;
    Move move;
    for (int64_t i = 0; i < moves; ++i) {
      if ((i & 255) == 0) temperature = t_start * std::pow(ratio, static_cast<double>(i) / moves);
      propose(move);
      if (move.added == 0 && move.removed == 0) continue;
      if (try_move(move, temperature)) ++accepted;
    }
    evaluated_ += moves;
    return accepted;
  }

  double cost() const { return cost_; }
  double best_cost() const { return best_cost_; }
  int64_t evaluated() const { return evaluated_; }
  std::vector<int> plan() const { return seeds_; }
  std::vector<int> best() const { return best_; }
  std::vector<float> dose() const { return dose_; }

  // The cost of any set of candidates, from scratch and without regard to rules.
  double cost_of(const std::vector<int>& candidates) const {
    std::vector<float> dose(points_, 0.0f);
    std::vector<uint8_t> used(used_.size(), 0);
    for (int c : candidates) {
      if (c < 0 || c >= candidates_) throw std::invalid_argument("no candidate of that number");
      add_columns(dose.data(), dose.data(), column(c), zero_.data(), points_);
      used[hole_[c]] = 1;
    }
    double seeds = 0.0;
    for (int c : candidates) seeds += seed_cost_[c];
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
  void build_strata(const Ints& strata, const Floats& point_cc) {
    for (size_t s = 0; s < point_cc.shape(0); ++s) {
      const int first = strata.data()[s], last = strata.data()[s + 1];
      if (first % kLanes || last % kLanes || first > last || last > points_)
        throw std::invalid_argument("strata must be ascending multiples of 16 within the points");
      Stratum stratum{first / kLanes, last / kLanes, point_cc.data()[s], 0, {}};
      for (const Goal& goal : goals_)
        if (goal.mask >> s & 1) term_index(stratum, goal);
      strata_.push_back(stratum);
    }
    for (const Goal& goal : goals_) {
      std::vector<std::pair<int, int>> where;
      for (size_t s = 0; s < strata_.size(); ++s)
        if (goal.mask >> s & 1) where.emplace_back(static_cast<int>(s), term_index(strata_[s], goal));
      goal_terms_.push_back(where);
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

  const float* column(int candidate) const {
    return matrix_.data() + static_cast<size_t>(candidate) * points_;
  }

  double dose_cost(const float* dose, const float* plus, const float* minus) const {
    TermSums sums[32];
    for (size_t s = 0; s < strata_.size(); ++s) sum_stratum(strata_[s], dose, plus, minus, sums[s]);
    double cost = 0.0;
    for (size_t g = 0; g < goals_.size(); ++g) {
      float volume = 0.0f, hinge = 0.0f;
      for (const auto& [s, k] : goal_terms_[g]) {
        volume += sums[s].count[k] * strata_[s].point_cc;
        hinge += sums[s].hinge[k] * strata_[s].point_cc;
      }
      cost += goal_cost(goals_[g], volume, hinge);
    }
    return cost;
  }

  double full_cost(const float* dose) const {
    return dose_cost(dose, zero_.data(), zero_.data()) + needle_cost_ * needles_ + seeds_cost_;
  }

  void recompute(float* out) const {
    std::memset(out, 0, sizeof(float) * points_);
    for (int c : seeds_) add_columns(out, out, column(c), zero_.data(), points_);
  }

  int site(int hole, int plane) const {
    return plane < 0 || plane >= planes_ ? -1 : site_[static_cast<size_t>(hole) * planes_ + plane];
  }
  bool seeded(int hole, int plane) const {
    const int c = site(hole, plane);
    return c >= 0 && slot_[c] >= 0;
  }

  bool may_add(int c) const {
    const int h = hole_[c], p = plane_[c];
    for (int gap = 0; gap < rules_.min_plane_gap; ++gap)
      if (seeded(h, p - gap) || seeded(h, p + gap)) return false;
    const int col = h % columns_, row = h / columns_;
    if (rules_.no_adjacent_in_plane &&
        ((col > 0 && seeded(h - 1, p)) || (col + 1 < columns_ && seeded(h + 1, p)) ||
         (row > 0 && seeded(h - columns_, p)) || (row + 1 < rows_ && seeded(h + columns_, p))))
      return false;
    if (used_[h]) return true;
    return needles_ < rules_.max_needles && pattern_allows(used_.data(), columns_, rows_, col, row, rules_);
  }

  double cost_with(int c) const {
    return dose_cost(dose_.data(), column(c), zero_.data()) +
           needle_cost_ * (needles_ + (used_[hole_[c]] ? 0 : 1)) + seeds_cost_ + seed_cost_[c];
  }

  void keep(int c, double cost) {
    place(c);
    add_columns(dose_.data(), dose_.data(), column(c), zero_.data(), points_);
    cost_ = cost;
    if (cost_ < best_cost_) remember();
  }

  void remember() {
    best_cost_ = cost_;
    best_ = seeds_;
  }

  void place(int c) {
    slot_[c] = static_cast<int>(seeds_.size());
    seeds_.push_back(c);
    seeds_cost_ += seed_cost_[c];
    if (seeds_in_hole_[hole_[c]]++ == 0) {
      used_[hole_[c]] = 1;
      ++needles_;
    }
  }

  void forget(int c) {
    const int at = slot_[c], last = seeds_.back();
    seeds_[at] = last;
    slot_[last] = at;
    seeds_.pop_back();
    slot_[c] = -1;
    seeds_cost_ -= seed_cost_[c];
    if (--seeds_in_hole_[hole_[c]] == 0) {
      used_[hole_[c]] = 0;
      --needles_;
    }
  }

  // Fills `move` and already applies it to the occupancy (not to the dose); an illegal proposal is undone
  // and tried again a few times, so that a move that counts has been evaluated.
  void propose(Move& move) {
    for (int attempt = 0; attempt < 64; ++attempt) {
      move.added = move.removed = 0;
      const int kind = random_.below(100);
      bool made;
      if (seeds_.empty() || kind < 20)
        made = propose_add(move);
      else if (kind < 28)
        made = propose_remove(move);
      else if (kind < 55)
        made = propose_slide(move);
      else if (kind < 84)
        made = propose_swap(move);
      else if (kind < 92)
        made = propose_shift_needle(move);
      else if (kind < 96)
        made = propose_new_needle(move);
      else
        made = propose_drop_needle(move);
      if (made) return;
      undo(move);
      move.added = move.removed = 0;
    }
  }

  bool add(Move& move, int c) {
    if (c < 0 || slot_[c] >= 0 || move.added == kMaxColumns || !may_add(c)) return false;
    place(c);
    move.add[move.added++] = c;
    return true;
  }
  bool take(Move& move, int c) {
    if (move.removed == kMaxColumns) return false;
    forget(c);
    move.remove[move.removed++] = c;
    return true;
  }
  int random_seed() { return seeds_[random_.below(static_cast<int>(seeds_.size()))]; }

  bool propose_add(Move& move) { return add(move, random_.below(candidates_)); }
  bool propose_remove(Move& move) { return take(move, random_seed()); }

  bool propose_slide(Move& move) {
    const int c = random_seed(), step = random_.below(2) ? 1 : -1;
    const int to = site(hole_[c], plane_[c] + step * (1 + (random_.below(4) == 0)));
    return to >= 0 && slot_[to] < 0 && take(move, c) && add(move, to);
  }

  // A seed to a place nearby (three in four) or anywhere.
  bool propose_swap(Move& move) {
    const int c = random_seed();
    int to = -1;
    if (random_.below(4) != 0) {
      const int col = hole_[c] % columns_ + random_.below(5) - 2,
                row = hole_[c] / columns_ + random_.below(5) - 2;
      if (col < 0 || row < 0 || col >= columns_ || row >= rows_) return false;
      to = site(row * columns_ + col, plane_[c] + random_.below(3) - 1);
    } else {
      to = random_.below(candidates_);
    }
    return to >= 0 && slot_[to] < 0 && take(move, c) && add(move, to);
  }

  bool take_needle(Move& move, int hole, int* planes, int& count) {
    count = 0;
    for (int p = 0; p < planes_; ++p) {
      if (!seeded(hole, p)) continue;
      if (count == kMaxColumns) return false;
      planes[count++] = p;
      if (!take(move, site(hole, p))) return false;
    }
    return true;
  }

  // A whole needle to a neighbouring hole, or all its seeds one plane along.
  bool propose_shift_needle(Move& move) {
    const int from = hole_[random_seed()];
    int to = from, step = 0;
    if (random_.below(2)) {
      const int col = from % columns_ + random_.below(3) - 1, row = from / columns_ + random_.below(3) - 1;
      if (col < 0 || row < 0 || col >= columns_ || row >= rows_) return false;
      to = row * columns_ + col;
      step = random_.below(3) - 1;
      if (to == from || used_[to]) return false;
    } else {
      step = random_.below(2) ? 1 : -1;
    }
    int planes[kMaxColumns], count = 0;
    if (!take_needle(move, from, planes, count)) return false;
    for (int i = 0; i < count; ++i) {
      const int c = site(to, planes[i] + step);
      if (c >= 0) add(move, c);  // a seed that leaves the lattice or breaks a rule is lost with the move
    }
    return move.added > 0 && !same_columns(move);
  }

  static bool same_columns(const Move& move) {
    if (move.added != move.removed) return false;
    for (int i = 0; i < move.added; ++i)
      if (std::find(move.remove, move.remove + move.removed, move.add[i]) == move.remove + move.removed)
        return false;
    return true;
  }

  // A new needle, loaded every other plane over a random stretch.
  bool propose_new_needle(Move& move) {
    const int hole = holes_[random_.below(static_cast<int>(holes_.size()))];
    if (used_[hole]) return false;
    const int start = random_.below(planes_), count = 1 + random_.below(4);
    for (int i = 0; i < count; ++i) {
      const int c = site(hole, start + i * rules_.min_plane_gap);
      if (c >= 0) add(move, c);
    }
    return move.added > 0;
  }

  bool propose_drop_needle(Move& move) {
    int planes[kMaxColumns], count = 0;
    return take_needle(move, hole_[random_seed()], planes, count);
  }

  void undo(Move& move) {
    for (int i = move.added - 1; i >= 0; --i) forget(move.add[i]);
    for (int i = move.removed - 1; i >= 0; --i) place(move.remove[i]);
  }

  bool try_move(Move& move, double temperature) {
    const float* base = dose_.data();
    const int pairs = std::max(move.added, move.removed);
    for (int i = 0; i + 1 < pairs; ++i) {
      add_columns(scratch_.data(), base, plus_column(move, i), minus_column(move, i), points_);
      base = scratch_.data();
    }
    const float* plus = plus_column(move, pairs - 1);
    const float* minus = minus_column(move, pairs - 1);
    const double cost = dose_cost(base, plus, minus) + needle_cost_ * needles_ + seeds_cost_;
    const double rise = cost - cost_;
    if (rise > 0.0 && random_.unit() >= std::exp(-rise / temperature)) {
      undo(move);
      return false;
    }
    add_columns(dose_.data(), base, plus, minus, points_);
    if ((++applied_ & 4095) == 0) recompute(dose_.data());  // rounding does not pile up
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

  Matrix matrix_;
  int points_, candidates_, columns_, rows_, planes_;
  std::vector<Goal> goals_;
  Rules rules_;
  double needle_cost_;
  std::vector<double> seed_cost_;
  Pcg32 random_;
  std::vector<int> hole_, plane_, site_, holes_;
  std::vector<Stratum> strata_;
  std::vector<std::vector<std::pair<int, int>>> goal_terms_;
  std::vector<float> dose_, scratch_, zero_;
  std::vector<int> seeds_, slot_, best_, seeds_in_hole_;
  std::vector<uint8_t> used_;
  int needles_ = 0;
  int64_t applied_ = 0, evaluated_ = 0;
  double cost_ = 0.0, best_cost_ = 0.0, seeds_cost_ = 0.0;
};

}  // namespace trocar::anneal
