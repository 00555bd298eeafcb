"""Checkpoint to published model: build, export, compare, write down, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from trocar.export.checkpoint import Checkpoint, read_checkpoint
from trocar.export.network import Network
from trocar.export.onnx import OPSET, to_onnx
from trocar.export.parity import Parity, measure_parity
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.manifest import CARD_NAME, MODEL_NAME
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.session.base import Session, TensorSpec
from trocar.runtime.session.ort import open_session


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of an export. `model` is None where parity failed and nothing was published."""

    parity: Parity
    model: Model | None


def export_network(
    network: Network,
    checkpoint: Path,
    repository: Repository,
    *,
    version: int | None = None,
    measured: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export a trained network into a repository.

    The same checkpoint, exported by the same versions, gives the same files.

    Parameters
    ----------
    network : from `find_network`.
    checkpoint : a safetensors file; see `trocar.export.checkpoint`.
    repository : where to; its folder is made where it is not there.
    version : a number that is not taken; None is the next.
    measured : tables for the card, rows by title: what was measured of the network in use.
    say : told each step as it begins.

    Raises
    ------
    InvalidInput
        The checkpoint, the network or what it says of itself cannot be used.
    """
    say(f"reading {checkpoint}")
    trained = read_checkpoint(checkpoint)
    module = network.build(trained.facts)
    trained.load_into(module)
    module.eval()
    inputs = network.example_inputs()
    say(f"exporting {network.name} to ONNX opset {OPSET}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_NAME
        to_onnx(
            module,
            inputs,
            network.input_names,
            network.output_names,
            path,
            metadata={"name": network.name, "checkpoint_sha256": trained.sha256},
        )
        graph = path.read_bytes()
    say("comparing with torch")
    session = open_session(graph, device="cpu")
    parity = measure_parity(module, session, inputs)
    if not parity.passed:
        return Exported(parity, None)
    fields = _fields(network, trained, session, parity)
    card = network.card({**trained.facts, "tables": dict(measured or {}), "name": network.name, **fields})
    files = {MODEL_NAME: graph, CARD_NAME: card.encode()}
    say(f"publishing to {repository.root}")
    return Exported(parity, repository.publish(network.name, fields, files, version=version))


def _fields(network: Network, trained: Checkpoint, session: Session, parity: Parity) -> dict[str, Any]:
    """Return the manifest's document, less what publishing fills in."""
    said = dict(network.manifest_fields(trained.facts))
    own = {"inputs", "outputs", "opset", "parity", "files", "name", "version", "schema"}
    if clash := sorted(own & set(said)):
        raise InvalidInput(f"network {network.name!r}: expected no {clash[0]!r} in its manifest fields")
    said["training"] = {**said.get("training", {}), "checkpoint_sha256": trained.sha256}
    return {
        **said,
        "inputs": [_tensor(spec, network) for spec in session.inputs],
        "outputs": [_tensor(spec, network) for spec in session.outputs],
        "opset": OPSET,
        "parity": {**parity.document(), "onnx": onnx.__version__},
    }


def _tensor(spec: TensorSpec, network: Network) -> dict[str, Any]:
    layout = network.layouts.get(spec.name, "")
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "layout": layout}
