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
from trocar.runtime.errors import DeadlineExceeded, InvalidInput

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
  watch_s = 0.0            # look this often for new versions of models, and serve them; 0 never
  metrics = ""             # "127.0.0.1:9001": Prometheus reads http://127.0.0.1:9001/metrics; see trocar top
  metrics_public = false   # whether metrics may be an address that other machines reach
  traces = ""              # "http://127.0.0.1:4317": OpenTelemetry's collector; empty: as OTEL_* say
  drain_grace_s = 30.0     # SIGTERM: finish what is in flight, at most this long
  reflection = true
  log_level = "info"
  log_format = "text"      # or "json", an object a line
  [services.planning]      # each service has a table of its own
  processes = 0            # plans computed at once, each in a process; 0: as max_running
  nice = 19                # below the server, so that plans cannot starve a stream
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
    parser.add_argument(
        "--engine",
        choices=("grpc", "ray"),
        default="grpc",
        help="ray: the unary calls behind Ray Serve's proxy, on a cluster (%(default)s)",
    )
    parser.add_argument(
        "--replicas", type=int, default=2, metavar="N", help="workers of --engine ray (%(default)s)"
    )
    parser.add_argument(
        "--ray-address",
        default="",
        metavar="ADDR",
        help="a Ray cluster that runs (default: one on this machine)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; options win over it")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout once it listens")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for what is in flight."""
    # gRPC's core writes lines of its own to stderr (a port in use, garbage on a connection).
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from trocar.runtime.server.allocator import keep_large_buffers
    from trocar.runtime.server.app import Server
    from trocar.runtime.server.notify import keep_alive, notify
    from trocar.runtime.server.services import find_services
    from trocar.runtime.telemetry.logs import log_to_stderr

    keep_large_buffers()
    config = load_config(args.config) if args.config else Config()
    options = ("listen", "repository", "require_signature")
    given = {name: value for name in options if (value := getattr(args, name))}
    config = replace(config, server=replace(config.server, **given))
    log_to_stderr(config.server.log_level, config.server.log_format)
    if args.engine == "ray":
        return _serve_on_ray(config, args)
    # Blocked before any thread starts, so that every thread leaves them to sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    server = Server(config, find_services())
    server.start()
    if not server.address.local:
        logging.getLogger("trocar.server").warning(
            "%s can be reached from other machines, with no TLS and no authentication", server.address.target
        )
    shown = server.telemetry.address
    _say(f"listening on {server.address.target}" + (f", metrics on {shown}" if shown else ""), config)
    if args.json:
        document = {"listening": server.address.target} | ({"metrics": shown} if shown else {})
        print(json.dumps(document), flush=True)
    notify(f"READY=1\nSTATUS=listening on {server.address.target}")
    keep_alive(server.responsive)

    signal.sigwait(STOP_SIGNALS)
    notify("STOPPING=1\nSTATUS=finishing what is in flight")
    _say("draining: finishing what is in flight, taking nothing new", config)
    threading.Thread(target=_hurry_on_signal, args=(server.hurry,), daemon=True).start()
    cut = server.drain()
    if cut:
        raise DeadlineExceeded(f"the drain ended with {cut} request(s) cut short")
    return 0


def _serve_on_ray(config: Config, args: argparse.Namespace) -> int:
    """Serve from a cluster until SIGTERM or SIGINT."""
    for key in ("metrics", "traces", "watch_s"):
        if getattr(config.server, key):
            raise InvalidInput(
                f"[server] {key}: expected none with --engine ray, whose workers share no place for it"
            )
    from trocar.runtime.server.cluster.run import deploy, end

    _say("starting the cluster's workers", config)
    target = deploy(config, replicas=args.replicas, cluster=args.ray_address)
    # Not blocked as above: what Ray starts would inherit that and could not be ended.
    stopped = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopped.set())
    _say(f"listening on {target}", config)
    if args.json:
        print(json.dumps({"listening": target}), flush=True)
    stopped.wait()
    _say("draining: finishing what is in flight, taking nothing new", config)
    end()
    return 0


def _say(line: str, config: Config) -> None:
    """Tell whoever started the server, in the log's form."""
    if config.server.log_format == "json":
        logging.getLogger("trocar.server").info(line)
    else:
        print(line, file=sys.stderr, flush=True)


def _hurry_on_signal(hurry: Callable[[], None]) -> None:
    signal.sigwait(STOP_SIGNALS)
    hurry()


COMMAND = Command(
    name="serve",
    help="Serve planning and models over gRPC, on TCP or a Unix socket.",
    configure=configure,
    run=run,
)
