"""`trocar token`: makes, lists and removes the tokens that `trocar serve --tokens` asks for."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from trocar.runtime.server.tokens import Token

EXAMPLES = """\
examples:
  (umask 077; trocar token add planning-system --scope planning > client.token)
  trocar token add theatre-3 --scope video --scope inference/ModelInfer --days 365
  trocar token add monitor                               health and reflection, nothing else
  trocar token list
  trocar token remove theatre-3                          good for another second
  trocar serve --tokens tokens.toml
  trocar plan patient.seg.nrrd --server 127.0.0.1:8001 --token-file client.token

The token is printed once, on stdout; the file keeps its hash, and is its owner's alone. A scope is a service
(planning, video, inference), one of its methods (inference/ModelInfer), or '*'. Of `inference`, leave out
RepositoryModelLoad and RepositoryModelUnload where clients only ask: --scope inference/ModelInfer
--scope inference/ModelMetadata ...
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `trocar token`."""
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|list|remove")
    add = verbs.add_parser("add", help="make a token", allow_abbrev=False)
    add.add_argument("name", metavar="NAME", help="whose it is: letters, digits, '_' and '-'")
    add.add_argument(
        "--scope",
        metavar="SERVICE[/METHOD]",
        action="append",
        default=[],
        help="what it may call; repeatable",
    )
    add.add_argument("--days", metavar="N", type=int, help="how long it is good (default: for ever)")
    add.add_argument(
        "--shared-memory-prefix",
        metavar="TEXT",
        default="",
        help="with which the names of its shared-memory objects have to begin",
    )
    listing = verbs.add_parser("list", help="names, scopes, ends", allow_abbrev=False)
    remove = verbs.add_parser("remove", help="make a token worthless", allow_abbrev=False)
    remove.add_argument("name", metavar="NAME", help="whose it is")
    for verb in (add, listing, remove):
        verb.add_argument(
            "--tokens", metavar="FILE", type=Path, default=Path("tokens.toml"), help="(%(default)s)"
        )
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    return {"add": _add, "list": _list, "remove": _remove}[args.verb](args)


def _add(args: argparse.Namespace) -> int:
    from trocar.runtime.server import tokens

    there = tokens.read_tokens(args.tokens) if args.tokens.exists() else ()
    if args.name in (token.name for token in there):
        raise InvalidInput(
            f"expected a name that {args.tokens} does not have, got {args.name!r}; remove it first"
        )
    if args.days is not None and not 1 <= args.days <= 36_500:
        raise InvalidInput(f"--days: expected 1 to 36500, got {args.days}")
    expires = None if args.days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(args.days)
    scopes = tokens.check_scopes(args.scope, "--scope:")
    secret = tokens.new_secret()
    token = tokens.Token(args.name, tokens.digest(secret), scopes, expires, args.shared_memory_prefix)
    tokens.write_tokens(args.tokens, (*there, token))
    print(json.dumps({"token": secret, **_shown(token)}) if args.json else secret)
    print(f"{args.tokens}: {args.name}, its hash; the token itself is shown this once", file=sys.stderr)
    return 0


def _list(args: argparse.Namespace) -> int:
    from trocar.runtime.server.tokens import read_tokens

    there = read_tokens(args.tokens)
    if args.json:
        print(json.dumps({"tokens": [_shown(token) for token in there]}))
        return 0
    for token in there:
        shown = _shown(token)
        ends = f"until {shown['expires']}" if token.expires else "for ever"
        scopes = ", ".join(sorted(token.scopes)) or "no scopes"
        print(f"{token.name}  {scopes}  {'expired' if token.expired else ends}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from trocar.runtime.server.tokens import read_tokens, write_tokens

    there = read_tokens(args.tokens)
    kept = tuple(token for token in there if token.name != args.name)
    if len(kept) == len(there):
        names = ", ".join(token.name for token in there) or "none"
        raise InvalidInput(f"expected a name of {names}, got {args.name!r}")
    write_tokens(args.tokens, kept)
    if args.json:
        print(json.dumps({"removed": args.name}))
    return 0


def _shown(token: Token) -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": sorted(token.scopes),
        "expires": token.expires.isoformat() if token.expires else None,
        "shared_memory_prefix": token.shared_memory_prefix,
    }


COMMAND = Command(
    name="token",
    help="Make, list and remove the tokens that a server asks its clients for.",
    configure=configure,
    run=run,
)
