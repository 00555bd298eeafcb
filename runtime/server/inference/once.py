"""One request on arrays of its own: what the first of its kind takes, and what cannot be bound."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.inference import wire
from trocar.runtime.server.inference.ipc import CudaRegion, DeviceView
from trocar.runtime.server.inference.plan import Plan, Source, Target
from trocar.runtime.server.inference.posix import PosixRegion
from trocar.runtime.server.inference.regions import Region, Regions
from trocar.runtime.server.inference.span import Span
from trocar.runtime.server.inference.strings import read_strings, write_strings
from trocar.runtime.session.base import Array, element_type

# A client may change shared memory while it is read. Indices and sizes are read twice by some operators, and
# must not differ the second time; they are integers, or small.
_SNAPSHOT_DTYPES, _SNAPSHOT_BYTES = ("int32", "int64", "bool"), 1 << 16
# Of a raw tensor of this size, its field's number and its length take as many bytes of the message or more.
_MOVED_BYTES, _LENGTH_BYTES = 1 << 20, 4


class Held:
    """The regions that a request uses: each the same one all through."""

    # Memory of a GPU by what it is for. Where it is copied no session sees whether it overlaps.
    _on_device: Mapping[str, DeviceView] = MappingProxyType({})

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._held: dict[str, Region] = {}

    def region(self, name: str) -> Region:
        """Return a region by name."""
        if name not in self._held:
            self._held[name] = self._regions.get(name)
        return self._held[name]

    @property
    def all(self) -> Iterable[Region]:
        """Every region used so far."""
        return self._held.values()

    @property
    def current(self) -> bool:
        """Whether they are what is registered by their names."""
        for name, region in self._held.items():  # noqa: SIM110, each request asks, and `all` takes longer
            if self._regions.find(name) is not region:
                return False
        return True

    def input(self, source: Source) -> Array | DeviceView:
        """Return an input's elements in shared memory, in place."""
        assert source.span is not None
        what = f"input {source.spec.name}"
        view = self.region(source.span.region).view(source.span, source.spec.dtype, source.shape, what)
        if isinstance(view, DeviceView):
            self._on_device = {**self._on_device, what: view}
        return view

    def output(self, target: Target, shape: tuple[int, ...]) -> Array | DeviceView | None:
        """Return where an output lies in shared memory, if it does."""
        span = target.span
        if span is None:
            return None
        what = f"output {target.spec.name}"
        size = int(np.prod(shape, dtype=object)) * element_type(target.spec.dtype).itemsize
        if span.size_bytes < size:
            raise InvalidInput(
                f"{what}: expected {size} bytes of shared memory or more for {target.spec.dtype} "
                f"{list(shape)}, got {span.size_bytes}"
            )
        exact = type(span)(span.region, span.offset, size)
        view = self.region(span.region).view(exact, target.spec.dtype, shape, what)
        if isinstance(view, DeviceView):
            for other, held in self._on_device.items():
                if other != what and view.overlaps(held):
                    raise InvalidInput(f"{what}: expected memory of its own, got some of {other}")
            self._on_device = {**self._on_device, what: view}
        return view

    def text(self, span: Span, what: str) -> Array:
        """Return the bytes of text in shared memory, in place."""
        region = self.region(span.region)
        if isinstance(region, CudaRegion):
            raise InvalidInput(f"{what}: expected BYTES in {PosixRegion.kind}, got {region.kind}")
        return region.view(span, "uint8", (span.size_bytes,), what)


class Once:
    """One request; see `Bound` for those that come again.

    Parameters
    ----------
    plan : what it asks for.
    held : the regions it uses.
    """

    def __init__(self, plan: Plan, held: Held) -> None:
        self.held = held
        self._plan = plan
        self._values: dict[str, Array] = {}

    def run(self, raw: Sequence[memoryview]) -> None:
        """Run the network; outputs for shared memory are written there, by the network where it can."""
        tensors = iter(raw)
        feeds = {source.spec.name: self._feed(source, tensors) for source in self._plan.sources}
        self._values = self._run(feeds)
        self._plan.saw({name: value.shape for name, value in self._values.items()})

    def reply(self, request_id: bytes) -> list[bytes | memoryview]:
        """Return the reply in pieces."""
        values, targets = self._values, self._plan.targets
        head = self._plan.head(tuple(values[target.spec.name].shape for target in targets))
        tensors = [
            b"" if target.span is not None else bytes_of(values[target.spec.name]) for target in targets
        ]
        return wire.reply(head, request_id, tensors)

    def _feed(self, source: Source, raw: Iterator[memoryview]) -> Array:
        """Return an input's array, in place where it may be read there."""
        if source.array is not None:
            return source.array
        dtype = source.spec.dtype
        if dtype == "string":
            return self._strings(source, raw)
        if source.span is not None:
            shared = self.held.input(source)
            if isinstance(shared, DeviceView):
                array = shared.download()
            else:
                array = shared.copy() if wants_snapshot(source) else shared
        else:
            view = next(raw)
            require_size(source, view)
            array = aligned(view, element_type(dtype)).reshape(source.shape)
        if not array.flags.aligned:  # compiled code may take alignment for granted
            array = array.copy()
        check_elements(source, array)
        return array

    def _strings(self, source: Source, raw: Iterator[memoryview]) -> Array:
        what, span = f"input {source.spec.name}", source.span
        if span is None:
            return read_strings(next(raw), source.shape, what)
        return read_strings(self.held.text(span, what).tobytes(), source.shape, what)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        plan, session = self._plan, self._plan.loaded.session
        if not plan.shared:
            return session.run(feeds)
        asked = {target.spec.name: target for target in plan.targets}
        for target in plan.targets:
            if target.spec.dtype == "string" and target.span is not None:
                self.held.text(target.span, f"output {target.spec.name}")
        outputs: dict[str, Array] = {}
        for spec in session.outputs:
            shape = plan.output_shape(spec)
            if shape is None or spec.dtype == "string":
                break
            array = self.held.output(asked.get(spec.name, Target(spec)), shape)
            if isinstance(array, DeviceView):
                continue
            outputs[spec.name] = np.empty(shape, element_type(spec.dtype)) if array is None else array
        if len(outputs) == len(session.outputs) and all(array.flags.aligned for array in outputs.values()):
            session.run_into(feeds, outputs)
            return outputs
        values = session.run(feeds)
        for target in plan.targets:
            value = values[target.spec.name]
            if target.spec.dtype == "string" and target.span is not None:
                self._write_strings(target, write_strings(value))
            elif isinstance(place := self.held.output(target, value.shape), DeviceView):
                place.upload(value)
            elif place is not None:
                np.copyto(place, value)
        return values

    def _write_strings(self, target: Target, data: bytes) -> None:
        span, what = target.span, f"output {target.spec.name}"
        assert span is not None
        if len(data) > span.size_bytes:
            raise InvalidInput(
                f"{what}: expected {len(data)} bytes of shared memory or more, got {span.size_bytes}"
            )
        shared = self.held.text(span, what)
        shared[: len(data)] = np.frombuffer(data, np.uint8)


def wants_snapshot(source: Source) -> bool:
    """Whether an input in shared memory is copied before it is used."""
    return source.spec.dtype in _SNAPSHOT_DTYPES or source.size_bytes <= _SNAPSHOT_BYTES


def require_size(source: Source, view: memoryview) -> None:
    """Refuse a raw tensor that is not as long as its shape says."""
    if len(view) != source.size_bytes:
        raise InvalidInput(
            f"input {source.spec.name}: expected {source.size_bytes} bytes in raw_input_contents for "
            f"{source.spec.dtype} {list(source.shape)}, got {len(view)}"
        )


def check_elements(source: Source, array: Array) -> None:
    """Refuse bytes that are no elements of their datatype."""
    if source.spec.dtype == "bool" and array.view(np.uint8).max() > 1:
        raise InvalidInput(f"input {source.spec.name}: expected BOOL as bytes of 0 and 1, got others")


def aligned(view: memoryview, dtype: np.dtype[Any]) -> Array:
    """Return a raw tensor at an address that compiled code may take for granted.

    A large one is moved by a few bytes within its message, over the length before it, which has been read. A
    copy would need as much memory again, for as long as the network runs.
    """
    array = np.frombuffer(view, dtype)
    if array.flags.aligned:
        return array
    message, begin = view.obj, array.ctypes.data
    shift = begin % dtype.alignment
    if array.nbytes < _MOVED_BYTES or shift > _LENGTH_BYTES or not isinstance(message, bytes):
        return array.copy()
    ctypes.memmove(begin - shift, begin, array.nbytes)
    offset = begin - shift - np.frombuffer(message, np.uint8).ctypes.data
    return np.frombuffer(message, dtype, array.size, offset)


def memoryview_of(array: Array) -> memoryview:
    """Return an array's bytes, in place where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def bytes_of(array: Array) -> memoryview | bytes:
    """Return an array's elements as they travel raw."""
    return write_strings(array) if array.dtype == object else memoryview_of(array)
