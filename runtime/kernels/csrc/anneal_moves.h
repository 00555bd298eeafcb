// Where the sources stand, the hard rules, and the moves that are proposed: one chain's discrete half, the
// same on the CPU and in one thread of a GPU's block. It owns no memory.
#pragma once

#include "anneal.h"

namespace trocar::anneal {

constexpr int kMaxColumns = 24;            // columns one move may add or remove
constexpr int kMovesPerTemperature = 256;  // the temperature falls in steps
constexpr int kMovesPerRecompute = 4096;   // accepted moves after which the dose is added up anew

struct Move {
  int add[kMaxColumns];
  int remove[kMaxColumns];
  int added, removed;
};

// The lattice: hole = row * columns + column; `site[hole * planes + plane]` is the candidate there or -1;
// `open_hole` lists the holes that have candidates.
struct Sites {
  int candidates, columns, rows, planes, holes;
  const int32_t *hole, *plane, *site, *open_hole;
  const float* seed_cost;

  TROCAR_HOST_DEVICE int at(int h, int p) const {
    return p < 0 || p >= planes ? -1 : site[static_cast<int64_t>(h) * planes + p];
  }
};

// `Index` is a signed integer that holds a candidate's number: the smaller, the more chains share a GPU.
template <class Index>
struct Occupancy {
  Sites sites;
  Rules rules;
  Pcg32 random;
  Index* seeds;            // [candidates] the first `count` are chosen
  Index* slot;             // [candidates] where in `seeds`, or -1
  int32_t* seeds_in_hole;  // [columns * rows]
  uint8_t* used;           // [columns * rows]
  int count = 0, needles = 0;
  double seeds_cost = 0.0;

  TROCAR_HOST_DEVICE bool seeded(int h, int p) const {
    const int c = sites.at(h, p);
    return c >= 0 && slot[c] >= 0;
  }

  TROCAR_HOST_DEVICE bool may_add(int c) const {
    const int h = sites.hole[c], p = sites.plane[c];
    for (int gap = 0; gap < rules.min_plane_gap; ++gap)
      if (seeded(h, p - gap) || seeded(h, p + gap)) return false;
    const int col = h % sites.columns, row = h / sites.columns;
    if (rules.no_adjacent_in_plane &&
        ((col > 0 && seeded(h - 1, p)) || (col + 1 < sites.columns && seeded(h + 1, p)) ||
         (row > 0 && seeded(h - sites.columns, p)) || (row + 1 < sites.rows && seeded(h + sites.columns, p))))
      return false;
    if (used[h]) return true;
    return needles < rules.max_needles && pattern_allows(used, sites.columns, sites.rows, col, row, rules);
  }

  TROCAR_HOST_DEVICE void place(int c) {
    slot[c] = static_cast<Index>(count);
    seeds[count++] = static_cast<Index>(c);
    seeds_cost += static_cast<double>(sites.seed_cost[c]);
    if (seeds_in_hole[sites.hole[c]]++ == 0) {
      used[sites.hole[c]] = 1;
      ++needles;
    }
  }

  TROCAR_HOST_DEVICE void forget(int c) {
    const Index at = slot[c], last = seeds[count - 1];
    seeds[at] = last;
    slot[last] = at;
    --count;
    slot[c] = -1;
    seeds_cost -= static_cast<double>(sites.seed_cost[c]);
    if (--seeds_in_hole[sites.hole[c]] == 0) {
      used[sites.hole[c]] = 0;
      --needles;
    }
  }

  // Takes up the first `chosen` of `seeds`, where nothing is chosen yet; `cost` is what they add to
  // seeds_cost.
  TROCAR_HOST_DEVICE void reopen(int chosen, double cost) {
    for (count = 0; count < chosen;) place(seeds[count]);
    seeds_cost = cost;
  }

  // Fills `move` and already applies it to the occupancy (not to the dose); an illegal proposal is undone
  // and tried again a few times, so that a move that counts has been evaluated.
  TROCAR_HOST_DEVICE void propose(Move& move) {
    for (int attempt = 0; attempt < 64; ++attempt) {
      move.added = move.removed = 0;
      const int kind = random.below(100);
      bool made;
      if (count == 0 || kind < 20)
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

  TROCAR_HOST_DEVICE void undo(const Move& move) {
    for (int i = move.added - 1; i >= 0; --i) forget(move.add[i]);
    for (int i = move.removed - 1; i >= 0; --i) place(move.remove[i]);
  }

 private:
  TROCAR_HOST_DEVICE bool add(Move& move, int c) {
    if (c < 0 || slot[c] >= 0 || move.added == kMaxColumns || !may_add(c)) return false;
    place(c);
    move.add[move.added++] = c;
    return true;
  }
  TROCAR_HOST_DEVICE bool take(Move& move, int c) {
    if (move.removed == kMaxColumns) return false;
    forget(c);
    move.remove[move.removed++] = c;
    return true;
  }
  TROCAR_HOST_DEVICE int random_seed() { return seeds[random.below(count)]; }

  TROCAR_HOST_DEVICE bool propose_add(Move& move) { return add(move, random.below(sites.candidates)); }
  TROCAR_HOST_DEVICE bool propose_remove(Move& move) { return take(move, random_seed()); }

  TROCAR_HOST_DEVICE bool propose_slide(Move& move) {
    const int c = random_seed(), step = random.below(2) ? 1 : -1;
    const int to = sites.at(sites.hole[c], sites.plane[c] + step * (1 + (random.below(4) == 0)));
    return to >= 0 && slot[to] < 0 && take(move, c) && add(move, to);
  }

  // A seed to a place nearby (three in four) or anywhere.
  TROCAR_HOST_DEVICE bool propose_swap(Move& move) {
    const int c = random_seed();
    int to = -1;
    if (random.below(4) != 0) {
      const int col = sites.hole[c] % sites.columns + random.below(5) - 2;
      const int row = sites.hole[c] / sites.columns + random.below(5) - 2;
      if (col < 0 || row < 0 || col >= sites.columns || row >= sites.rows) return false;
      to = sites.at(row * sites.columns + col, sites.plane[c] + random.below(3) - 1);
    } else {
      to = random.below(sites.candidates);
    }
    return to >= 0 && slot[to] < 0 && take(move, c) && add(move, to);
  }

  TROCAR_HOST_DEVICE bool take_needle(Move& move, int hole, int* planes, int& taken) {
    taken = 0;
    for (int p = 0; p < sites.planes; ++p) {
      if (!seeded(hole, p)) continue;
      if (taken == kMaxColumns) return false;
      planes[taken++] = p;
      if (!take(move, sites.at(hole, p))) return false;
    }
    return true;
  }

  // A whole needle to a neighbouring hole, or all its seeds one plane along.
  TROCAR_HOST_DEVICE bool propose_shift_needle(Move& move) {
    const int from = sites.hole[random_seed()];
    int to = from, step = 0;
    if (random.below(2)) {
      const int col = from % sites.columns + random.below(3) - 1;
      const int row = from / sites.columns + random.below(3) - 1;
      if (col < 0 || row < 0 || col >= sites.columns || row >= sites.rows) return false;
      to = row * sites.columns + col;
      step = random.below(3) - 1;
      if (to == from || used[to]) return false;
    } else {
      step = random.below(2) ? 1 : -1;
    }
    int planes[kMaxColumns], taken = 0;
    if (!take_needle(move, from, planes, taken)) return false;
    for (int i = 0; i < taken; ++i) {
      const int c = sites.at(to, planes[i] + step);
      if (c >= 0) add(move, c);  // a seed that leaves the lattice or breaks a rule is lost with the move
    }
    return move.added > 0 && !same_columns(move);
  }

  TROCAR_HOST_DEVICE static bool same_columns(const Move& move) {
    if (move.added != move.removed) return false;
    for (int i = 0; i < move.added; ++i) {
      bool found = false;
      for (int j = 0; j < move.removed; ++j) found |= move.remove[j] == move.add[i];
      if (!found) return false;
    }
    return true;
  }

  // A new needle, loaded every other plane over a random stretch.
  TROCAR_HOST_DEVICE bool propose_new_needle(Move& move) {
    const int hole = sites.open_hole[random.below(sites.holes)];
    if (used[hole]) return false;
    const int start = random.below(sites.planes), most = 1 + random.below(4);
    for (int i = 0; i < most; ++i) {
      const int c = sites.at(hole, start + i * rules.min_plane_gap);
      if (c >= 0) add(move, c);
    }
    return move.added > 0;
  }

  TROCAR_HOST_DEVICE bool propose_drop_needle(Move& move) {
    int planes[kMaxColumns], taken = 0;
    return take_needle(move, sites.hole[random_seed()], planes, taken);
  }
};

}  // namespace trocar::anneal
