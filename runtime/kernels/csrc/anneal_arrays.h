// Python's arrays as the search takes them, for both modules.
#pragma once

#include <nanobind/ndarray.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "anneal_problem.h"

namespace trocar::anneal {

namespace nb = nanobind;

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// matrix: candidates x padded points; the caller keeps it alive as long as the problem. hole/plane: where
// each candidate sits. starts: first point of each stratum and the end, multiples of 16.
inline Problem make_problem(const Matrix& matrix, const Ints& hole, const Ints& plane, int columns, int rows,
                            int planes, const Ints& starts, const Floats& point_cc, std::vector<Goal> goals,
                            const Rules& rules, float needle_cost, const Floats& seed_cost) {
  if (hole.shape(0) != matrix.shape(0) || plane.shape(0) != matrix.shape(0))
    throw std::invalid_argument("candidate_hole and candidate_plane need one entry a candidate");
  if (seed_cost.shape(0) != matrix.shape(0))
    throw std::invalid_argument("seed_cost needs one entry a candidate");
  if (starts.shape(0) != point_cc.shape(0) + 1)
    throw std::invalid_argument("strata needs one entry more than point_cc");
  const ProblemArrays arrays{matrix.data(),
                             static_cast<int>(matrix.shape(0)),
                             static_cast<int>(matrix.shape(1)),
                             hole.data(),
                             plane.data(),
                             columns,
                             rows,
                             planes,
                             starts.data(),
                             point_cc.data(),
                             static_cast<int>(point_cc.shape(0)),
                             seed_cost.data()};
  return Problem(arrays, std::move(goals), rules, needle_cost);
}

}  // namespace trocar::anneal
