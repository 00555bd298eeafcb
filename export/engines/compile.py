"""Drives TensorRT or TensorRT-RTX, whose classes are the same, from ONNX bytes to an engine.

The library is given, not imported: a test gives one that records what it is asked. The worker reads this file
by itself, so nothing of trocar is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Listener = Callable[[dict[str, Any]], None]
_MOST_CHARACTERS = 600
_MOST_ERRORS = 3


class Refused(Exception):
    """The library cannot read or build the network; `build_engine` makes it an `InvalidInput`."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to build. `capabilities` is empty for the GPU at hand; `batch` is min, opt and max."""

    capabilities: tuple[str, ...]
    batch: tuple[int, int, int]
    timing_cache: bytes | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """An engine, its layers as `(name, kind, outputs)`, and the timings to build the next one faster."""

    engine: bytes
    layers: list[tuple[str, str, list[str]]]
    layers_from: str
    timing_cache: bytes | None


def compile_network(trt: Any, model: bytes, order: Order, listener: Listener) -> Compiled:
    """Build an engine.

    Parameters
    ----------
    trt : the module `tensorrt` or `tensorrt_rtx`.
    model : an ONNX file with its weights inside; its types are kept as they are.
    order : what for.
    listener : told `{"event": "start", "phase", "parent", "steps"}`, `{"event": "step", "phase", "step"}`
        and `{"event": "finish", "phase"}`; ahead of time there is one phase, without steps.

    Raises
    ------
    Refused
        The library cannot read or build the network; the message names the node.
    """
    log = _make_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, model, log)
    config = builder.create_builder_config()
    if order.capabilities:
        # No monitor: what it does while the compiler works changed the engine's bytes in 1 build of 5.
        _aim(trt, config, order.capabilities)
    elif monitor := _make_monitor(trt, listener):
        config.progress_monitor = monitor
    _add_profile(builder, network, config, order.batch)
    timings = _set_timings(config, order.timing_cache)
    what = f"for {', '.join(order.capabilities)}" if order.capabilities else "for this GPU"
    listener({"event": "start", "phase": f"{trt.__name__} {what}", "parent": None, "steps": None})
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise Refused(f"{trt.__name__} cannot build the network {what}: {_told(log)}")
    engine = bytes(memoryview(built))
    inspected = _inspect(trt, engine, log) if not order.capabilities else None
    return Compiled(
        engine,
        _network_layers(network) if inspected is None else inspected,
        "network" if inspected is None else "engine",
        None if timings is None else bytes(memoryview(timings.serialize())),
    )


def _make_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for the message; what else there is goes nowhere."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return Log()


def _make_monitor(trt: Any, listener: Listener) -> Any:
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes on how far the build is; a step that answers False would stop it."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            listener({"event": "start", "phase": phase, "parent": parent, "steps": steps})

        def step_complete(self, phase: str, step: int) -> bool:
            listener({"event": "step", "phase": phase, "step": step})
            return True

        def phase_finish(self, phase: str) -> None:
            listener({"event": "finish", "phase": phase})

    return Monitor()


def _parse(trt: Any, network: Any, model: bytes, log: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(model):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = [_parser_error(error) for error in errors[:_MOST_ERRORS]]
    raise Refused(f"{trt.__name__} cannot read the model: {'; '.join(said) or _told(log)}")


def _parser_error(error: Any) -> str:
    node = f"node {error.node_name()} ({error.node_operator()}): " if error.node_operator() else ""
    return node + _line(error.desc())


def _aim(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    known = {name.lower(): value for name, value in trt.ComputeCapability.__members__.items()}
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        if name not in known:
            has = ", ".join(sorted(each for each in known if each.startswith("sm")))
            raise Refused(f"expected a compute capability of {has}, got {name!r}")
        config.set_compute_capability(known[name], index)


def _add_profile(builder: Any, network: Any, config: Any, batch: tuple[int, int, int]) -> None:
    profile = builder.create_optimization_profile()
    dynamic = False
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise Refused(f"input {tensor.name}: expected a dynamic batch and no other, got {list(shape)}")
        if shape[:1] == (-1,):
            profile.set_shape(tensor.name, *((size, *shape[1:]) for size in batch))
            dynamic = True
    if dynamic:
        config.add_optimization_profile(profile)


def _set_timings(config: Any, known: bytes | None) -> Any:
    """Begin with what earlier builds timed; none where nothing is timed, as in TensorRT-RTX."""
    if known is None:
        return None
    timings = config.create_timing_cache(known)
    # Timings of another device or version are not used: the library says so and times anew.
    config.set_timing_cache(timings, ignore_mismatch=False)
    return timings


def _network_layers(network: Any) -> list[tuple[str, str, list[str]]]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return [(layer.name, _name(layer.type), [_tensor(each) for each in _outputs(layer)]) for layer in layers]


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(index) for index in range(layer.num_outputs)]


def _tensor(tensor: Any) -> str:
    # A rank that is not known before running has no length.
    shape = list(tensor.shape) if len(tensor.shape) >= 0 else "?"
    return f"{tensor.name} {_name(tensor.dtype).lower()} {shape}"


def _inspect(trt: Any, engine: bytes, log: Any) -> list[tuple[str, str, list[str]]] | None:
    """Return the layers of an engine, fused as they will run; it is loaded, so it needs its GPU."""
    loaded = trt.Runtime(log).deserialize_cuda_engine(engine)
    if loaded is None:
        return None
    text = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    # Without detailed profiling a layer is its name; with it, an object.
    layers = json.loads(text).get("Layers", [])
    return [
        (layer, "", [])
        if isinstance(layer, str)
        else (
            layer.get("Name", ""),
            layer.get("LayerType", ""),
            [each.get("Name", "") for each in layer.get("Outputs", [])],
        )
        for layer in layers
    ]


def _name(member: Any) -> str:
    return str(member.name)


def _told(log: Any) -> str:
    return _line("; ".join(log.errors[:_MOST_ERRORS])) or "it does not say why"


def _line(text: str) -> str:
    return " ".join(text.split())[:_MOST_CHARACTERS]
