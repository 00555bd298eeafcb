// What a process does where it has no memory left to do it in Python.
#include <nanobind/nanobind.h>
#include <unistd.h>

namespace nb = nanobind;

namespace trocar {
namespace {

// A new thread without memory for its first frame raises MemoryError there, where a hook in Python could
// not run either, and whoever started it waits for ever (CPython's Thread.start). Its type is the first
// field of what a hook is given, which is taken without an allocation.
void end_without_memory(nb::handle raised) {
  nb::object type = nb::steal(PySequence_GetItem(raised.ptr(), 0));
  if (type.is(nb::handle(PyExc_MemoryError))) _exit(1);
  nb::module_::import_("sys").attr("__unraisablehook__")(raised);
}

}  // namespace

void bind_memory(nb::module_& module) {
  module.def("end_without_memory", &end_without_memory, nb::arg("raised"),
             nb::sig("def end_without_memory(raised: object, /) -> None"),
             "A `sys.unraisablehook`: ends the process where a thread had no memory to begin.");
}

}  // namespace trocar
