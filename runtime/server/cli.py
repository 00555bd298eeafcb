"""`trocar serve`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trocar.runtime.command import Command
from trocar.runtime.config import Config, load_config
from trocar.runtime.errors import DeadlineExceeded

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

EXAMPLES = """\
examples:
  trocar serve                                       listens on 127.0.0.1:8001
  trocar serve --listen unix:/run/trocar.sock        no TCP at all; the socket is its owner's alone
  trocar serve --listen 127.0.0.1:0 --json           a free port, printed as {"listening": "127.0.0.1:PORT"}
  trocar serve --repository DIR --require-signature centre.key.pub     only models that this key signed
  trocar serve --config trocar.toml

trocar.toml, with its defaults:
  [server]
  listen = "127.0.0.1:8001"
  services = ""            # which to host, such as "inference"; empty: all that are installed
  repository = ""          # the models' folder; empty: those that come with the package
  require_signature = ""   # a file of public keys, one of which must have signed each model; empty: none
  max_message_mib = 64     # a larger request is RESOURCE_EXHAUSTED
  max_running = 2          # requests computed at once
  max_queued = 8           # requests that may wait for each model, and for planning;
                           # the next is RESOURCE_EXHAUSTED
  max_held = 64            # requests that run or wait, in all
  drain_grace_s = 30.0     # SIGTERM: finish what is in flight, at most this long
  reflection = true
  log_level = "info"
  [services.planning]      # each service has a table of its own
  processes = 0            # plans computed at once, each in a process; 0: as max_running
  cpu = "idle"             # what plans claim of a core that a stream wants: idle (next to nothing),
                           # low (a tenth) or normal (as much)
  max_budget_ms = 60000.0  # the longest search a caller may ask for
  [services.inference]     # the Open Inference Protocol v2
  load_at_start = true     # every model of the repository; else by RepositoryModelLoad
  threads = 1              # of each model
  shared_memory = true     # whether clients may register POSIX shared memory of the server's user
  shared_memory_prefix = ""  # with which its names have to begin
  [services.inference.batching]
  models = ""              # whose requests are merged, such as "polyp,tpgan"; empty: none
  max_batch = 8            # rows of a batch
  window_ms = 2.0          # how long the first request of a batch waits for others

There is no TLS and no authentication: keep it on this machine, or behind something that has both.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trocar serve`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--listen", metavar="ADDR", help="host:port, [ipv6]:port or unix:/path; port 0 is any free one"
    )
    parser.add_argument(
        "--repository", metavar="DIR", help="the models to serve (default: those that come with the package)"
    )
    parser.add_argument(
        "--require-signature",
        metavar="KEY",
        help="refuse models that no key of this file (PEM, public) signed, or that changed since",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; options win over it")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout once it listens")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for what is in flight."""
    # gRPC's core writes lines of its own to stderr (a port in use, garbage on a connection).
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from trocar.runtime.server.allocator import keep_large_buffers
    from trocar.runtime.server.app import Server
    from trocar.runtime.server.services import find_services

    keep_large_buffers()
    config = load_config(args.config) if args.config else Config()
    options = ("listen", "repository", "require_signature")
    given = {name: value for name in options if (value := getattr(args, name))}
    config = replace(config, server=replace(config.server, **given))
    _log_to_stderr(config.server.log_level)
    # Blocked before any thread starts, so that every thread leaves them to sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    server = Server(config, find_services())
    server.start()
    if not server.address.local:
        logging.getLogger("trocar.server").warning(
            "%s can be reached from other machines, with no TLS and no authentication", server.address.target
        )
    print(f"listening on {server.address.target}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps({"listening": server.address.target}), flush=True)

    signal.sigwait(STOP_SIGNALS)
    print("draining: finishing what is in flight, taking nothing new", file=sys.stderr, flush=True)
    threading.Thread(target=_hurry_on_signal, args=(server.hurry,), daemon=True).start()
    cut = server.drain()
    if cut:
        raise DeadlineExceeded(f"the drain ended with {cut} request(s) cut short")
    return 0


def _hurry_on_signal(hurry: Callable[[], None]) -> None:
    signal.sigwait(STOP_SIGNALS)
    hurry()


def _log_to_stderr(level: str) -> None:
    """Log what is ours; a library's lines could quote a patient's file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("trocar")
    log.addHandler(handler)
    log.setLevel(level.upper())


COMMAND = Command(
    name="serve",
    help="Serve planning and models over gRPC, on TCP or a Unix socket.",
    configure=configure,
    run=run,
)
