"""The files that a network is published as: the graph itself, with fewer bits, and compiled."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trocar.export.engines import FLAVOURS, build_engine
from trocar.export.network import Network
from trocar.export.quantise import to_fp16, to_int8
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.manifest import MODEL_NAME
from trocar.runtime.session.base import Session, TensorSpec
from trocar.runtime.session.ort import open_session

GRAPH = "onnx"
REDUCED = ("fp16", "int8")
TARGETS = (GRAPH, *REDUCED, *FLAVOURS)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are built; see `trocar.export.engines.build_engine`."""

    capabilities: tuple[str, ...] = ()
    cache: Path | None = None
    progress: bool = False


DEFAULT_ENGINES = EngineOptions()


@dataclass(frozen=True, slots=True)
class Variant:
    """A file to publish; `engine` says what a compiled one was built for and by."""

    name: str
    file: str
    format: str
    precision: str
    content: bytes = field(repr=False)
    engine: Mapping[str, Any] = field(default_factory=dict)

    def open(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Session:
        """Open it: a graph on the CPU, where torch ran too; an engine where it can.

        Raises
        ------
        DeviceError
            Nothing here runs this engine.
        """
        if self.format == GRAPH:
            return open_session(self.content, device="cpu")
        from trocar.runtime.session.tensorrt import open_engine

        return open_engine(self.content, facts=self.engine, inputs=inputs, outputs=outputs, name=self.file)


def check_targets(to: Sequence[str], network: Network, options: EngineOptions) -> None:
    """Refuse what cannot be made, before anything is.

    Raises
    ------
    InvalidInput
        A target is not one of `TARGETS`, int8 of a network that has no calibration data, or GPU generations
        where nothing is built for them.
    """
    for target in to:
        if target not in TARGETS:
            raise InvalidInput(f"--to: expected {', '.join(TARGETS)}, got {target!r}")
    if "int8" in to and not hasattr(network, "calibration_inputs"):
        raise InvalidInput(f"network {network.name!r}: expected calibration_inputs for int8, got none")
    if options.capabilities and "tensorrt-rtx" not in to:
        raise InvalidInput("--capabilities: expected tensorrt-rtx in --to, which alone is built for them")


def variants(
    graph: bytes,
    to: Sequence[str],
    network: Network,
    options: EngineOptions,
    say: Callable[[str], None],
) -> Iterator[Variant]:
    """Make one file after the other: the graph, which is always among them, then what else is asked for.

    Engines are compiled from the graphs with fewer bits that are asked for too, from float32 where none is.

    Parameters
    ----------
    graph : the ONNX file in float32.
    to : of `TARGETS`.
    say : told each step as it begins.
    """
    yield Variant(GRAPH, MODEL_NAME, GRAPH, "fp32", graph)
    graphs = {"fp32": graph}
    for precision in (each for each in REDUCED if each in to):
        say(f"writing {precision}")
        graphs[precision] = to_fp16(graph) if precision == "fp16" else _int8(graph, network)
        yield Variant(precision, f"model.{precision}.onnx", GRAPH, precision, graphs[precision])
    if len(graphs) > 1:
        del graphs["fp32"]
    for flavour in (each for each in FLAVOURS if each in to):
        for precision, content in graphs.items():
            say(f"building {flavour} from {precision}")
            yield _compiled(content, flavour, precision, options)


def _int8(graph: bytes, network: Any) -> bytes:
    return to_int8(graph, network.calibration_inputs())


def _compiled(graph: bytes, flavour: str, precision: str, options: EngineOptions) -> Variant:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_NAME
        path.write_bytes(graph)
        built = build_engine(
            path,
            flavour=flavour,
            precision=precision,
            capabilities=options.capabilities if flavour == "tensorrt-rtx" else (),
            cache=options.cache,
            progress=options.progress,
        )
    return Variant(built.variant, built.file_name, flavour, precision, built.engine, built.document())
