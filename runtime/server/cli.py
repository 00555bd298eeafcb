"""`trocar serve`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trocar.runtime.command import Command
from trocar.runtime.config import AuthConfig, Config, ServerConfig, TlsConfig, load_config
from trocar.runtime.errors import DeadlineExceeded, InvalidInput

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

EXAMPLES = """\
examples:
  trocar serve                                       listens on 127.0.0.1:8001
  trocar serve --listen unix:/run/trocar.sock        no TCP at all; the socket is its owner's alone
  trocar serve --listen 127.0.0.1:0 --json           a free port, printed as {"listening": "127.0.0.1:PORT"}
  trocar serve --repository DIR --require-signature centre.key.pub     only models that this key signed
  trocar serve --config trocar.toml
  trocar serve --listen 0.0.0.0:8001 --tls-cert server.pem --tls-key server.key --tokens tokens.toml
                                                     for other machines; `trocar token add` makes tokens

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
  reflection = false       # whether grpcurl and the like may ask what there is
  insecure = false         # whether other machines may reach it without TLS
  log_level = "info"
  log_format = "text"      # or "json", an object a line
  [server.tls]             # PEM files, read anew when they change
  certificate = ""         # the server's own and its chain; empty: no TLS
  key = ""                 # its private key, which others on the machine cannot read
  client_ca = ""           # clients need a certificate of one of these authorities; empty: they need none
  [server.auth]
  tokens = ""              # the file that `trocar token` keeps; empty: whoever reaches the port may call
  [server.clients]
  requests_per_s = 0.0     # of one token, else of one address; more is RESOURCE_EXHAUSTED; 0: no limit
  burst = 100              # at once, before that rate holds
  max_connections = 64     # of all clients together
  [services.planning]      # each service has a table of its own
  processes = 0            # plans computed at once, each in a process; 0: as max_running
  cpu = "idle"             # what plans claim of a core that a stream wants: idle (next to nothing),
                           # low (a tenth) or normal (as much)
  max_budget_ms = 60000.0  # the longest search a caller may ask for
  [services.inference]     # the Open Inference Protocol v2
  load_at_start = true     # every model of the repository; else by RepositoryModelLoad
  threads = 1              # of each model
  run_limit_s = 30.0       # a run that takes longer is ended, and its call DEADLINE_EXCEEDED
  shared_memory = true     # whether clients may register POSIX shared memory of the server's user
  shared_memory_prefix = ""  # with which its names have to begin
  [services.inference.batching]
  models = ""              # whose requests are merged, such as "polyp,tpgan"; empty: none
  max_batch = 8            # rows of a batch
  window_ms = 2.0          # how long the first request of a batch waits for others

Without --tokens whoever reaches the port may call; without TLS it listens on this machine only.
SECURITY.md says what each defence covers.
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
    group = parser.add_argument_group("who may call")
    group.add_argument("--tls-cert", metavar="FILE", help="the server's certificate and chain, PEM")
    group.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    group.add_argument(
        "--tls-client-ca", metavar="FILE", help="clients need a certificate of these authorities, PEM"
    )
    group.add_argument("--tokens", metavar="FILE", help="calls need a token of this file; see `trocar token`")
    group.add_argument(
        "--insecure", action="store_true", help="listen where other machines can reach it, even without TLS"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; options win over it")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout once it listens")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for what is in flight."""
    # gRPC's core writes lines of its own to stderr (a port in use, garbage on a connection).
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The thread that waits for events reads the sockets itself. By gRPC's own choice other threads read, wake
    # it, and write for it. A gRPC that has no such choice any more ignores this.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from trocar.runtime.server.allocator import keep_large_buffers
    from trocar.runtime.server.app import Server
    from trocar.runtime.server.notify import keep_alive, notify
    from trocar.runtime.server.services import find_services
    from trocar.runtime.telemetry.logs import log_to_stderr

    keep_large_buffers()
    config = load_config(args.config) if args.config else Config()
    config = replace(config, server=_with_options(config.server, args))
    log_to_stderr(config.server.log_level, config.server.log_format)
    if args.engine == "ray":
        return _serve_on_ray(config, args)
    # Blocked before any thread starts, so that every thread leaves them to sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    server = Server(config, find_services())
    server.start()
    # What is there now stays: the collector need not walk through it in the middle of a request.
    gc.collect()
    gc.freeze()
    if not server.address.local and not (config.server.tls.certificate and config.server.auth.tokens):
        logging.getLogger("trocar.server").warning(
            "%s can be reached from other machines, %s TLS, %s tokens",
            server.address.target,
            "with" if config.server.tls.certificate else "without",
            "with" if config.server.auth.tokens else "without",
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


def _with_options(config: ServerConfig, args: argparse.Namespace) -> ServerConfig:
    """Return the configuration with what the command line says in its place."""

    def given(**options: str | bool | None) -> dict[str, Any]:
        return {name: value for name, value in options.items() if value}

    return replace(
        config,
        tls=replace(
            config.tls, **given(certificate=args.tls_cert, key=args.tls_key, client_ca=args.tls_client_ca)
        ),
        auth=replace(config.auth, **given(tokens=args.tokens)),
        **given(
            listen=args.listen,
            repository=args.repository,
            require_signature=args.require_signature,
            insecure=args.insecure,
        ),
    )


def _serve_on_ray(config: Config, args: argparse.Namespace) -> int:
    """Serve from a cluster until SIGTERM or SIGINT."""
    server = config.server
    if server.tls != TlsConfig() or server.auth != AuthConfig():
        raise InvalidInput(
            "--engine ray: expected no TLS and no tokens, which Ray's proxy does not have, got some"
        )
    if not server.insecure:
        raise InvalidInput(
            "--engine ray: expected --insecure with it: Ray's proxy listens on every address without TLS"
        )
    for key in ("metrics", "traces", "watch_s"):
        if getattr(server, key):
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
        # A full disk behind stderr is no reason to end.
        with contextlib.suppress(OSError):
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
