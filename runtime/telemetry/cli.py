"""`trocar top`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from trocar.runtime.server.address import Address

DEFAULT = "127.0.0.1:9001"
EXAMPLES = """\
examples:
  trocar top                             a server's requests, queue, models and memory, until Ctrl-C
  trocar top 127.0.0.1:9100 --every 5    of a server with metrics elsewhere, averaged over 5 s
  trocar top --once                      one table, for the second that it waits
  trocar top --json                      the same as one JSON document

The server has to show its metrics; in its trocar.toml:
  [server]
  metrics = "127.0.0.1:9001"

p50 and p99 come from histograms: within a bucket (from 0.2 ms each about twice the last) times count as
spread evenly. A stream is a request that lasts as long as it does.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trocar top`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "address",
        nargs="?",
        default=DEFAULT,
        metavar="ADDR",
        help=f"where the metrics are (default: {DEFAULT})",
    )
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="between two looks (default: 1)"
    )
    parser.add_argument("--once", action="store_true", help="look for one interval, print, and end")
    parser.add_argument("--json", action="store_true", help="one interval as a JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Show what a server does."""
    from trocar.runtime.server.address import parse_address
    from trocar.runtime.telemetry.reading import document, read

    address = parse_address(args.address.removeprefix("http://").removesuffix("/").removesuffix("/metrics"))
    if address.path is not None or not 0.1 <= args.every <= 3600:
        raise InvalidInput(
            f"expected host:port and --every 0.1 to 3600, got {args.address!r} and {args.every:g}"
        )
    before = read(address)
    if args.once or args.json or not sys.stdout.isatty():
        time.sleep(args.every)
        found = document(before, read(address))
        if args.json:
            print(json.dumps(found, allow_nan=False))
        else:
            _print(found, address)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(address, args.every, before)
    return 0


def _print(found: dict[str, Any], address: Address) -> None:
    from rich.console import Console

    from trocar.runtime.telemetry.show import view

    Console().print(view(found, address.target))


def _watch(address: Address, every_s: float, before: Any) -> None:
    from rich.live import Live

    from trocar.runtime.telemetry.reading import document, read
    from trocar.runtime.telemetry.show import view

    found: dict[str, Any] | None = None
    with Live(f"reading {address.target} ...", auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(every_s)
            try:
                after = read(address)
            except Unavailable as error:
                # It may come back; until then the last that it said stays, and says so.
                live.update(view(found, address.target, lost=str(error)), refresh=True)
                continue
            found, before = document(before, after), after
            live.update(view(found, address.target), refresh=True)


COMMAND = Command(
    name="top",
    help="Show what a running server does: requests, latency, queue, models, memory.",
    configure=configure,
    run=run,
)
