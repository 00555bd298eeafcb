"""Builds one engine in a process of its own, since native compilers may crash and addresses matter.

Run as `python -m trocar.export.engines.worker MODULE FOLDER`; the folder holds `order.json` and `model.onnx`.
One JSON object a line on stdout says how it goes; `engine`, `layers.json` and `timings` go to the folder.

The compiler's names of inner values follow the order of addresses in memory, and the names are in the
engine. So the build runs without randomised addresses, and in a thread, whose heap begins empty: the same
order then gives the same bytes, whatever the environment or the paths are.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trocar.export.engines.compile import Order, compile_network
from trocar.runtime.errors import InvalidInput

_ASK = 0xFFFFFFFF
ADDR_NO_RANDOMIZE = 0x0040000
_TRIED = "TROCAR_ENGINE_WORKER_TRIED"


def main() -> int:
    """Build what the folder orders; 0 also where it was refused, which the last line says."""
    _fix_addresses()
    # A native library may print on stdout; only our lines go there.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    thread = threading.Thread(target=_build, args=(sys.argv[1], Path(sys.argv[2]), say))
    thread.start()
    thread.join()
    events.close()
    return 0


def _build(module: str, folder: Path, say: Callable[[dict[str, Any]], None]) -> None:
    try:
        trt = importlib.import_module(module)
        # Weights outside the model would be looked for in the working directory.
        os.chdir(folder)
        asked = json.loads((folder / "order.json").read_text())
        timings = (folder / "timings").read_bytes() if (folder / "timings").exists() else None
        order = Order(tuple(asked["capabilities"]), tuple(asked["batch"]), timings)
        started = time.perf_counter()
        compiled = compile_network(trt, (folder / "model.onnx").read_bytes(), order, say)
        seconds = time.perf_counter() - started
        (folder / "engine").write_bytes(compiled.engine)
        (folder / "layers.json").write_text(json.dumps(compiled.layers))
        if compiled.timing_cache is not None:
            (folder / "timings").write_bytes(compiled.timing_cache)
    except InvalidInput as error:
        say({"event": "refused", "message": str(error)})
    except Exception as error:  # whatever the library raises, in one line
        say({"event": "failed", "message": " ".join(f"{type(error).__name__}: {error}".split())})
    else:
        say(
            {
                "event": "built",
                "seconds": seconds,
                "layers_from": compiled.layers_from,
                "fixed_addresses": _addresses_are_fixed(),
            }
        )


def _fix_addresses() -> None:
    """Begin again without randomised addresses, where the kernel allows it; some sandboxes do not."""
    if _addresses_are_fixed() or _TRIED in os.environ:
        return
    if ctypes.CDLL(None).personality(_personality() | ADDR_NO_RANDOMIZE) == -1:
        return
    environment = {**os.environ, _TRIED: "1"}
    os.execve(sys.executable, [sys.executable, "-m", "trocar.export.engines.worker", *sys.argv[1:]], environment)


def _addresses_are_fixed() -> bool:
    return _personality() != -1 and bool(_personality() & ADDR_NO_RANDOMIZE)


def _personality() -> int:
    return int(ctypes.CDLL(None).personality(ctypes.c_ulong(_ASK)))


if __name__ == "__main__":
    sys.exit(main())
