"""`trocar models`: which models a repository holds, and whether they are what their manifests say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.runtime.repository.store import Repository

MIB = 1 << 20
DIGEST_SHOWN = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare `trocar models list` and `trocar models verify`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|verify")
    listing = verbs.add_parser("list", help="models, versions, tensors", allow_abbrev=False)
    verify = verbs.add_parser(
        "verify", help="check every file against its manifest, and open the graph", allow_abbrev=False
    )
    verify.add_argument("name", nargs="?", metavar="NAME", help="one model (default: all)")
    for verb in (listing, verify):
        verb.add_argument(
            "--repository", type=Path, metavar="DIR", help="a model repository (default: the shipped models)"
        )
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """List or verify; 1 where a model is not what its manifest says."""
    from trocar.runtime.repository.store import Repository, shipped

    repository = shipped() if args.repository is None else Repository(args.repository)
    name = args.name if args.verb == "verify" else None
    if name is not None and not repository.versions(name):
        repository.open(name)  # says which models there are
    names = repository.names() if name is None else (name,)
    look = _verified if args.verb == "verify" else _listed
    models = [look(repository, each, version) for each in names for version in repository.versions(each)]
    document = {"repository": str(repository.root), "models": models}
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _show(document)
    return 1 if any("error" in model for model in models) else 0


def _listed(repository: Repository, name: str, version: int) -> dict[str, Any]:
    from trocar.runtime.errors import ManifestMismatch

    try:
        model = repository.open(name, version)
    except ManifestMismatch as error:
        return {"name": name, "version": version, "error": str(error)}
    manifest = model.manifest.document()
    size = sum(model.path(file).stat().st_size for file in model.manifest.files)
    keys = ("name", "version", "task", "intended_use", "limits", "inputs", "outputs", "opset", "files")
    return {**{key: manifest[key] for key in keys}, "bytes": size}


def _verified(repository: Repository, name: str, version: int) -> dict[str, Any]:
    from trocar.runtime.errors import ManifestMismatch
    from trocar.runtime.repository.load import open_model

    try:
        model = repository.open(name, version)
        session = open_model(model)
    except ManifestMismatch as error:
        return {"name": name, "version": version, "error": str(error)}
    files = dict(model.manifest.files)
    return {"name": name, "version": version, "files": files, "device": str(session.device)}


def _show(document: dict[str, Any]) -> None:
    """Print one line a model; names and messages come from files, so nothing in them is markup."""
    if not document["models"]:
        print(f"no models in {document['repository']}")
    for model in document["models"]:
        label = f"{model['name']} {model['version']}"
        if "error" in model:
            print(f"{label}  NOT VALID  {_plain(model['error'])}")
        elif "task" in model:
            size = f"{model['bytes'] / MIB:.1f} MiB"
            print(f"{label}  {size}  opset {model['opset']}  {_plain(model['task'])}")
        else:
            digest = model["files"]["model.onnx"][:DIGEST_SHOWN]
            print(f"{label}  ok  {len(model['files'])} files, model.onnx {digest}, runs on {model['device']}")


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


COMMAND = Command(
    name="models",
    help="List the models of a repository, or check them against their manifests.",
    configure=configure,
    run=run,
)
