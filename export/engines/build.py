"""`build_engine`: an ONNX file to an engine, from the cache where it was built before."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trocar.export.engines.cache import EngineCache
from trocar.export.engines.progress import shown
from trocar.export.engines.types import (
    DEFAULT_PROFILE,
    FLAVOURS,
    PRECISIONS,
    RTX_CAPABILITIES,
    EngineFacts,
    Layer,
    Profile,
)
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.cuda import Gpu, find_gpu

_WORKER = Path(__file__).with_name("worker.py")
_TOLD_CHARACTERS = 300


def build_engine(
    onnx_path: Path,
    *,
    flavour: str,
    precision: str,
    capabilities: Sequence[str] = (),
    profile: Profile = DEFAULT_PROFILE,
    cache: Path | None = None,
    progress: bool = False,
) -> EngineFacts:
    """Build an engine, or take it from the cache.

    TensorRT-RTX builds ahead of time, without a GPU, for every generation named. TensorRT times kernels on
    the GPU it builds for, which must be the one at hand.

    Parameters
    ----------
    onnx_path : an ONNX file with its weights inside, whose axis 0 may be any batch.
    flavour : one of `FLAVOURS`.
    precision : `fp32`, `fp16` or `int8`: what the file already is, since its types are kept.
    capabilities : for TensorRT-RTX, such as `sm89`; none given means `RTX_CAPABILITIES`.
    profile : batch sizes.
    cache : folder of engines built before; entries are by model, library, GPU, precision and profile.
    progress : show a bar on stderr.

    Raises
    ------
    InvalidInput
        An option is not one, the library is not installed (the message says how to), or it cannot read or
        build the network (the message names the node).
    DeviceError
        TensorRT finds no GPU, or the compiler crashed.
    """
    if flavour not in FLAVOURS:
        raise InvalidInput(f"expected an engine of {', '.join(FLAVOURS)}, got {flavour!r}")
    if precision not in PRECISIONS:
        raise InvalidInput(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    try:
        model = Path(onnx_path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read the model {onnx_path}: {error.strerror}") from error
    module = FLAVOURS[flavour][0]
    library = f"{module} {_version(flavour)}"
    gpu, capabilities = _target(flavour, capabilities)
    kept = EngineCache(cache) if cache is not None else None
    same_timings = {"library": library, "gpu": gpu, "capabilities": list(capabilities)}
    key = {
        **same_timings,
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "precision": precision,
        "batch": [profile.min, profile.opt, profile.max],
    }
    found = kept.get(key) if kept else None
    if found is None:
        timings = kept.get(same_timings) if kept and gpu else None
        order = {
            "capabilities": [] if gpu else list(capabilities),
            "batch": key["batch"],
            "timings": timings[1] if timings else b"" if kept and gpu else None,
        }
        facts, engine, timed = _run_worker(module, model, order, progress)
        if kept:
            kept.put(key, facts, engine)
            if timed is not None:
                kept.put(same_timings, {}, timed)
    else:
        facts, engine = found
    return EngineFacts(
        engine=engine,
        flavour=flavour,
        precision=precision,
        profile=profile,
        library=library,
        capabilities=tuple(capabilities),
        gpu=gpu,
        model_sha256=str(key["model_sha256"]),
        layers=tuple(Layer(name, kind, tuple(outputs)) for name, kind, outputs in facts["layers"]),
        layers_from=facts["layers_from"],
        build_seconds=facts["seconds"],
        cached=found is not None,
    )


def _version(flavour: str) -> str:
    """Return the installed library's version."""
    module, extra = FLAVOURS[flavour]
    try:
        return str(importlib.import_module(module).__version__)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise InvalidInput(f"{module} is installed but incomplete: {error}") from error
        raise InvalidInput(
            f"{flavour} engines need {module}, not installed here: pip install 'trocar[{extra}]'"
        ) from error
    except Exception as error:  # its libraries are loaded as it is imported
        raise InvalidInput(f"{module} is installed but does not load: {_line(str(error))}") from error


def _target(flavour: str, capabilities: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the GPU to tune on, if any, and the generations to build for."""
    if flavour == "tensorrt-rtx":
        wanted = tuple(capabilities) or RTX_CAPABILITIES
        if len(set(wanted)) != len(wanted):
            raise InvalidInput(f"expected each compute capability once, got {', '.join(wanted)}")
        return "", wanted
    if capabilities:
        raise InvalidInput(
            f"tensorrt builds for the GPU at hand only, got {', '.join(capabilities)}; "
            "tensorrt-rtx builds for GPUs elsewhere"
        )
    gpu = find_gpu()
    if not isinstance(gpu, Gpu):
        raise DeviceError(f"tensorrt builds on the GPU that the engine is for, and there is none here: {gpu}")
    return gpu.name, (gpu.capability,)


def _run_worker(
    module: str, model: bytes, order: Mapping[str, Any], progress: bool
) -> tuple[dict[str, Any], bytes, bytes | None]:
    """Build in a child process; return its facts, the engine, and the timings if any were wanted."""
    with tempfile.TemporaryDirectory(prefix="trocar-engine-") as name, tempfile.TemporaryFile() as stderr:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        asked = {each: order[each] for each in ("capabilities", "batch")}
        (folder / "order.json").write_text(json.dumps(asked))
        if order["timings"] is not None:
            (folder / "timings").write_bytes(order["timings"])
        # Python's own settings would change what lies in memory before the build.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        with subprocess.Popen(
            [sys.executable, "-P", "-B", str(_WORKER), module, name, str(_installed_in(module))],
            env=environment | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process:
            try:
                last = shown(map(json.loads, process.stdout or ()), progress)
            except BaseException:
                process.kill()
                raise
        if last.get("event") == "built":
            facts = {each: last[each] for each in ("seconds", "layers_from")}
            facts["layers"] = json.loads((folder / "layers.json").read_text())
            timed = (folder / "timings").read_bytes() if order["timings"] is not None else None
            return facts, (folder / "engine").read_bytes(), timed
        if last.get("event") == "refused":
            raise InvalidInput(last["message"])
        stderr.seek(0)
        told = last.get("message") or _line(stderr.read().decode(errors="replace"))[-_TOLD_CHARACTERS:]
        raise DeviceError(f"{module} failed while it built: {_ended(process.returncode)}{told}")


def _installed_in(module: str) -> Path:
    """Return the folder from which a module that was imported can be imported again."""
    file = Path(str(sys.modules[module].__file__))
    return file.parents[1] if file.name == "__init__.py" else file.parent


def _ended(code: int) -> str:
    """Say how a process ended, if by a signal."""
    if code >= 0:
        return ""
    try:
        return f"killed by {signal.Signals(-code).name}: "
    except ValueError:
        return f"killed by signal {-code}: "


def _line(text: str) -> str:
    return " ".join(text.split())
