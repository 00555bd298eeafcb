"""What a model's files may be, by their bytes: a suffix is only what somebody called them.

Nothing here carries code that runs when it is read (pickle does, alone or in a zip), and nothing draws on a
file that the manifest does not vouch for. ONNX Runtime cannot be left to check the latter: 1.20 opens
weights at absolute paths and in the working directory, and crashes on an address given as a place.
"""

from __future__ import annotations

import json
import pickletools
from collections.abc import Iterator
from itertools import islice
from typing import Any

from trocar.runtime.errors import ManifestMismatch

ENGINE_SUFFIX, JSON_SUFFIX, ONNX_SUFFIX = ".engine", ".json", ".onnx"
MAX_TEXT_BYTES = 1 << 24

_ZIP = b"PK"
_PICKLE_PROTOCOLS = range(2, 6)
# So many in a row are no accident.
_OPCODES = 1000
# ONNX Runtime's own format, which it knows by these bytes at this place, in any file.
_ORT_AT, _ORT = 4, b"ORTM"
_EXTERNAL = 1
# A node that names a file of compiled code, or holds it.
_COMPILED = b"EPContext"

# The parts of onnx.proto that can hold tensors, by field number. Protobuf's own parser reads by it, since one
# written here could see another message than ONNX Runtime does. The rest is skipped as unknown.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "training_info": (20, "Training*"), "functions": (25, "Function*")},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"node": (7, "Node*"), "attribute_proto": (11, "Attribute*")},
    "Graph": {"node": (1, "Node*"), "initializer": (5, "Tensor*"), "sparse_initializer": (15, "Sparse*")},
    "Node": {"op_type": (4, "bytes"), "attribute": (5, "Attribute*")},
    "Attribute": {
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "sparse_tensor": (22, "Sparse"),
        "sparse_tensors": (23, "Sparse*"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Tensor": {"name": (8, "bytes"), "external_data": (13, "Entry*"), "data_location": (14, "int32")},
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
}


def check_content(name: str, data: bytes, where: str) -> None:
    """Check that a file's bytes are what its suffix says, and that it needs no other file.

    Parameters
    ----------
    name : the file's name, with one of the manifest's suffixes.
    where : begins every message.

    Raises
    ------
    ManifestMismatch
        It is a pickle or a zip; a graph that is none, or has weights outside; or text that is none.
    """
    engine = name.endswith(ENGINE_SUFFIX)
    if _is_pickle(data) or (engine and _is_old_pickle(data)):
        raise ManifestMismatch(f"{where}: expected no pickle, which runs code when it is loaded, got one")
    if data.startswith(_ZIP):
        raise ManifestMismatch(f"{where}: expected no zip, which may hold pickles, got one")
    if name.endswith(ONNX_SUFFIX):
        _check_graph(data, where)
    elif not engine:
        _check_text(name, data, where)


def _is_pickle(data: bytes) -> bool:
    return data[:1] == b"\x80" and data[1:2] != b"" and data[1] in _PICKLE_PROTOCOLS


def _is_old_pickle(data: bytes) -> bool:
    """Tell protocols 0 and 1, which begin with no mark; a text that happens to be one is still a text."""
    try:
        return all(True for _ in islice(pickletools.genops(data), _OPCODES))
    except Exception:  # whatever it says of bytes that are no pickle
        return False


def _check_text(name: str, data: bytes, where: str) -> None:
    if len(data) > MAX_TEXT_BYTES:
        raise ManifestMismatch(f"{where}: expected text of at most {MAX_TEXT_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8")
        if name.endswith(JSON_SUFFIX):
            json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestMismatch(f"{where}: expected what its suffix says, as UTF-8: {error}") from error
    if "\0" in text:
        raise ManifestMismatch(f"{where}: expected text, got a zero byte")


def _check_graph(data: bytes, where: str) -> None:
    from google.protobuf.message import DecodeError

    if data[_ORT_AT : _ORT_AT + len(_ORT)] == _ORT:
        raise ManifestMismatch(f"{where}: expected an ONNX model, got ONNX Runtime's own format")
    model = _message("Model")()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ManifestMismatch(f"{where}: expected an ONNX model, got other bytes") from error
    if not model.HasField("graph"):
        raise ManifestMismatch(f"{where}: expected an ONNX model, got one without a graph")
    for message in _parts(model):
        kind = message.DESCRIPTOR.name
        if kind == "Node" and message.op_type == _COMPILED:
            raise ManifestMismatch(f"{where}: expected a graph, got a node of compiled code (EPContext)")
        if kind == "Tensor" and (message.external_data or message.data_location == _EXTERNAL):
            place = next((entry.value for entry in message.external_data if entry.key == b"location"), b"")
            raise ManifestMismatch(
                f"{where}: expected all weights within it, got {_text(message.name)!r:.80} in another file: "
                f"{_text(place)!r:.200}"
            )


def _parts(message: Any) -> Iterator[Any]:
    """Every message within a message, itself first."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "DESCRIPTOR") else value:
                yield from _parts(part)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _message(name: str) -> Any:
    """Return the class of one of `_MESSAGES`."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    # A pool of its own: an application may have the whole of ONNX in the common one.
    pool = DescriptorPool()
    file = FileDescriptorProto(name="onnx_parts.proto", syntax="proto2")
    plain = {"bytes": Field.TYPE_BYTES, "int32": Field.TYPE_INT32}
    for title, fields in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for field, (number, kind) in fields.items():
            many = kind.endswith("*")
            added = message.field.add(
                name=field, number=number, label=Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
            )
            kind = kind.removesuffix("*")
            added.type = plain.get(kind, Field.TYPE_MESSAGE)
            if kind not in plain:
                added.type_name = f".{kind}"
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))
