// The annealing search on the CPU, bound for Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "anneal.h"
#include "anneal_arrays.h"
#include "anneal_chain.h"
#include "chains_pack.h"

namespace nb = nanobind;

namespace trocar {

void bind_anneal(nb::module_& module) {
  using namespace anneal;
  nb::class_<Rules>(module, "Rules")
      .def(nb::init<>())
      .def_rw("min_plane_gap", &Rules::min_plane_gap)
      .def_rw("no_adjacent_in_plane", &Rules::no_adjacent_in_plane)
      .def_rw("no_row_of_3", &Rules::no_row_of_3)
      .def_rw("no_column_of_4", &Rules::no_column_of_4)
      .def_rw("no_tee", &Rules::no_tee)
      .def_rw("no_square", &Rules::no_square)
      .def_rw("max_needles", &Rules::max_needles);
  nb::class_<Goal>(module, "Goal")
      .def(
          "__init__",
          [](Goal* self, uint32_t mask, int side, float threshold, float target_cc, float weight,
             float hinge) { new (self) Goal{mask, side, threshold, target_cc, weight, hinge}; },
          nb::arg("mask"), nb::arg("side"), nb::arg("threshold"), nb::arg("target_cc"), nb::arg("weight"),
          nb::arg("hinge"));
  nb::class_<Annealer>(module, "Annealer")
      .def(
          "__init__",
          [](Annealer* self, const Matrix& matrix, const Ints& hole, const Ints& plane, int columns, int rows,
             int planes, const Ints& strata, const Floats& point_cc, std::vector<Goal> goals, Rules rules,
             float needle_cost, const Floats& seed_cost, uint64_t seed, uint64_t stream) {
            new (self) Annealer(make_problem(matrix, hole, plane, columns, rows, planes, strata, point_cc,
                                             std::move(goals), rules, needle_cost, seed_cost),
                                seed, stream);
          },
          nb::keep_alive<1, 2>(),  // the chain reads the matrix where it is
          nb::arg("matrix").noconvert(), nb::arg("candidate_hole"), nb::arg("candidate_plane"),
          nb::arg("columns"), nb::arg("rows"), nb::arg("planes"), nb::arg("strata"), nb::arg("point_cc"),
          nb::arg("goals"), nb::arg("rules"), nb::arg("needle_cost"), nb::arg("seed_cost"), nb::arg("seed"),
          nb::arg("stream"))
      .def("set_plan", &Annealer::set_plan, nb::arg("candidates"))
      .def("add_if_better", &Annealer::add_if_better, nb::arg("candidates"))
      .def("add_greedily", &Annealer::add_greedily, nb::call_guard<nb::gil_scoped_release>())
      .def("run", &Annealer::run, nb::arg("moves"), nb::arg("t_start"), nb::arg("t_end"),
           nb::call_guard<nb::gil_scoped_release>())
      .def("cost_of", &Annealer::cost_of, nb::arg("candidates"))
      .def("plan", &Annealer::plan)
      .def("best", &Annealer::best)
      .def("dose", &Annealer::dose)
      .def("drift", &Annealer::drift)
      .def("packed",
           [](const Annealer& self) {
             const chains::Packed packed = chains::pack(self.problem());
             return std::make_pair(nb::bytes(&packed.header, sizeof packed.header),
                                   nb::bytes(packed.tables.data(), packed.tables.size() * 4));
           })
      .def_prop_ro("seeds_cost", &Annealer::seeds_cost)
      .def_prop_ro("cost", &Annealer::cost)
      .def_prop_ro("best_cost", &Annealer::best_cost)
      .def_prop_ro("evaluated", &Annealer::evaluated);
  // The state and the increment of a chain's random numbers before its first move.
  module.def(
      "random_state",
      [](uint64_t seed, uint64_t stream) {
        const Pcg32 random(seed, stream);
        return std::make_pair(random.state, random.increment);
      },
      nb::arg("seed"), nb::arg("stream"));
  // The temperatures of a run, one for every 256 moves.
  module.def(
      "temperatures",
      [](int64_t moves, double t_start, double t_end) {
        std::vector<double> steps;
        for (int64_t move = 0; move < moves; move += kMovesPerTemperature)
          steps.push_back(temperature_at(move, moves, t_start, t_end));
        return steps;
      },
      nb::arg("moves"), nb::arg("t_start"), nb::arg("t_end"));
  module.def(
      "pattern_allows",
      [](nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> used, int column, int row,
         const Rules& rules) {
        return pattern_allows(used.data(), static_cast<int>(used.shape(1)), static_cast<int>(used.shape(0)),
                              column, row, rules);
      },
      nb::arg("used"), nb::arg("column"), nb::arg("row"), nb::arg("rules"));
}

}  // namespace trocar
