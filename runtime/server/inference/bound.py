"""What one plan's requests have in common, set up once: the network bound to buffers that stay.

A small network takes less time than naming its inputs, making arrays and binding them, the more so where
requests come alone and find the caches cold. A plan that comes again keeps its binding: small tensors are
copied into buffers of its own, and shared memory is read and written in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.inference import wire
from trocar.runtime.server.inference.ipc import DeviceView
from trocar.runtime.server.inference.once import (
    Held,
    bytes_of,
    check_elements,
    memoryview_of,
    require_size,
    wants_snapshot,
)
from trocar.runtime.server.inference.plan import Plan, Source, Target
from trocar.runtime.server.inference.staged import Staged
from trocar.runtime.session.base import Array, Buffer, TensorSpec
from trocar.runtime.session.buffers import host_array

# A binding whose own buffers would be larger is not made: to copy such tensors costs more than to bind them.
MAX_OWN_BYTES = 4 << 20


class Bound:
    """A plan's network on buffers of its own and on shared memory; one request at a time.

    Parameters
    ----------
    plan : of a request that was answered before.
    shapes : of every output of its session, as they came then.
    held : the regions it uses.

    Raises
    ------
    InvalidInput
        A region is not there, or does not do for what shall lie in it.
    """

    def __init__(self, plan: Plan, shapes: dict[str, tuple[int, ...]], held: Held) -> None:
        self.held = held
        self.own_bytes = 0
        self._device = plan.loaded.session.device
        # What is copied before a run: from where (None: the next raw tensor), and into which buffer.
        self._copies: list[tuple[Source, memoryview | None, Array, memoryview]] = []
        staged = Staged()
        asked = {target.spec.name: target for target in plan.targets}
        session = plan.loaded.session
        feeds = {source.spec.name: self._feed(source, staged) for source in plan.sources}
        outputs = {
            spec.name: self._output(asked.get(spec.name, Target(spec)), shapes[spec.name], staged)
            for spec in session.outputs
        }
        self._binding = staged.around(session.bind(feeds, outputs))
        self._head = plan.head(tuple(shapes[target.spec.name] for target in plan.targets))
        here = {name: output for name, output in outputs.items() if isinstance(output, np.ndarray)}
        self._tensors: list[memoryview | bytes] = [
            b"" if target.span is not None else bytes_of(here[target.spec.name]) for target in plan.targets
        ]
        self._pieces = wire.reply(self._head, b"", self._tensors)

    def run(self, raw: Sequence[memoryview]) -> None:
        """Answer one request into the buffers.

        Raises
        ------
        InvalidInput
            The request's bytes are not what the network takes.
        DeviceError
            The network failed.
        """
        tensors = iter(raw)
        for source, there, array, place in self._copies:
            view = next(tensors) if there is None else there
            require_size(source, view)
            place[:] = view
            check_elements(source, array)
        self._binding.run()

    def reply(self, request_id: bytes) -> list[bytes | memoryview]:
        """Return the reply in pieces, which hold until the next run."""
        return wire.reply(self._head, request_id, self._tensors) if request_id else self._pieces

    def _feed(self, source: Source, staged: Staged) -> Buffer:
        shared = None if source.span is None else self.held.input(source)
        if isinstance(shared, DeviceView):
            if shared.direct(self._device) and not wants_snapshot(source):
                return shared
            array = self._beside(source.spec, shared)
            staged.input(source, shared, array)
            return array
        if shared is not None and shared.flags.aligned and not wants_snapshot(source):
            return shared
        array = self._own(source.shape, source.spec.dtype)
        there = None if shared is None else memoryview_of(shared)
        self._copies.append((source, there, array, memoryview_of(array)))
        return array

    def _output(self, target: Target, shape: tuple[int, ...], staged: Staged) -> Buffer:
        array = self.held.output(target, shape)
        if array is None:
            return self._own(shape, target.spec.dtype)
        if isinstance(array, DeviceView):
            if array.direct(self._device):
                return array
            own = self._beside(target.spec, array)
            staged.output(array, own)
            return own
        if not array.flags.aligned:
            raise InvalidInput(f"output {target.spec.name}: expected an aligned address, got another")
        return array

    def _beside(self, spec: TensorSpec, view: DeviceView) -> Array:
        """Return a buffer on the host for memory of a GPU that is copied."""
        if self.own_bytes + view.size_bytes > MAX_OWN_BYTES:
            raise InvalidInput(
                f"{spec.name}: expected at most {MAX_OWN_BYTES} bytes to copy, got {view.size_bytes} more"
            )
        return self._own(view.shape, spec.dtype)

    def _own(self, shape: tuple[int, ...], dtype: str) -> Array:
        array = host_array(shape, dtype, self._device)
        self.own_bytes += array.nbytes
        return array
