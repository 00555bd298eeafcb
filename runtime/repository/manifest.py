"""What a published model says of itself: its tensors, its files' hashes, how it was made, its limits.

`manifest.schema.json` beside this file is the same in JSON Schema, for other tools. Reading is strict: an
unknown key or a number that is not finite is refused, since both mean that somebody else wrote the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import Dim, TensorSpec

SCHEMA = "trocar.manifest/1"
MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
CARD_NAME = "card.md"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 100
# A file that carries code when it is loaded (pickle) is never published: only these are.
FILE_SUFFIXES = (".onnx", ".engine", ".md", ".json")
DTYPES = (
    "bfloat16",
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "string",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)
MAX_RANK = 8
# What runs a file, and its suffix.
FORMATS = {"onnx": ".onnx", "tensorrt": ".engine", "tensorrt-rtx": ".engine"}
PRECISIONS = ("fp32", "fp16", "int8")
MAX_VERSION = 10**9

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VARIANT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
_VARIANT_KEYS = ("file", "format", "precision", "parity", "metrics", "engine")
_FREE = ("training", "metrics", "parity", "novelty")
_FIXED = ("schema", "name", "version", "task", "intended_use", "limits", "inputs", "outputs", "opset")
_KEYS = (*_FIXED, "files", *_FREE)
# What not every model has; a manifest does not say it where there is none.
_OPTIONAL_FREE = ("preprocessing", "postprocessing")
_OPTIONAL = (*_OPTIONAL_FREE, "variants")


@dataclass(frozen=True, slots=True)
class Variant:
    """The same network in another file: fewer bits, or compiled. It has the tensors of `model.onnx`.

    Parameters
    ----------
    file : one of the manifest's files.
    format : one of `FORMATS`.
    precision : one of `PRECISIONS`: of most of its arithmetic.
    parity : how far it is from the network that was trained.
    metrics : figures of the task, measured on it.
    engine : what a compiled one was built for and by; empty for ONNX.
    """

    file: str
    format: str
    precision: str
    parity: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {key: getattr(self, key) for key in _VARIANT_KEYS}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's manifest. `parse_manifest` makes it; the constructor checks nothing.

    Parameters
    ----------
    name, version : as the folders `<name>/<version>` that hold it.
    task : what the network does, in a few words.
    inputs, outputs : its tensors, in the graph's order, with their layouts.
    opset : the ONNX operator set.
    files : SHA-256 in lower-case hex of every file beside the manifest.
    intended_use : who may use it for what.
    limits : what it is known not to do, a sentence each.
    training : what it was trained on and how: data, seeds, versions.
    metrics : what was measured of it.
    parity : how far it is from the network that was trained.
    novelty : statistics of the training inputs, by which an unlike case is told.
    preprocessing, postprocessing : how inputs are made and outputs are read; the network's own terms.
    variants : the same network in other files, by name.
    """

    name: str
    version: int
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    files: Mapping[str, str]
    intended_use: str
    limits: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    novelty: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the JSON document, in the order in which people read it."""
        optional = {key: getattr(self, key) for key in _OPTIONAL_FREE}
        optional["variants"] = {name: variant.document() for name, variant in self.variants.items()}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "intended_use": self.intended_use,
            "limits": list(self.limits),
            "inputs": [_tensor_document(spec) for spec in self.inputs],
            "outputs": [_tensor_document(spec) for spec in self.outputs],
            "opset": self.opset,
            "files": dict(sorted(self.files.items())),
            **{key: value for key, value in optional.items() if value},
            **{key: getattr(self, key) for key in _FREE},
        }

    def encoded(self) -> bytes:
        """Return the file's bytes; the same manifest gives the same bytes."""
        return (json.dumps(self.document(), indent=2, allow_nan=False) + "\n").encode()


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest's bytes; see `parse_manifest`."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"{where}: expected at most {MAX_MANIFEST_BYTES} bytes, got more")
    try:
        document = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: expected a JSON object: {error}") from error
    return parse_manifest(document, where)


def parse_manifest(document: Any, where: str) -> Manifest:
    """Check a manifest's document.

    Parameters
    ----------
    document : as `json.loads` gives it.
    where : begins every message.

    Raises
    ------
    InvalidInput
        A key is missing, unknown, or not what the schema says.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{where}: expected a JSON object, got {type(document).__name__}")
    if document.get("schema") != SCHEMA:
        raise InvalidInput(f"{where}: expected schema {SCHEMA!r}, got {document.get('schema')!r:.80}")
    _require_keys(document, _KEYS, where, optional=_OPTIONAL)
    for key in _FREE:
        _require_json(document[key], f"{where}: {key}")
    for key in _OPTIONAL:
        if key in document:
            _require_json(document[key], f"{where}: {key}")
            if not document[key]:
                raise InvalidInput(f"{where}: {key}: expected at least one entry, or no {key!r} at all")
    files = _files(document["files"], f"{where}: files")
    return Manifest(
        name=require_name(document["name"], where),
        version=require_version(document["version"], where),
        task=_text(document["task"], f"{where}: task"),
        inputs=_tensors(document["inputs"], f"{where}: inputs"),
        outputs=_tensors(document["outputs"], f"{where}: outputs"),
        opset=_integer(document["opset"], 1, 1000, f"{where}: opset"),
        files=files,
        intended_use=_text(document["intended_use"], f"{where}: intended_use"),
        limits=tuple(
            _text(item, f"{where}: limits") for item in _list(document["limits"], f"{where}: limits")
        ),
        training=document["training"],
        metrics=document["metrics"],
        parity=document["parity"],
        novelty=document["novelty"],
        preprocessing=document.get("preprocessing", {}),
        postprocessing=document.get("postprocessing", {}),
        variants=_variants(document.get("variants", {}), files, f"{where}: variants"),
    )


def is_name(name: Any) -> bool:
    """Whether this may be a model's name: it becomes a folder's name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def require_name(name: Any, where: str) -> str:
    """Return a model's name, if it is one."""
    if not is_name(name):
        raise InvalidInput(f"{where}: expected a model name of a-z, 0-9, _ and -, got {name!r:.80}")
    return str(name)


def require_version(version: Any, where: str) -> int:
    """Return a version number, if it is one."""
    return _integer(version, 1, MAX_VERSION, f"{where}: version")


def require_file(name: Any, where: str) -> str:
    """Return a plain file name that may stand beside a manifest."""
    if not (isinstance(name, str) and _FILE.fullmatch(name)) or name == MANIFEST_NAME:
        raise InvalidInput(f"{where}: expected a plain file name, got {name!r:.80}")
    if not name.endswith(FILE_SUFFIXES):
        raise InvalidInput(f"{where}: expected a file of {', '.join(FILE_SUFFIXES)}, got {name!r}")
    return name


def _files(table: Any, where: str) -> dict[str, str]:
    if not isinstance(table, Mapping) or MODEL_NAME not in table or CARD_NAME not in table:
        raise InvalidInput(f"{where}: expected hashes of {MODEL_NAME} and {CARD_NAME}, got {table!r:.80}")
    if len(table) > MAX_FILES:
        raise InvalidInput(f"{where}: expected at most {MAX_FILES} files, got {len(table)}")
    for name, digest in table.items():
        require_file(name, where)
        if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            raise InvalidInput(f"{where}: expected SHA-256 of {name} in lower-case hex, got {digest!r:.80}")
    if len({name.lower() for name in table}) != len(table):
        raise InvalidInput(f"{where}: expected names unlike in any case, got {sorted(table)!r:.200}")
    return dict(table)


def _variants(table: Mapping[str, Any], files: Mapping[str, str], where: str) -> dict[str, Variant]:
    for name in table:
        if not _VARIANT.fullmatch(name):
            raise InvalidInput(f"{where}: expected a name of a-z, 0-9, _, . and -, got {name!r:.80}")
    return {name: _variant(item, files, f"{where}: {name}") for name, item in table.items()}


def _variant(item: Any, files: Mapping[str, str], where: str) -> Variant:
    if not isinstance(item, Mapping):
        raise InvalidInput(f"{where}: expected a JSON object, got {item!r:.80}")
    _require_keys(item, _VARIANT_KEYS, where)
    for key, known in (("format", tuple(FORMATS)), ("precision", PRECISIONS)):
        if item[key] not in known:
            raise InvalidInput(f"{where}: expected a {key} of {', '.join(known)}, got {item[key]!r:.80}")
    file = require_file(item["file"], where)
    if file not in files or not file.endswith(FORMATS[item["format"]]):
        held = ", ".join(sorted(name for name in files if name.endswith(FORMATS[item["format"]])))
        raise InvalidInput(f"{where}: expected one of the files {held or '(none)'}, got {file!r}")
    for key in ("parity", "metrics", "engine"):
        _require_json(item[key], f"{where}: {key}")
    return Variant(**item)


def _tensors(items: Any, where: str) -> tuple[TensorSpec, ...]:
    specs = tuple(_tensor(item, where) for item in _list(items, where))
    if not specs or len({spec.name for spec in specs}) != len(specs):
        raise InvalidInput(f"{where}: expected one tensor or more, with a name each of its own")
    return specs


def _tensor(item: Any, where: str) -> TensorSpec:
    if not isinstance(item, Mapping):
        raise InvalidInput(f"{where}: expected a JSON object, got {item!r:.80}")
    _require_keys(item, ("name", "dtype", "shape", "layout"), where)
    name = item["name"]
    if not (isinstance(name, str) and _TENSOR.fullmatch(name)):
        raise InvalidInput(f"{where}: expected a tensor name, got {name!r:.80}")
    where = f"{where}: {name}"
    if item["dtype"] not in DTYPES:
        raise InvalidInput(f"{where}: expected a dtype of {', '.join(DTYPES)}, got {item['dtype']!r:.80}")
    shape = _list(item["shape"], where)
    if len(shape) > MAX_RANK:
        raise InvalidInput(f"{where}: expected at most {MAX_RANK} axes, got {len(shape)}")
    layout = _text(item["layout"], f"{where} layout")
    return TensorSpec(name, item["dtype"], tuple(_dim(size, where) for size in shape), layout)


def _dim(size: Any, where: str) -> Dim:
    if size is None or (isinstance(size, str) and _TENSOR.fullmatch(size)):
        return size
    return _integer(size, 1, 1 << 31, f"{where} shape")


def _tensor_document(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "layout": spec.layout}


def _require_keys(
    table: Mapping[str, Any], keys: tuple[str, ...], where: str, *, optional: tuple[str, ...] = ()
) -> None:
    known = (*keys, *optional)
    unknown, missing = sorted(set(table) - set(known)), sorted(set(keys) - set(table))
    if unknown:
        raise InvalidInput(f"{where}: unknown key {unknown[0]!r:.80}; known are {', '.join(known)}")
    if missing:
        raise InvalidInput(f"{where}: expected the key {missing[0]!r}, got none")


def _require_json(value: Any, where: str) -> None:
    """Refuse what is no table; what stands in it is nobody's business here, as long as it is JSON."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where}: expected a JSON object, got {value!r:.80}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: expected JSON values: {error}") from error


def _text(value: Any, where: str) -> str:
    if not (isinstance(value, str) and value.strip()):
        raise InvalidInput(f"{where}: expected text, got {value!r:.80}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{where}: expected a list, got {value!r:.80}")
    return value


def _integer(value: Any, least: int, most: int, where: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidInput(f"{where}: expected a whole number from {least} to {most}, got {value!r:.80}")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table
