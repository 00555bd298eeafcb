"""Copies between a GPU's memory and the host beside a run: of tensors that no network reaches there."""

from __future__ import annotations

from trocar.runtime.server.inference.ipc import DeviceView
from trocar.runtime.server.inference.once import check_elements
from trocar.runtime.server.inference.plan import Source
from trocar.runtime.session.base import Array, Binding


class Staged:
    """A binding to buffers of the host that stand for memory of a GPU."""

    def __init__(self) -> None:
        self._before: list[tuple[Source, DeviceView, Array]] = []
        self._after: list[tuple[DeviceView, Array]] = []
        self._binding: Binding | None = None

    def input(self, source: Source, view: DeviceView, array: Array) -> None:
        """Have an array filled before each run."""
        self._before.append((source, view, array))

    def output(self, view: DeviceView, array: Array) -> None:
        """Have an array copied after each run."""
        self._after.append((view, array))

    def around(self, binding: Binding) -> Binding:
        """Return the binding with these copies; itself where there are none."""
        if not self._before and not self._after:
            return binding
        self._binding = binding
        return self

    def run(self) -> None:
        """Run once; see `Binding.run`."""
        assert self._binding is not None
        for source, view, array in self._before:
            view.read_into(array)
            check_elements(source, array)
        self._binding.run()
        for view, array in self._after:
            view.upload(array)
