"""Builds one engine in a process of its own: native compilers may crash, and where memory lies matters.

A script of its own, started by `trocar.export.engines.build` as `python worker.py MODULE FOLDER ROOT` with
the folder where MODULE is installed. FOLDER holds `order.json` and `model.onnx`, and gets `engine`,
`layers.json` and `timings`. One JSON object a line on stdout says how it goes.

TensorRT-RTX names inner values of a network with dynamic shapes in an order that follows their addresses, and
the names are in the engine. So the script runs without randomised addresses, on one processor (threads race
for heaps), and builds in a thread, whose heap begins empty; it imports nothing but the library, and reads no
compiled bytecode of ours. On a machine with time to spare the same build then gives the same bytes.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ASK = ctypes.c_ulong(0xFFFFFFFF)
_ADDR_NO_RANDOMIZE = 0x0040000
_TRIED = "TROCAR_ENGINE_WORKER_TRIED"


def main() -> None:
    """Build what the folder orders; the last line says what came of it."""
    _fix_addresses()
    module, folder, root = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    # A native library may print on stdout; only our lines go there.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    # The very library that the caller has: another one may be installed where Python looks first.
    sys.path.insert(0, root)
    # Weights outside the model would be looked for in the working directory.
    os.chdir(folder)
    compiler = runpy.run_path(str(Path(__file__).with_name("compile.py")), run_name="engine_compiler")

    def say(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    thread = threading.Thread(target=_build, args=(compiler, module, folder, say))
    thread.start()
    thread.join()
    events.close()


def _build(
    compiler: dict[str, Any], module: str, folder: Path, say: Callable[[dict[str, Any]], None]
) -> None:
    try:
        trt = importlib.import_module(module)
        asked = json.loads((folder / "order.json").read_text())
        if asked["capabilities"]:
            processors = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
        timings = (folder / "timings").read_bytes() if (folder / "timings").exists() else None
        order = compiler["Order"](tuple(asked["capabilities"]), tuple(asked["batch"]), timings)
        started = time.perf_counter()
        compiled = compiler["compile_network"](trt, (folder / "model.onnx").read_bytes(), order, say)
        seconds = time.perf_counter() - started
        (folder / "engine").write_bytes(compiled.engine)
        (folder / "layers.json").write_text(json.dumps(compiled.layers))
        if compiled.timing_cache is not None:
            (folder / "timings").write_bytes(compiled.timing_cache)
    except compiler["Refused"] as error:
        say({"event": "refused", "message": str(error)})
    except Exception as error:  # whatever the library raises, in one line
        say({"event": "failed", "message": " ".join(f"{type(error).__name__}: {error}".split())})
    else:
        say({"event": "built", "seconds": seconds, "layers_from": compiled.layers_from})


def _fix_addresses() -> None:
    """Begin again without randomised addresses, where the kernel allows it; some sandboxes do not."""
    if _addresses_are_fixed() or _TRIED in os.environ:
        return
    personality = ctypes.CDLL(None).personality
    if personality(ctypes.c_ulong(personality(_ASK) | _ADDR_NO_RANDOMIZE)) != -1:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _TRIED: "1"})


def _addresses_are_fixed() -> bool:
    now = ctypes.CDLL(None).personality(_ASK)
    return now != -1 and bool(now & _ADDR_NO_RANDOMIZE)


if __name__ == "__main__":
    main()
