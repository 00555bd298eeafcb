from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.errors import ManifestMismatch
from trocar.runtime.repository.content import check_content

NAMES = ["model.onnx", "card.md", "labels.json", "model.engine"]


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def put(number: int, value: bytes | int) -> bytes:
    """One field in protobuf's wire format; the numbers below are those of onnx.proto."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(location: str | None) -> bytes:
    """A TensorProto: name 8, external_data 13 (key 1, value 2), data_location 14."""
    inner = put(2, 1) + put(8, b"weights")
    if location is None:
        return inner + put(9, b"\0" * 4)
    return inner + put(13, put(1, b"location") + put(2, location.encode())) + put(14, 1)


# Every place of a model in which a tensor can stand.
PLACES = {
    "initializer": lambda t: put(7, put(5, t)),
    "sparse initializer's values": lambda t: put(7, put(15, put(1, t))),
    "sparse initializer's indices": lambda t: put(7, put(15, put(2, t))),
    "constant": lambda t: put(7, put(1, put(4, b"Constant") + put(5, put(5, t)))),
    "list of tensors": lambda t: put(7, put(1, put(5, put(10, t)))),
    "sparse constant": lambda t: put(7, put(1, put(5, put(22, put(1, t))))),
    "list of sparse tensors": lambda t: put(7, put(1, put(5, put(23, put(1, t))))),
    "branch": lambda t: put(7, put(1, put(4, b"If") + put(5, put(6, put(5, t))))),
    "list of graphs": lambda t: put(7, put(1, put(5, put(11, put(5, t))))),
    "branch of a branch": lambda t: put(7, put(1, put(5, put(6, put(1, put(5, put(6, put(5, t)))))))),
    "function": lambda t: put(7, b"") + put(25, put(7, put(5, put(5, t)))),
    "function's default": lambda t: put(7, b"") + put(25, put(11, put(5, t))),
    "training": lambda t: put(7, b"") + put(20, put(1, put(5, t))),
    "training's algorithm": lambda t: put(7, b"") + put(20, put(2, put(5, t))),
}
LOCATIONS = ["weights.bin", "/etc/passwd", "../../outside", "model.onnx", "", "*/_ORT_MEM_ADDR_/*"]


@pytest.mark.parametrize("place", PLACES)
def test_weights_within_are_fine_and_outside_are_named(place: str) -> None:
    check_content("model.onnx", PLACES[place](tensor(None)), "m")
    with pytest.raises(
        ManifestMismatch, match=r"m: expected all weights within it, got 'weights' in another"
    ):
        check_content("model.onnx", PLACES[place](tensor("../../outside")), "m")


@pytest.mark.parametrize("location", LOCATIONS)
def test_no_place_outside_is_a_good_one(location: str) -> None:
    with pytest.raises(ManifestMismatch) as caught:
        check_content("model.onnx", PLACES["initializer"](tensor(location)), "m")
    assert str(caught.value).endswith(f"in another file: {location!r}")


@pytest.mark.parametrize(
    "marks",
    [put(14, 1), put(13, put(1, b"location") + put(2, b"x")), put(14, 1 << 32 | 1), put(14, 0) + put(14, 1)],
)
def test_either_mark_of_external_data_is_enough(marks: bytes) -> None:
    with pytest.raises(ManifestMismatch, match="expected all weights within it"):
        check_content("model.onnx", put(7, put(5, put(8, b"w") + marks)), "m")


def test_a_tensor_in_two_halves_is_one_tensor() -> None:
    """Protobuf merges a message that stands twice; each half alone looks harmless enough."""
    halves = put(5, put(8, b"weights")) + put(5, put(14, 1))
    with pytest.raises(ManifestMismatch, match="expected all weights within it"):
        check_content("model.onnx", put(7, put(1, put(5, halves))), "m")


def test_graphs_that_onnx_wrote(graphs: Path) -> None:
    for name in ("pair", "mixed", "broken_run"):
        check_content("model.onnx", (graphs / f"{name}.onnx").read_bytes(), "m")
    with pytest.raises(ManifestMismatch, match=r"got 'weights' in another file: 'weights\.bin'"):
        check_content("model.onnx", (graphs / "external.onnx").read_bytes(), "m")


def test_compiled_code_in_a_graph() -> None:
    with pytest.raises(ManifestMismatch, match="EPContext"):
        check_content("model.onnx", put(7, put(1, put(4, b"EPContext"))), "m")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without a graph"),
        (put(1, 8), "without a graph"),
        (b"not a graph", "got other bytes"),
        (put(7, b"")[:-1] + b"\x05", "got other bytes"),
        (b"\x1c\0\0\0ORTM" + bytes(64), "ONNX Runtime's own format"),
        (b"PK\x03\x04" + bytes(64), "got one"),
    ],
)
def test_what_is_no_onnx_model(data: bytes, message: str) -> None:
    with pytest.raises(ManifestMismatch, match=message):
        check_content("model.onnx", data, "m")


def test_a_graph_nested_without_end() -> None:
    data = put(5, tensor("x"))
    for _ in range(1000):
        data = put(1, put(5, put(6, data)))
    with pytest.raises(ManifestMismatch, match="got other bytes"):
        check_content("model.onnx", put(7, data), "m")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_under_any_name(name: str, protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = pickle.dumps({"weights": [1.0, Payload()]}, protocol)
    if name == "card.md" and protocol == 0:
        return  # plain text, which a card may be
    with pytest.raises(ManifestMismatch):
        check_content(name, data, "m")
    with pytest.raises(ManifestMismatch):
        check_content(name, data + b"more", "m")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_in_a_zip_as_torch_saves_it(name: str) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    with pytest.raises(ManifestMismatch, match="m: expected no zip, which may hold pickles, got one"):
        check_content(name, stream.getvalue(), "m")


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_as_torch_saved_it_once(name: str) -> None:
    data = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    with pytest.raises(ManifestMismatch, match="m: expected no pickle"):
        check_content(name, data, "m")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("card.md", b"\xff\xfe"),
        ("card.md", b"a\0b"),
        ("labels.json", b"{"),
        ("labels.json", b"\xff"),
        ("labels.json", b"[" * 100_000),
        ("labels.json", b""),
        ("labels.json", b"[" + b"1," * (1 << 23) + b"1]"),
    ],
)
def test_texts_that_are_none(name: str, data: bytes) -> None:
    with pytest.raises(ManifestMismatch, match=r"^m: expected "):
        check_content(name, data, "m")


@pytest.mark.parametrize("magic", [b"ftrt", b"vtrt"])
def test_ordinary_files(magic: bytes) -> None:
    check_content("card.md", "# Paar: Größe.\n".encode(), "m")
    check_content("labels.json", json.dumps({"shaft": 2}).encode(), "m")
    check_content("model.engine", magic + bytes(range(256)), "m")


def said_of(name: str, data: bytes) -> str:
    """What the check says, after the place; nothing where it takes the file."""
    try:
        check_content(name, data, "here")
    except ManifestMismatch as error:
        return str(error).removeprefix("here: ")
    return "expected"


@given(st.sampled_from(NAMES), st.binary())
def test_any_bytes_are_taken_or_refused_in_words(name: str, data: bytes) -> None:
    assert said_of(name, data).startswith("expected")


@given(st.data())
def test_a_damaged_graph_is_taken_or_refused_in_words(graphs: Path, data: st.DataObject) -> None:
    graph = bytearray((graphs / "external.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    assert said_of("model.onnx", bytes(graph)).startswith("expected")
