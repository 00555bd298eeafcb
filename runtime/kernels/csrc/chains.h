// Many annealing chains at once, one a block of threads: what a launch reads and writes. The numbers are
// those of the CPU's chain (anneal_chain.h): chain i and a CPU chain of the same seed and stream are the same
// plan.
#pragma once

#include <cstdint>

#include "anneal.h"
#include "anneal_moves.h"
#include "anneal_points.h"

namespace trocar::chains {

using anneal::Goal;
using anneal::kLanes;
using anneal::Rules;
using anneal::Sites;

using Index = int16_t;  // a candidate's number, to keep a chain small
constexpr int kMaxCandidates = 32767;
constexpr int kThreads = 128;
constexpr int kLaneStride =
    kLanes + 1;  // keeps threads that add the lanes of their term off each other's bank

// One threshold over one stratum.
struct TermRow {
  int32_t first_block, last_block;
  float threshold, sign, point_cc;
};

// Goal g reads the terms `share[first_share..last_share)`, in this order.
struct GoalRow {
  Goal goal;
  int32_t first_share, last_share;
};

// Sizes of a problem, passed to the kernel by value; its tables lie in one array, in the order of `tables()`.
struct Header {
  double needle_cost;
  Rules rules;
  int32_t candidates, points, columns, rows, planes, open_holes, terms, goals, shares;

  TROCAR_HOST_DEVICE int holes() const { return columns * rows; }
};

// The tables of a problem: 4-byte words.
struct Tables {
  const int32_t *hole, *plane;  // [candidates]
  const int32_t* site;          // [columns * rows * planes]
  const int32_t* open_hole;     // [open_holes]
  const float* seed_cost;       // [candidates]
  const TermRow* term;          // [terms]
  const GoalRow* goal;          // [goals]
  const int32_t* share;         // [shares]
  int64_t bytes;
};

TROCAR_HOST_DEVICE inline Tables tables(const Header& h, const void* memory) {
  const int32_t* word = static_cast<const int32_t*>(memory);
  Tables t{};
  t.hole = word;
  t.plane = t.hole + h.candidates;
  t.site = t.plane + h.candidates;
  t.open_hole = t.site + static_cast<int64_t>(h.holes()) * h.planes;
  t.seed_cost = reinterpret_cast<const float*>(t.open_hole + h.open_holes);
  t.term = reinterpret_cast<const TermRow*>(t.seed_cost + h.candidates);
  t.goal = reinterpret_cast<const GoalRow*>(t.term + h.terms);
  t.share = reinterpret_cast<const int32_t*>(t.goal + h.goals);
  t.bytes = 4 * (t.share + h.shares - word);
  return t;
}

// What a chain keeps between launches besides its seeds, its dose and its best plan.
struct State {
  uint64_t random_state, random_increment;
  double cost, best_cost, seeds_cost;
  int64_t accepted;
  int32_t count, best_count;
};
static_assert(sizeof(State) == 56, "runtime/kernels/anneal.py has the same fields");

struct ChainsArgs {
  Header header;
  int chains;
  const float* matrix;         // [candidates, points]
  const void* tables;          // as tables() says
  float* dose;                 // [chains, points]
  Index *seeds, *best;         // [chains, candidates]; the first `count`, `best_count` count
  State* state;                // [chains]
  const double* temperatures;  // one for each kMovesPerTemperature moves
  int64_t moves;
};

// Bytes of shared memory that one chain's block takes, and where each part begins.
struct Shared {
  int64_t dose, trial, lane_hinge, lane_count, volume, hinge, goal_cost, seeds_in_hole, seeds, slot, used;
  int64_t bytes;
};

TROCAR_HOST_DEVICE inline Shared shared_layout(const Header& h) {
  Shared s{};
  s.dose = 0;
  s.trial = s.dose + 4LL * h.points;
  s.lane_hinge = s.trial + 4LL * h.points;
  s.lane_count = s.lane_hinge + 4LL * kLaneStride * h.terms;
  s.volume = s.lane_count + 4LL * kLaneStride * h.terms;
  s.hinge = s.volume + 4LL * h.terms;
  s.goal_cost = s.hinge + 4LL * h.terms;
  s.seeds_in_hole = s.goal_cost + 4LL * h.goals;
  s.seeds = s.seeds_in_hole + 4LL * h.holes();
  s.slot = s.seeds + 2LL * h.candidates;
  s.used = s.slot + 2LL * h.candidates;
  s.bytes = s.used + h.holes();
  return s;
}

// How many chains of a problem a device runs at once.
int resident(const Header& header, int device);

// Advances every chain by `moves` moves, in the stream; `device` is the arrays'.
void advance(const ChainsArgs& args, int device, uintptr_t stream);

}  // namespace trocar::chains
