"""Checkpoint to published model: build, export, compare, write down, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from trocar.export.checkpoint import Checkpoint, read_checkpoint
from trocar.export.network import Network
from trocar.export.onnx import OPSET, to_onnx
from trocar.export.parity import Parity, Reference, measure_parity, measure_reference
from trocar.export.variants import DEFAULT_ENGINES, GRAPH, EngineOptions, Variant, check_targets, variants
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.repository.manifest import CARD_NAME
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.session.base import Session, TensorSpec
from trocar.runtime.session.ort import open_session

OWN_FIELDS = frozenset(
    {"inputs", "outputs", "opset", "parity", "variants", "files", "name", "version", "schema"}
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A file and how far it is from torch; `parity` is None where nothing here runs it, and `why` says so."""

    variant: Variant
    parity: Parity | None
    why: str = ""

    def exceeded(self) -> tuple[str, ...]:
        """Say what is past tolerance, a line each."""
        lines = () if self.parity is None else self.parity.exceeded()
        return tuple(f"{self.variant.name}: {line}" for line in lines)

    def parity_document(self) -> dict[str, Any]:
        """Return the manifest's `parity` of this file."""
        if self.parity is None:
            return {"unmeasured": self.why}
        past = {"exceeded": list(self.exceeded())} if self.exceeded() else {}
        return {**self.parity.document(), **past}


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of an export. `model` is None where something is past tolerance: nothing was published."""

    files: tuple[Measured, ...]
    model: Model | None

    def exceeded(self) -> tuple[str, ...]:
        """Say what is past tolerance, a line each."""
        return tuple(line for each in self.files for line in each.exceeded())


def export_network(
    network: Network,
    checkpoint: Path,
    repository: Repository,
    *,
    to: Sequence[str] = (GRAPH,),
    version: int | None = None,
    measured: Mapping[str, Any] | None = None,
    engines: EngineOptions = DEFAULT_ENGINES,
    allow_differences: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export a trained network into a repository.

    The same checkpoint, exported by the same versions, gives the same ONNX files.

    Parameters
    ----------
    network : from `find_network`.
    checkpoint : a safetensors file; see `trocar.export.checkpoint`.
    repository : where to; its folder is made where it is not there.
    to : of `trocar.export.variants.TARGETS`; the graph is always among them.
    version : a number that is not taken; None is the next.
    measured : tables for the card, rows by title: what was measured of the network in use.
    engines : how engines are built.
    allow_differences : publish what is past tolerance too; the manifest and the card say that it is.
    say : told each step as it begins.

    Raises
    ------
    InvalidInput
        The checkpoint, the network or what it says of itself cannot be used, or an engine cannot be built.
    DeviceError
        An engine needs a GPU that is not here.
    """
    check_targets(to, network, engines)
    say(f"reading {checkpoint}")
    trained = read_checkpoint(checkpoint)
    module = network.build(trained.facts)
    trained.load_into(module)
    module.eval()
    said = _said(network, trained)
    say(f"exporting {network.name} to ONNX opset {OPSET}")
    graph = _graph(network, module, trained, str(said.get("intended_use", "")))
    session = open_session(graph, device="cpu")
    say("running torch")
    reference = measure_reference(module, network)
    files: list[Measured] = []
    for variant in variants(graph, to, network, engines, say):
        say(f"comparing {variant.file} with torch")
        files.append(_measured(variant, reference, session))
        if files[-1].exceeded() and not allow_differences:
            return Exported(tuple(files), None)
    fields = {**said, **_fields(network, session, files)}
    document = {**trained.facts, "tables": dict(measured or {}), "name": network.name, **fields}
    card = network.card(document).rstrip() + "\n\n" + files_section(files)
    contents = {each.variant.file: each.variant.content for each in files} | {CARD_NAME: card.encode()}
    say(f"publishing to {repository.root}")
    return Exported(tuple(files), repository.publish(network.name, fields, contents, version=version))


def files_section(files: Sequence[Measured]) -> str:
    """Write the card's section on the files: how far each is from torch, in outputs and in the task."""
    names = list(files[0].parity.torch_metrics) if files[0].parity is not None else []
    head = ["file", "precision", "differs at most", "at the 99.9th percentile"]
    head += [f"`{name}` / torch's" for name in names]
    lines = ["## Files", "", _row(head), "|" + "---|" * len(head)]
    for each in files:
        row = [each.variant.file, each.variant.precision]
        if each.parity is None:
            row += [f"not measured: {each.why}", *[""] * (len(head) - 3)]
        else:
            worst, ratios = each.parity.document(), each.parity.metric_ratios()
            row += [f"{worst['max_abs_difference']:.2g}", f"{worst['percentile_999']:.2g}"]
            row += [f"{ratios[name]:.4f}" for name in names]
        lines.append(_row(row))
    parity = files[0].parity
    if parity is not None:
        lines += ["", f"Differences from torch over {parity.samples} inputs ({parity.inputs})."]
    lines += [
        f"Past tolerance, published all the same: {line}." for each in files for line in each.exceeded()
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _said(network: Network, trained: Checkpoint) -> dict[str, Any]:
    """Return what the network says of itself for the manifest."""
    said = dict(network.manifest_fields(trained.facts))
    if clash := sorted(OWN_FIELDS & set(said)):
        raise InvalidInput(f"network {network.name!r}: expected no {clash[0]!r} in its manifest fields")
    said["training"] = {**said.get("training", {}), "checkpoint_sha256": trained.sha256}
    return said


def _graph(network: Network, module: nn.Module, trained: Checkpoint, intended_use: str) -> bytes:
    """Return the ONNX file, which says what it is even where it lies alone."""
    metadata = {"name": network.name, "checkpoint_sha256": trained.sha256, "intended_use": intended_use}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        names = network.input_names, network.output_names
        to_onnx(module, network.example_inputs(), *names, path, metadata=metadata)
        return path.read_bytes()


def _measured(variant: Variant, reference: Reference, graph: Session) -> Measured:
    try:
        session = variant.open(graph.inputs, graph.outputs)
    except DeviceError as error:
        return Measured(variant, None, str(error))
    return Measured(variant, measure_parity(reference, session, variant.precision))


def _fields(network: Network, session: Session, files: Sequence[Measured]) -> dict[str, Any]:
    """Return the manifest's document, less what the network says and what publishing fills in."""
    others = {
        each.variant.name: {
            "file": each.variant.file,
            "format": each.variant.format,
            "precision": each.variant.precision,
            "parity": each.parity_document(),
            "metrics": {} if each.parity is None else dict(each.parity.metrics),
            "engine": dict(each.variant.engine),
        }
        for each in files[1:]
    }
    return {
        "inputs": [_tensor(spec, network) for spec in session.inputs],
        "outputs": [_tensor(spec, network) for spec in session.outputs],
        "opset": OPSET,
        "parity": {**files[0].parity_document(), "onnx": onnx.__version__},
        **({"variants": others} if others else {}),
    }


def _tensor(spec: TensorSpec, network: Network) -> dict[str, Any]:
    layout = network.layouts.get(spec.name, "")
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "layout": layout}
