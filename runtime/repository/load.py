"""From a published model to a session that runs exactly it: the bytes hashed are the bytes opened."""

from __future__ import annotations

from trocar.runtime.device import DEVICES
from trocar.runtime.errors import DeviceError, InvalidInput, ManifestMismatch
from trocar.runtime.repository.manifest import MODEL_NAME, Variant
from trocar.runtime.repository.store import Model
from trocar.runtime.session.base import Session, TensorSpec
from trocar.runtime.session.cuda import Gpu, find_gpu
from trocar.runtime.session.ort import open_session

AUTO, FULL = "auto", "fp32"
# Of engines, `auto` takes these: int8 changes answers enough that somebody should ask for it.
AUTO_PRECISIONS = ("fp16", "fp32")
# What an engine is held against before it is loaded, out of all that a manifest may say of one.
ENGINE_FACTS = {"flavour": str, "library": str, "capabilities": list, "gpu": str}


def open_model(model: Model, *, threads: int = 1, device: str = "auto", variant: str = AUTO) -> Session:
    """Open a model from the bytes that its manifest vouches for.

    Parameters
    ----------
    model : from `Repository.open`.
    threads, device : as in `trocar.runtime.session.ort.open_session`.
    variant : `fp32` is `model.onnx`, the others are those of the manifest. `auto` is the first engine in
        float16 or float32 that a GPU here runs, else `fp32`: on the CPU no other was faster.

    Raises
    ------
    InvalidInput
        The model has no such variant, or there is no such device.
    ManifestMismatch
        The file changed, is no graph that can run, or has other tensors than the manifest says.
    DeviceError
        `cuda`, or an engine, was asked for and does not work.
    """
    if device not in DEVICES:
        raise InvalidInput(f"expected a device of {', '.join(DEVICES)}, got {device!r}")
    held = model.manifest.variants
    if variant not in (AUTO, FULL, *held):
        raise InvalidInput(
            f"{model.place}: expected a variant of {', '.join((FULL, *held))}, got {variant!r:.80}"
        )
    if variant == AUTO:
        engine = None if device == "cpu" else _first_engine(model)
        return engine or _open_graph(model, MODEL_NAME, threads, device)
    if variant == FULL:
        return _open_graph(model, MODEL_NAME, threads, device)
    chosen = held[variant]
    if chosen.format == "onnx":
        return _open_graph(model, chosen.file, threads, device)
    if device == "cpu":
        raise DeviceError(f"{model.place / chosen.file}: expected a GPU to run this engine, got device cpu")
    return _open_engine(model, chosen)


def _open_graph(model: Model, file: str, threads: int, device: str) -> Session:
    path = model.place / file
    try:
        session = open_session(model.read(file), threads=threads, device=device)
    except InvalidInput as error:
        raise ManifestMismatch(f"{path}: {error}") from error
    for kind, said, found in (
        ("inputs", model.manifest.inputs, session.inputs),
        ("outputs", model.manifest.outputs, session.outputs),
    ):
        if said != found:
            raise ManifestMismatch(f"{path}: expected {kind} {_listed(said)}, got {_listed(found)}")
    return session


def _first_engine(model: Model) -> Session | None:
    """Open the first engine that works here; None where none does, or there is none."""
    engines = [
        variant
        for precision in AUTO_PRECISIONS
        for variant in model.manifest.variants.values()
        if variant.format != "onnx" and variant.precision == precision
    ]
    if not engines or not isinstance(find_gpu(), Gpu):
        return None
    for engine in engines:
        try:
            return _open_engine(model, engine)
        except DeviceError:
            continue
    return None


def _open_engine(model: Model, variant: Variant) -> Session:
    from trocar.runtime.session.tensorrt import open_engine

    manifest, path = model.manifest, model.place / variant.file
    for key, kind in ENGINE_FACTS.items():
        if not isinstance(variant.engine.get(key), kind):
            got = variant.engine.get(key)
            raise ManifestMismatch(f"{path}: expected the manifest to say its {key}, got {got!r:.80}")
    return open_engine(
        model.read(variant.file),
        facts=variant.engine,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        name=str(path),
    )


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec}" for spec in specs)
