"""What a request asks for, read and checked once: the plan of every request with the same head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.errors import InvalidInput, Unimplemented
from trocar.runtime.server.inference.datatypes import CONTENTS, NAMES, require_tensor
from trocar.runtime.server.inference.models import Loaded, Models
from trocar.runtime.server.inference.span import Span
from trocar.runtime.server.inference.strings import texts
from trocar.runtime.server.scheduler import Priority
from trocar.runtime.session.base import Array, TensorSpec, element_type
from trocar.runtime.session.batching import BatchingSession

if TYPE_CHECKING:
    from trocar.runtime.server.inference.bound import Bound

_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True, slots=True)
class Source:
    """An input: raw bytes of the request, unless there is a span or an array."""

    spec: TensorSpec
    shape: tuple[int, ...]
    size_bytes: int
    span: Span | None = None
    array: Array | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An output that was asked for, and where it goes."""

    spec: TensorSpec
    span: Span | None = None


@dataclass(slots=True, eq=False)
class Plan:
    """A request but for its raw tensors and its id.

    Parameters
    ----------
    version : as asked for, which may be empty.
    raw_count : how many raw tensors there have to be.
    timeout_ns : how long the request may wait to be run; None as long as its deadline.
    priority : the class it waits in.
    heads : encoded replies by the outputs' shapes.
    shapes : of every output of the session, once a run has shown that they follow from the inputs'.
    own_bytes : what a binding would hold beside shared memory, then.
    bindable : whether a binding may be worth a try.
    says_final : whether the reply says that no other follows, as none ever does.
    idle : bindings that wait for a request.
    """

    loaded: Loaded
    version: str
    sources: tuple[Source, ...]
    targets: tuple[Target, ...]
    raw_count: int
    timeout_ns: int | None
    priority: Priority = Priority.INTERACTIVE
    says_final: bool = False
    heads: dict[tuple[tuple[int, ...], ...], bytes] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] | None = None
    own_bytes: int = 0
    bindable: bool = True
    idle: list[Bound] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether an output goes to shared memory."""
        return any(target.span is not None for target in self.targets)

    def output_shape(self, spec: TensorSpec) -> tuple[int, ...] | None:
        """Return an output's shape, where the inputs' shapes say it."""
        sizes = {
            axis: size
            for source in self.sources
            for axis, size in zip(source.spec.shape, source.shape, strict=True)
            if isinstance(axis, str)
        }
        shape = [
            axis if isinstance(axis, int) else sizes.get(axis) for axis in spec.shape if axis is not None
        ]
        known = [size for size in shape if size is not None]
        return tuple(known) if len(known) == len(spec.shape) else None

    def saw(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Take note of the outputs' shapes after a run: declared sizes may be wrong, or no sizes."""
        specs = self.loaded.session.outputs
        if not self.bindable or any(self.output_shape(spec) != shapes[spec.name] for spec in specs):
            return
        if any(spec.dtype == "string" for spec in (*self.loaded.session.inputs, *specs)):
            return
        if isinstance(self.loaded.session, BatchingSession):  # bound, a request would run alone
            return
        shared = {target.spec.name for target in self.targets if target.span is not None}
        inputs = sum(source.size_bytes for source in self.sources if source.span is None)
        outputs = sum(
            int(np.prod(shapes[spec.name], dtype=np.int64)) * element_type(spec.dtype).itemsize
            for spec in specs
            if spec.name not in shared
        )
        self.own_bytes, self.shapes = inputs + outputs, shapes

    def head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        """Return all of a reply but its id and tensors."""
        if (known := self.heads.get(shapes)) is not None:
            return known
        reply = pb.ModelInferResponse(model_name=self.loaded.name, model_version=self.loaded.version)
        if self.says_final:
            reply.parameters["triton_final_response"].bool_param = True
        for target, shape in zip(self.targets, shapes, strict=True):
            tensor = reply.outputs.add(name=target.spec.name, datatype=NAMES[target.spec.dtype], shape=shape)
            if target.span is not None:
                size = int(np.prod(shape, dtype=np.int64)) * element_type(target.spec.dtype).itemsize
                if target.spec.dtype == "string":
                    size = target.span.size_bytes
                tensor.parameters[_REGION].string_param = target.span.region
                tensor.parameters[_SIZE].int64_param = size
                if target.span.offset:
                    tensor.parameters[_OFFSET].int64_param = target.span.offset
        encoded: bytes = reply.SerializeToString()
        if len(self.heads) < 64:
            self.heads[shapes] = encoded
        return encoded


def read(head: bytes, models: Models) -> Plan:
    """Read a request's head.

    Raises
    ------
    TrocarError
        It is no ModelInferRequest, its model is not there, or something in it is not what the model takes.
    """
    try:
        request = pb.ModelInferRequest.FromString(head)
    except DecodeError as error:
        raise InvalidInput(
            "expected the protobuf message ModelInferRequest, got bytes that do not parse as it"
        ) from error
    loaded = models.get(request.model_name, request.model_version)
    timeout_ns, priority, says_final = _request_parameters(request.parameters)
    specs = {spec.name: spec for spec in loaded.session.inputs}
    names = [tensor.name for tensor in request.inputs]
    if len(names) != len(specs) or set(names) != set(specs):
        raise InvalidInput(f"expected inputs {', '.join(specs)}, got {_listed(names)}")
    sources = tuple(_source(specs[tensor.name], tensor) for tensor in request.inputs)
    raw_count = sum(source.span is None and source.array is None for source in sources)
    return Plan(
        loaded=loaded,
        version=request.model_version,
        sources=sources,
        targets=_targets(loaded.session.outputs, request.outputs),
        raw_count=raw_count,
        timeout_ns=timeout_ns,
        priority=priority,
        says_final=says_final,
    )


def _request_parameters(parameters: Mapping[str, Any]) -> tuple[int | None, Priority, bool]:
    """Read what a request may be asked besides; what would not be done is refused, not ignored."""
    timeout_ns, priority, says_final = None, Priority.INTERACTIVE, False
    for key in parameters:
        value = _value(parameters[key])
        if key == "timeout":
            if type(value) is not int or value < 0:
                raise InvalidInput(f"parameter timeout: expected microseconds, 0 or more, got {value!r:.40}")
            timeout_ns = value * 1000 or None
        elif key == "priority":
            if type(value) is not int or value not in (0, *Priority):
                raise InvalidInput(
                    "parameter priority: expected 1 for the most urgent, 2, 3, or 0 for the default, which "
                    f"is {priority:d}, got {value!r:.40}"
                )
            priority = Priority(value) if value else priority
        elif key in ("sequence_id", "sequence_start", "sequence_end"):
            if value:
                raise Unimplemented(
                    f"parameter {key}: expected none, no model here keeps state, got {value!r:.40}"
                )
        elif key == "triton_enable_empty_final_response":
            says_final = bool(value)
        else:
            raise InvalidInput(f"expected parameters of timeout and priority, got {key!r:.80}")
    return timeout_ns, priority, says_final


def _source(spec: TensorSpec, tensor: Any) -> Source:
    shape = tuple(tensor.shape[:64])
    require_tensor(spec, tensor.datatype, shape)
    size = element_type(spec.dtype).itemsize
    for length in shape:
        size *= length
    what = f"input {spec.name}"
    span = _span(tensor.parameters, what)
    if not tensor.HasField("contents"):
        if span is not None and span.size_bytes != size and spec.dtype != "string":
            raise InvalidInput(
                f"{what}: expected {size} bytes of shared memory for {tensor.datatype} {list(shape)}, "
                f"got {span.size_bytes}"
            )
        return Source(spec, shape, size, span)
    if span is not None:
        raise InvalidInput(f"{what}: expected contents or shared memory, got both")
    return Source(spec, shape, size, array=_typed(spec, shape, tensor))


def _typed(spec: TensorSpec, shape: tuple[int, ...], tensor: Any) -> Array:
    what = f"input {spec.name}"
    place = CONTENTS.get(tensor.datatype)
    if place is None:
        raise InvalidInput(f"{what}: expected {tensor.datatype} in raw_input_contents, got typed contents")
    there = [each.name for each, _ in tensor.contents.ListFields()]
    if there != [place]:
        raise InvalidInput(f"{what}: expected {tensor.datatype} in {place}, got {_listed(there)}")
    values = getattr(tensor.contents, place)
    count = int(np.prod(shape, dtype=object))
    if len(values) != count:
        raise InvalidInput(f"{what}: expected {count} elements for {list(shape)}, got {len(values)}")
    if spec.dtype == "string":
        return texts(values, shape, what)
    whole = "uint64" if spec.dtype == "uint64" else "int64"
    wide = np.array(values, dtype=whole if "int" in spec.dtype else spec.dtype)
    array = wide.astype(spec.dtype)
    if array.dtype.kind in "iu" and not np.array_equal(array, wide):
        raise InvalidInput(f"{what}: expected elements that {tensor.datatype} holds, got others")
    return array.reshape(shape)


def _targets(specs: Sequence[TensorSpec], asked: Sequence[Any]) -> tuple[Target, ...]:
    if not asked:
        return tuple(Target(spec) for spec in specs)
    known = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in asked]
    if len(set(names)) != len(names) or not set(names) <= set(known):
        raise InvalidInput(f"expected outputs of {', '.join(known)}, each once, got {_listed(names)}")
    return tuple(
        Target(known[tensor.name], _span(tensor.parameters, f"output {tensor.name}")) for tensor in asked
    )


def _span(parameters: Mapping[str, Any], what: str) -> Span | None:
    values = {key: _value(parameters[key]) for key in parameters}
    if unknown := sorted(set(values) - {_REGION, _SIZE, _OFFSET}):
        error = Unimplemented if "classification" in unknown else InvalidInput
        raise error(f"{what}: expected parameters of {_REGION}, {_SIZE}, {_OFFSET}, got {unknown[0]!r:.80}")
    if not values:
        return None
    region, size, offset = values.get(_REGION), values.get(_SIZE), values.get(_OFFSET, 0)
    if (
        not isinstance(region, str)
        or type(size) is not int
        or type(offset) is not int
        or min(size, offset) < 0
    ):
        raise InvalidInput(
            f"{what}: expected {_REGION} as text, {_SIZE} and {_OFFSET} as numbers of 0 or more, "
            f"got {values!r:.200}"
        )
    return Span(region, offset, size)


def _value(parameter: Any) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return None if which is None else getattr(parameter, which)


def _listed(names: Sequence[str]) -> str:
    """Names for a message, not more than a line of them."""
    shown = ", ".join(f"{name:.80}" for name in names[:10]) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 10 else shown
