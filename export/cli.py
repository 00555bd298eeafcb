"""`trocar export`: a trained network into a model repository."""

from __future__ import annotations

import argparse
import json
import os
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
        "--to",
        default="onnx",
        metavar="WHAT,...",
        help="onnx, fp16, int8, tensorrt, tensorrt-rtx (default %(default)s, which is always among them); "
        "engines are built from fp16 or int8 where those are asked for too",
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
    parser.add_argument(
        "--capabilities",
        default="",
        metavar="SM,...",
        help="GPU generations that a tensorrt-rtx engine is for, such as sm86,sm89 (default: all it knows)",
    )
    parser.add_argument(
        "--engine-cache", type=Path, metavar="DIR", help="engines built before (default: in the user's cache)"
    )
    parser.add_argument(
        "--allow-differences",
        action="store_true",
        help="publish what differs from torch by more than is allowed; manifest and card will say so",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Export and publish; 1 where a file differs too far from the network, and nothing was published."""
    _require_packages()
    from trocar.export.network import find_network
    from trocar.export.publish import export_network
    from trocar.export.variants import EngineOptions
    from trocar.runtime.repository.store import Repository

    exported = export_network(
        find_network(args.network),
        args.checkpoint,
        Repository(args.repository),
        to=_words(args.to),
        version=args.version,
        measured=_tables(args.measured),
        engines=EngineOptions(
            _words(args.capabilities),
            args.engine_cache or _user_cache() / "engines",
            progress=sys.stderr.isatty(),
        ),
        allow_differences=args.allow_differences,
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trocar"


def _document(exported: Exported) -> dict[str, Any]:
    graph, *others = exported.files
    document: dict[str, Any] = {
        "published": exported.model is not None,
        "exceeded": list(exported.exceeded()),
        "parity": graph.parity_document(),
        "variants": {each.variant.name: {"parity": each.parity_document()} for each in others},
    }
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
    exceeded = "; ".join(document["exceeded"])
    if not document["published"]:
        return f"not published: {exceeded} (--allow-differences publishes all the same)"
    files = ", ".join(name for name in document["files"] if not name.endswith(".md"))
    difference = f"model.onnx differs from torch by {document['parity']['max_abs_difference']:.2g} at most"
    past = f"; past tolerance: {exceeded}" if exceeded else ""
    return f"{document['folder']}: published {files}; {difference}{past}"


COMMAND = Command(
    name="export",
    help="Export a trained network to ONNX and TensorRT, compare with torch, publish in a model repository.",
    configure=configure,
    run=run,
)
