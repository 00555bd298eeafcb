// Many annealing chains on a GPU, bound for Python: sizes and kinds of the arrays are checked here.
#include <nanobind/nanobind.h>

#include <cstring>
#include <string>

#include "arrays.h"
#include "chains.h"

namespace nb = nanobind;

namespace trocar {

namespace {

using chains::Header;
using chains::State;

Header header_of(const nb::bytes& packed) {
  if (packed.size() != sizeof(Header))
    refuse("header", std::to_string(sizeof(Header)) + " bytes", std::to_string(packed.size()));
  Header header;
  std::memcpy(&header, packed.c_str(), sizeof header);
  const int32_t sizes[] = {header.candidates, header.points, header.columns, header.rows,  header.planes,
                           header.open_holes, header.terms,  header.goals,   header.shares};
  for (const int32_t size : sizes)
    if (size < 0) refuse("header", "sizes of at least 0", std::to_string(size));
  if (header.points % anneal::kLanes)
    refuse("header", "points in multiples of 16", std::to_string(header.points));
  if (header.candidates > chains::kMaxCandidates)
    refuse("header", "at most " + std::to_string(chains::kMaxCandidates) + " candidates",
           std::to_string(header.candidates));
  return header;
}

void advance(const nb::bytes& packed, nb::handle matrix_object, nb::handle tables_object,
             nb::handle dose_object, nb::handle seeds_object, nb::handle best_object, nb::handle state_object,
             nb::handle temperatures_object, int64_t moves, uintptr_t stream) {
  const Header header = header_of(packed);
  if (moves < 0) refuse("moves", "at least 0", std::to_string(moves));
  Arrays arrays(stream);
  const View matrix = arrays.input("matrix", matrix_object), tables = arrays.input("tables", tables_object),
             dose = arrays.output("dose", dose_object), seeds = arrays.output("seeds", seeds_object),
             best = arrays.output("best", best_object), state = arrays.output("state", state_object),
             temperatures = arrays.input("temperatures", temperatures_object);
  matrix.require_dtype<float>();
  matrix.require_shape({header.candidates, header.points}, "candidates x points");
  tables.require_dtype<int32_t>();
  tables.require_shape({chains::tables(header, nullptr).bytes / 4}, "words");
  state.require_dtype<uint64_t>();
  state.require_shape({-1, sizeof(State) / 8}, "chains x words");
  const int64_t count = state.shape(0);
  dose.require_dtype<float>();
  dose.require_shape({count, header.points}, "chains x points");
  for (const View* chosen : {&seeds, &best}) {
    chosen->require_dtype<chains::Index>();
    chosen->require_shape({count, header.candidates}, "chains x candidates");
  }
  temperatures.require_dtype<double>();
  temperatures.require_shape({(moves + anneal::kMovesPerTemperature - 1) / anneal::kMovesPerTemperature},
                             "one for every 256 moves");
  for (const View* array : {&matrix, &tables, &dose, &seeds, &best, &state, &temperatures})
    array->require_dense(0);
  if (matrix.begin() % 16) refuse("matrix", "memory aligned to 16 bytes", "memory that is not");
  for (const View* out : {&dose, &seeds, &best, &state})
    for (const View* in : {&matrix, &tables, &temperatures}) arrays.require_apart(*out, *in);
  const chains::ChainsArgs args{header,
                                static_cast<int>(count),
                                matrix.data<float>(),
                                tables.data<int32_t>(),
                                dose.data<float>(),
                                seeds.data<chains::Index>(),
                                best.data<chains::Index>(),
                                state.data<State>(),
                                temperatures.data<double>(),
                                moves};
  nb::gil_scoped_release release;
  chains::advance(args, arrays.device_id(), stream);
}

}  // namespace

void bind_chains(nb::module_& module) {
  module.def("advance_chains", &advance, nb::arg("header"), nb::arg("matrix"), nb::arg("tables"),
             nb::arg("dose"), nb::arg("seeds"), nb::arg("best"), nb::arg("state"), nb::arg("temperatures"),
             nb::arg("moves"), nb::arg("stream"));
  module.def(
      "resident_chains",
      [](const nb::bytes& packed, int device) { return chains::resident(header_of(packed), device); },
      nb::arg("header"), nb::arg("device"), "How many chains of a problem a device runs at once.");
}

}  // namespace trocar
