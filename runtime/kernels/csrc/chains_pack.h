// A problem as the chains of a GPU read it. Host only.
#pragma once

#include <cstring>
#include <utility>
#include <vector>

#include "anneal_problem.h"
#include "chains.h"

namespace trocar::chains {

struct Packed {
  Header header;
  std::vector<int32_t> tables;
};

inline Packed pack(const anneal::Problem& problem) {
  Packed packed{};
  std::vector<int32_t>& words = packed.tables;
  const auto append = [&words](const auto& values) {
    static_assert(sizeof(values[0]) % 4 == 0);
    const size_t before = words.size();
    words.resize(before + values.size() * sizeof(values[0]) / 4);
    if (!values.empty()) std::memcpy(words.data() + before, values.data(), values.size() * sizeof(values[0]));
  };
  std::vector<TermRow> terms;
  std::vector<int> first_term;  // of each stratum
  for (const anneal::Stratum& s : problem.strata) {
    first_term.push_back(static_cast<int>(terms.size()));
    for (int k = 0; k < s.terms; ++k)
      terms.push_back({s.first_block, s.last_block, s.term[k].threshold, s.term[k].sign, s.point_cc});
  }
  std::vector<GoalRow> goals;
  std::vector<int32_t> shares;
  for (size_t g = 0; g < problem.goals.size(); ++g) {
    const auto first = static_cast<int32_t>(shares.size());
    for (const anneal::Share& share : problem.shares[g])
      shares.push_back(first_term[share.stratum] + share.term);
    goals.push_back({problem.goals[g], first, static_cast<int32_t>(shares.size())});
  }
  packed.header = {problem.needle_cost,
                   problem.rules,
                   problem.candidates,
                   problem.points,
                   problem.columns,
                   problem.rows,
                   problem.planes,
                   static_cast<int32_t>(problem.open_hole.size()),
                   static_cast<int32_t>(terms.size()),
                   static_cast<int32_t>(goals.size()),
                   static_cast<int32_t>(shares.size())};
  append(problem.hole);
  append(problem.plane);
  append(problem.site);
  append(problem.open_hole);
  append(problem.seed_cost);
  append(terms);
  append(goals);
  append(shares);
  return packed;
}

}  // namespace trocar::chains
