"""`trocar export`: a trained network into a model repository."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.export.publish import Exported

# What the `train` extra installs, by the name to import.
NEEDED = ("torch", "onnx", "onnxscript", "safetensors")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `trocar export`."""
    parser.add_argument("network", metavar="NETWORK", help="a registered network, such as tpgan")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="F.safetensors", help="what training wrote"
    )
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="the model repository to publish in"
    )
    parser.add_argument("--version", type=int, metavar="N", help="one not taken yet (default: the next)")
    parser.add_argument(
        "--measured",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="a measurement by `trocar bench run`; its tables go into the card (may be repeated)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Export and publish; 1 where the graph differs from the network, and nothing was published."""
    _require_packages()
    from trocar.export.network import find_network
    from trocar.export.publish import export_network
    from trocar.runtime.repository.store import Repository

    exported = export_network(
        find_network(args.network),
        args.checkpoint,
        Repository(args.repository),
        version=args.version,
        measured=_tables(args.measured),
        say=lambda text: print(f"trocar: {text}", file=sys.stderr),
    )
    document = _document(exported)
    print(json.dumps(document, indent=2) if args.json else _line(document))
    return 0 if exported.model is not None else 1


def _require_packages() -> None:
    from importlib.util import find_spec

    from trocar.runtime.errors import InvalidInput

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InvalidInput(
            f"export needs {', '.join(missing)}, not installed here: pip install 'trocar[train]'"
        )


def _tables(files: list[Path]) -> dict[str, Any]:
    """Tables of measurements, rows by title, each title with the command that gives it again."""
    from trocar.runtime.errors import InvalidInput

    tables: dict[str, Any] = {}
    for file in files:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            for title, rows in document["tables"].items():
                tables[f"{document['workload']}: {title} (`{document['command']}`)"] = list(rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"--measured {file}: expected a measurement with tables: {error}") from error
    return tables


def _document(exported: Exported) -> dict[str, Any]:
    document: dict[str, Any] = {"published": exported.model is not None, "parity": exported.parity.document()}
    if exported.model is not None:
        manifest = exported.model.manifest
        document |= {
            "name": manifest.name,
            "version": manifest.version,
            "folder": str(exported.model.folder),
            "files": dict(manifest.files),
        }
    return document


def _line(document: dict[str, Any]) -> str:
    parity = document["parity"]
    difference = (
        f"differs from torch by {parity['max_abs_difference']} at most, {parity['tolerance']} allowed"
    )
    if document["published"]:
        return f"{document['folder']}: published; {difference}"
    return f"not published: the graph {difference}"


COMMAND = Command(
    name="export",
    help="Export a trained network to ONNX, compare it with torch, publish it in a model repository.",
    configure=configure,
    run=run,
)
