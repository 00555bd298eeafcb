"""A model that answers with what it was asked, so that a round trip is all that its calls cost."""

from __future__ import annotations

from pathlib import Path

NAME, INPUT, OUTPUT = "identity", "data", "same"
_UINT8 = 2


def publish(folder: Path) -> None:
    """Publish it: one axis of bytes in, the same out."""
    from trocar.runtime.repository.store import Repository

    def tensor(name: str) -> dict[str, object]:
        return {"name": name, "dtype": "uint8", "shape": ["bytes"], "layout": "bytes"}

    fields = {
        "task": "answers with its input",
        "intended_use": "measuring round trips",
        "limits": [],
        "inputs": [tensor(INPUT)],
        "outputs": [tensor(OUTPUT)],
        "opset": 18,
        "training": {},
        "metrics": {},
        "parity": {},
        "novelty": {},
    }
    Repository(folder).publish(NAME, fields, {"model.onnx": graph(), "card.md": b"# identity\n"})


def graph() -> bytes:
    """The ONNX file, written field by field: serving does not bring the onnx package (onnx.proto, IR 8)."""
    node = _part(1, INPUT.encode()) + _part(2, OUTPUT.encode()) + _part(4, b"Identity")
    body = _part(1, node) + _part(2, NAME.encode()) + _part(11, _value(INPUT)) + _part(12, _value(OUTPUT))
    return _number(1, 8) + _part(7, body) + _part(8, _number(2, 18))


def _value(name: str) -> bytes:
    """A ValueInfoProto of bytes along one axis of any length."""
    shape = _part(1, _part(2, b"bytes"))
    return _part(1, name.encode()) + _part(2, _part(1, _number(1, _UINT8) + _part(2, shape)))


def _part(field: int, content: bytes) -> bytes:
    assert len(content) < 128, "one byte says the length"
    return bytes([field << 3 | 2, len(content)]) + content


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3, value])
