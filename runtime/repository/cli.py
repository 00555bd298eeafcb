"""`trocar models`: what a repository holds, whether it is what it says, and who vouches for it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.runtime.repository.store import Model, Repository

MIB = 1 << 20
DIGEST_SHOWN = 12
NOT_OPENED = "not opened here"

EXAMPLES = """\
examples:
  trocar models list                                          the shipped models
  trocar models verify --repository DIR                       every file against its manifest
  trocar models keygen centre.key                             and centre.key.pub, which others may have
  trocar models sign tpgan --key centre.key --repository DIR
  trocar models verify --key centre.key.pub --repository DIR  the signatures too
  trocar serve --repository DIR --require-signature centre.key.pub

exit codes: 0 ok, 1 a model is not what its manifest or signature says, 2 bad input
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of `trocar models`."""
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|verify|sign|keygen")
    listing = verbs.add_parser("list", help="models, versions, tensors", allow_abbrev=False)
    verify = verbs.add_parser(
        "verify", help="check every file against its manifest, and open the graph", allow_abbrev=False
    )
    verify.add_argument("name", nargs="?", metavar="NAME", help="one model (default: all)")
    verify.add_argument(
        "--key", metavar="FILE.pub", default="", help="public keys in PEM, one of which must have signed"
    )
    sign = verbs.add_parser("sign", help="vouch for a model with a private key", allow_abbrev=False)
    sign.add_argument("name", metavar="NAME", help="the model")
    sign.add_argument("--version", type=int, metavar="N", help="which (default: the newest)")
    sign.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="an Ed25519 private key in PEM, mode 0600"
    )
    keygen = verbs.add_parser("keygen", help="make an Ed25519 key pair", allow_abbrev=False)
    keygen.add_argument("key", type=Path, metavar="FILE", help="the private key; the public one is FILE.pub")
    for verb in (listing, verify, sign):
        verb.add_argument(
            "--repository", metavar="DIR", default="", help="a model repository (default: the shipped models)"
        )
    for verb in (listing, verify, sign, keygen):
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    verbs = {"list": _list, "verify": _verify, "sign": _sign, "keygen": _keygen}
    return verbs[args.verb](args)


def _list(args: argparse.Namespace) -> int:
    from trocar.runtime.repository.store import open_repository

    repository = open_repository(args.repository)
    models = [_listed(repository, *each) for each in _versions(repository, repository.names())]
    return _show_models(args, repository, models)


def _verify(args: argparse.Namespace) -> int:
    """Return 1 where a model is not what its manifest or signature says."""
    from trocar.runtime.repository.store import open_repository

    repository = open_repository(args.repository, require_signature=args.key)
    if args.name is not None and not repository.versions(args.name):
        repository.open(args.name)  # says which models there are
    names = repository.names() if args.name is None else (args.name,)
    models = [_verified(repository, *each) for each in _versions(repository, names)]
    return _show_models(args, repository, models)


def _sign(args: argparse.Namespace) -> int:
    from trocar.runtime.errors import InvalidInput
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.sign import read_private_key
    from trocar.runtime.repository.signature import signing_key
    from trocar.runtime.repository.store import open_repository

    repository = open_repository(args.repository)
    if args.key.resolve().is_relative_to(repository.root.resolve()):
        raise InvalidInput(f"--key {args.key}: expected a private key kept elsewhere than with the models")
    key = read_private_key(args.key)
    model = repository.open(args.name, args.version)
    open_model(model)
    place = repository.sign(model, key)
    version, signer = model.manifest.version, signing_key(place.name)
    if args.json:
        document = {"name": args.name, "version": version, "key": signer, "signature": str(place)}
        print(json.dumps(document, indent=2))
    else:
        print(f"{args.name} {version}  signed by {signer}: {place}")
    return 0


def _keygen(args: argparse.Namespace) -> int:
    from trocar.runtime.repository.sign import write_key_pair

    public, key = write_key_pair(args.key)
    if args.json:
        print(json.dumps({"private_key": str(args.key), "public_key": str(public), "key": key}, indent=2))
    else:
        print(f"key {key}: {args.key} signs, keep it to yourself; {public} verifies, hand it out")
    return 0


def _versions(repository: Repository, names: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(name, version) for name in names for version in repository.versions(name)]


def _listed(repository: Repository, name: str, version: int) -> dict[str, Any]:
    from trocar.runtime.errors import ManifestMismatch

    try:
        model = repository.open(name, version)
    except ManifestMismatch as error:
        return {"name": name, "version": version, "error": str(error)}
    manifest = model.manifest.document()
    keys = ("name", "version", "task", "intended_use", "limits", "inputs", "outputs", "opset", "files")
    said = {key: manifest[key] for key in keys}
    return {**said, "bytes": model.size_bytes, "signatures": list(model.signatures)}


def _verified(repository: Repository, name: str, version: int) -> dict[str, Any]:
    from trocar.runtime.errors import ManifestMismatch
    from trocar.runtime.repository.load import FULL

    try:
        model = repository.open(name, version)
        variants = {each: _opened(model, each) for each in (FULL, *model.manifest.variants)}
    except ManifestMismatch as error:
        return {"name": name, "version": version, "error": str(error)}
    return {
        "name": name,
        "version": version,
        "files": dict(model.manifest.files),
        "device": variants.pop(FULL),
        "variants": variants,
        "signed_by": list(model.signed_by),
        "signatures_not_checked": sorted(set(model.signatures) - set(model.signed_by)),
    }


def _opened(model: Model, variant: str) -> str:
    """Return where a variant runs; an engine for another GPU is only checked as a file."""
    from trocar.runtime.errors import DeviceError
    from trocar.runtime.repository.load import open_model

    try:
        return str(open_model(model, variant=variant).device)
    except DeviceError as error:
        return f"{NOT_OPENED}: {error}"


def _show_models(args: argparse.Namespace, repository: Repository, models: list[dict[str, Any]]) -> int:
    if args.json:
        print(json.dumps({"repository": str(repository.root), "models": models}, indent=2))
    elif models:
        print("\n".join(map(_line, models)))
    else:
        print(f"no models in {repository.root}")
    return 1 if any("error" in model for model in models) else 0


def _line(model: dict[str, Any]) -> str:
    """One line a model; names and messages come from files, so nothing in them is markup."""
    label = f"{model['name']} {model['version']}"
    if "error" in model:
        return f"{label}  NOT VALID  {_plain(model['error'])}"
    if "task" in model:
        return f"{label}  {model['bytes'] / MIB:.1f} MiB  opset {model['opset']}  {_plain(model['task'])}"
    digest = model["files"]["model.onnx"][:DIGEST_SHOWN]
    line = f"{label}  ok  {len(model['files'])} files, model.onnx {digest}, runs on {model['device']}"
    unopened = [name for name, place in model["variants"].items() if place.startswith(NOT_OPENED)]
    if unopened:
        line += f"; {NOT_OPENED}: {', '.join(unopened)}"
    if model["signed_by"]:
        line += f"; signed by {', '.join(model['signed_by'])}"
    if model["signatures_not_checked"]:
        line += f"; not checked: signature by {', '.join(model['signatures_not_checked'])}"
    return line


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


COMMAND = Command(
    name="models",
    help="List the models of a repository, check them against their manifests, sign them.",
    configure=configure,
    run=run,
)
