"""A `trocar serve` to measure, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trocar.runtime.errors import Unavailable

if TYPE_CHECKING:
    import grpc

_LEAVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a server listens, and its process id."""

    target: str
    process: int


def connection(target: str) -> grpc.Channel:
    """A connection of its own: gRPC would let channels to one server share one."""
    import grpc

    sizes = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    return grpc.insecure_channel(target, options=(*sizes, ("grpc.use_local_subchannel_pool", 1)))


@contextmanager
def served(*, unix: bool = False, config: str = "") -> Iterator[Serving]:
    """Start a server on loopback or on a Unix socket; it ends with the block.

    Parameters
    ----------
    config : TOML, as for `trocar serve --config`; log lines are off unless it says otherwise.

    Raises
    ------
    Unavailable : it did not start; its last line says why.
    """
    with tempfile.TemporaryDirectory(prefix="trocar-bench-") as name:
        folder = Path(name)
        (folder / "trocar.toml").write_text(config or '[server]\nlog_level = "warning"\n', encoding="utf-8")
        listen = f"unix:{folder / 'socket'}" if unix else "127.0.0.1:0"
        command = [sys.executable, "-m", "trocar.runtime.cli", "serve", "--json", "--listen", listen]
        with (folder / "log.txt").open("w+", encoding="utf-8") as log:
            # In a group of its own: Ctrl-C ends the measurement first, and then the server.
            process = subprocess.Popen(
                [*command, "--config", str(folder / "trocar.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                process_group=0,
            )
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    process.wait(_LEAVE_S)
                    log.seek(0)
                    said = log.read().strip().splitlines()
                    raise Unavailable(f"expected a server to measure, got: {said[-1] if said else 'none'}")
                yield Serving(json.loads(line)["listening"], process.pid)
            finally:
                process.terminate()
                try:
                    process.wait(_LEAVE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                assert process.stdout is not None
                process.stdout.close()
