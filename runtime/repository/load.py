"""From a published model to a session that runs exactly it: the bytes hashed are the bytes opened."""

from __future__ import annotations

from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.manifest import MODEL_NAME
from trocar.runtime.repository.store import Model
from trocar.runtime.session.base import Session, TensorSpec
from trocar.runtime.session.ort import open_session


def open_model(model: Model, *, threads: int = 1, device: str = "auto") -> Session:
    """Open a model's graph from the bytes that its manifest vouches for.

    Parameters
    ----------
    model : from `Repository.open`.
    threads, device : as in `trocar.runtime.session.ort.open_session`.

    Raises
    ------
    ManifestMismatch
        The file changed, is no graph that can run, or has other tensors than the manifest says.
    DeviceError
        `cuda` was asked for and does not work.
    """
    data, path = model.read(MODEL_NAME), model.folder / MODEL_NAME
    try:
        session = open_session(data, threads=threads, device=device)
    except InvalidInput as error:
        raise ManifestMismatch(f"{path}: {error}") from error
    for kind, said, found in (
        ("inputs", model.manifest.inputs, session.inputs),
        ("outputs", model.manifest.outputs, session.outputs),
    ):
        if said != found:
            raise ManifestMismatch(f"{path}: expected {kind} {_listed(said)}, got {_listed(found)}")
    return session


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec}" for spec in specs)
