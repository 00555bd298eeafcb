// One annealing chain a block. One thread proposes and decides; all of them add dose, and sixteen threads a
// threshold count points in the order of the CPU's sixteen lanes, so that the costs are the CPU's to the bit.
#include "anneal.h"
#include "anneal_moves.h"
#include "anneal_points.h"
#include "chains.h"
#include "cuda_launch.h"

namespace trocar::chains {
namespace {

using anneal::kMovesPerRecompute;
using anneal::kMovesPerTemperature;
using anneal::Move;
using anneal::Occupancy;
using anneal::Pcg32;

constexpr int kBlocksWanted = 8;  // resident on a multiprocessor: bounds the registers of a thread

// What the deciding thread tells the others.
struct Verdict {
  int accepted, recompute, improved, count;
};

struct Block {
  float *dose, *trial, *lane_hinge;
  int32_t* lane_count;
  float *volume, *hinge, *goal_cost;
  int32_t* seeds_in_hole;
  Index *seeds, *slot;
  uint8_t* used;
};

__device__ Block block_of(const Header& h, unsigned char* memory) {
  const Shared at = shared_layout(h);
  return {reinterpret_cast<float*>(memory + at.dose),
          reinterpret_cast<float*>(memory + at.trial),
          reinterpret_cast<float*>(memory + at.lane_hinge),
          reinterpret_cast<int32_t*>(memory + at.lane_count),
          reinterpret_cast<float*>(memory + at.volume),
          reinterpret_cast<float*>(memory + at.hinge),
          reinterpret_cast<float*>(memory + at.goal_cost),
          reinterpret_cast<int32_t*>(memory + at.seeds_in_hole),
          reinterpret_cast<Index*>(memory + at.seeds),
          reinterpret_cast<Index*>(memory + at.slot),
          memory + at.used};
}

// A column of the matrix as quads of points; null is the zero column.
__device__ const float4* quads_of(const ChainsArgs& a, const int* columns, int count, int i) {
  if (i >= count) return nullptr;
  return reinterpret_cast<const float4*>(a.matrix + static_cast<int64_t>(columns[i]) * a.header.points);
}

// out = base + plus - minus. Which columns there are is the same for all threads, so that loads of several
// quads are under way at once.
template <bool kPlus, bool kMinus>
__device__ void exchange_pair(const float4* base, const float4* plus, const float4* minus, float4* out,
                              int quads, int thread) {
#pragma unroll 2
  for (int q = thread; q < quads; q += kThreads) {
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float4 add = kPlus ? __ldg(plus + q) : zero, remove = kMinus ? __ldg(minus + q) : zero;
    const float4 d = base[q];
    out[q] = make_float4(anneal::exchange(d.x, add.x, remove.x), anneal::exchange(d.y, add.y, remove.y),
                         anneal::exchange(d.z, add.z, remove.z), anneal::exchange(d.w, add.w, remove.w));
  }
}

// trial = dose with the move's columns exchanged, pair by pair as on the CPU; a thread keeps to its points.
__device__ void add_move(const ChainsArgs& a, const Block& b, const Move& move, int thread) {
  const int quads = a.header.points / 4, pairs = move.added > move.removed ? move.added : move.removed;
  const float4* base = reinterpret_cast<const float4*>(b.dose);
  float4* const out = reinterpret_cast<float4*>(b.trial);
  for (int i = 0; i < pairs; ++i) {
    const float4* const plus = quads_of(a, move.add, move.added, i);
    const float4* const minus = quads_of(a, move.remove, move.removed, i);
    if (plus && minus)
      exchange_pair<true, true>(base, plus, minus, out, quads, thread);
    else if (plus)
      exchange_pair<true, false>(base, plus, minus, out, quads, thread);
    else
      exchange_pair<false, true>(base, plus, minus, out, quads, thread);
    base = out;
  }
}

// The dose added up anew, in the order of the seeds: rounding does not pile up.
__device__ void recompute(const ChainsArgs& a, const Block& b, int count, int thread) {
  const int points = a.header.points;
  for (int p = thread; p < points; p += kThreads) {
    float d = 0.0f;
    for (int i = 0; i < count; ++i)
      d = anneal::exchange(d, a.matrix[static_cast<int64_t>(b.seeds[i]) * points + p], 0.0f);
    b.dose[p] = d;
  }
}

// One lane of one threshold over the trial dose.
__device__ void sum_lanes(const Header& h, const Tables& t, const Block& b, int thread) {
  for (int item = thread; item < h.terms * kLanes; item += kThreads) {
    const TermRow row = t.term[item / kLanes];
    const int lane = item % kLanes;
    int count = 0;
    float hinge = 0.0f;
#pragma unroll 4
    for (int block = row.first_block; block < row.last_block; ++block) {
      const float over = b.trial[block * kLanes + lane] - row.threshold;
      count += over >= 0.0f;
      hinge += anneal::hinge_of(over, row.sign);
    }
    b.lane_count[item / kLanes * kLaneStride + lane] = count;
    b.lane_hinge[item / kLanes * kLaneStride + lane] = hinge;
  }
}

__device__ void sum_terms(const Header& h, const Tables& t, const Block& b, int thread) {
  for (int k = thread; k < h.terms; k += kThreads) {
    int count = 0;
    float hinge = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) {
      count += b.lane_count[k * kLaneStride + lane];
      hinge += b.lane_hinge[k * kLaneStride + lane];
    }
    b.volume[k] = static_cast<float>(count) * t.term[k].point_cc;
    b.hinge[k] = hinge * t.term[k].point_cc;
  }
}

__device__ void sum_goals(const Header& h, const Tables& t, const Block& b, int thread) {
  for (int g = thread; g < h.goals; g += kThreads) {
    float volume = 0.0f, hinge = 0.0f;
    for (int i = t.goal[g].first_share; i < t.goal[g].last_share; ++i) {
      volume += b.volume[t.share[i]];
      hinge += b.hinge[t.share[i]];
    }
    b.goal_cost[g] = anneal::goal_cost(t.goal[g].goal, volume, hinge);
  }
}

__device__ double cost_of(const Header& h, const Block& b, const Occupancy<Index>& at) {
  double cost = 0.0;
  for (int g = 0; g < h.goals; ++g) cost += b.goal_cost[g];
  return cost + h.needle_cost * at.needles + at.seeds_cost;
}

// Loads the chain; the first thread rebuilds what follows from the seeds.
__device__ void begin(const ChainsArgs& a, const Block& b, const State& state, int64_t chain, int thread) {
  const Header& h = a.header;
  for (int p = thread; p < h.points; p += kThreads) b.dose[p] = a.dose[chain * h.points + p];
  for (int i = thread; i < state.count; i += kThreads) b.seeds[i] = a.seeds[chain * h.candidates + i];
  for (int c = thread; c < h.candidates; c += kThreads) b.slot[c] = -1;
  for (int hole = thread; hole < h.holes(); hole += kThreads) b.seeds_in_hole[hole] = b.used[hole] = 0;
}

__device__ Occupancy<Index> occupancy(const Header& h, const Tables& t, const Block& b, const State& state) {
  Occupancy<Index> at{{h.candidates, h.columns, h.rows, h.planes, h.open_holes, t.hole, t.plane, t.site,
                       t.open_hole, t.seed_cost},
                      h.rules,
                      Pcg32(0, 0),
                      b.seeds,
                      b.slot,
                      b.seeds_in_hole,
                      b.used};
  at.random.state = state.random_state;
  at.random.increment = state.random_increment;
  return at;
}

__global__ void __launch_bounds__(kThreads, kBlocksWanted) advance_chains(ChainsArgs a) {
  TROCAR_DYNAMIC_SHARED(memory);
  __shared__ Move move;
  __shared__ Verdict verdict;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t chain = blockIdx.x;
  const Header& h = a.header;
  const Tables t = tables(h, a.tables);
  Block b = block_of(h, memory);
  State state = a.state[chain];

  begin(a, b, state, chain, thread);
  __syncthreads();
  Occupancy<Index> at = occupancy(h, t, b, state);
  if (thread == 0) at.reopen(state.count, state.seeds_cost);

  for (int64_t i = 0; i < a.moves; ++i) {
    if (thread == 0) at.propose(move);
    __syncthreads();
    if (move.added == 0 && move.removed == 0) {
      __syncthreads();  // before the next proposal overwrites what is read here
      continue;
    }
    add_move(a, b, move, thread);
    __syncthreads();
    sum_lanes(h, t, b, thread);
    __syncthreads();
    sum_terms(h, t, b, thread);
    __syncthreads();
    sum_goals(h, t, b, thread);
    __syncthreads();
    if (thread == 0) {
      const double cost = cost_of(h, b, at);
      const bool accepted =
          anneal::passes(cost - state.cost, a.temperatures[i / kMovesPerTemperature], at.random);
      if (accepted) {
        state.cost = cost;
        verdict = {1, ++state.accepted % kMovesPerRecompute == 0, cost < state.best_cost, at.count};
        if (verdict.improved) state.best_cost = cost, state.best_count = at.count;
      } else {
        verdict = {0, 0, 0, 0};
        at.undo(move);
      }
    }
    __syncthreads();
    if (verdict.accepted) {
      float* const before = b.dose;
      b.dose = b.trial;
      b.trial = before;
      if (verdict.recompute) recompute(a, b, verdict.count, thread);
      if (verdict.improved)
        for (int s = thread; s < verdict.count; s += kThreads) a.best[chain * h.candidates + s] = b.seeds[s];
    }
    __syncthreads();
  }

  for (int p = thread; p < h.points; p += kThreads) a.dose[chain * h.points + p] = b.dose[p];
  if (thread == 0) {
    for (int i = 0; i < at.count; ++i) a.seeds[chain * h.candidates + i] = b.seeds[i];
    state.count = at.count;
    state.seeds_cost = at.seeds_cost;
    state.random_state = at.random.state;
    a.state[chain] = state;
  }
}

}  // namespace

int resident(const Header& header, int device) {
  OnDevice on(device);
  const auto bytes = static_cast<size_t>(shared_layout(header).bytes);
  allow_dynamic_shared(advance_chains, bytes, device);
  return resident_blocks(advance_chains, kThreads, bytes, device);
}

void advance(const ChainsArgs& args, int device, uintptr_t stream) {
  if (args.chains == 0 || args.moves == 0 || args.header.candidates == 0) return;
  OnDevice on(device);
  const auto bytes = static_cast<size_t>(shared_layout(args.header).bytes);
  allow_dynamic_shared(advance_chains, bytes, device);
  launch(advance_chains, dim3(args.chains), dim3(kThreads), bytes, reinterpret_cast<cudaStream_t>(stream),
         args);
}

}  // namespace trocar::chains
