"""A model that answers with what it was asked, so that a round trip is all that its calls cost."""

from __future__ import annotations

from pathlib import Path

from trocar.bench.workloads import _onnx

NAME, INPUT, OUTPUT = "identity", "data", "same"


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
    """The ONNX file: bytes along one axis of any length."""
    shape = ("bytes",)
    return _onnx.model(
        NAME,
        _onnx.node("Identity", [INPUT], OUTPUT),
        _onnx.value("input", INPUT, _onnx.UINT8, shape),
        _onnx.value("output", OUTPUT, _onnx.UINT8, shape),
        opset=18,
    )
