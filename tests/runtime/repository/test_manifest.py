from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.manifest import Variant, decode_manifest, parse_manifest
from trocar.runtime.session.base import TensorSpec


@pytest.fixture
def document(fields: dict[str, Any]) -> dict[str, Any]:
    digests = {"model.onnx": "0" * 64, "card.md": "f" * 64}
    return {"schema": "trocar.manifest/1", "name": "pair", "version": 3, "files": digests, **fields}


@pytest.fixture(scope="module")
def schema() -> Any:
    text = resources.files("trocar.runtime.repository").joinpath("manifest.schema.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


def test_reading_gives_what_is_written(document: dict[str, Any], schema: Any) -> None:
    manifest = parse_manifest(document, "m")
    assert manifest.version == 3
    assert manifest.inputs[0] == TensorSpec("left", "float32", ("batch", 2, 3))
    assert manifest.inputs[0].layout == "batch row column"
    assert manifest.document() == document
    assert decode_manifest(manifest.encoded(), "m") == manifest
    schema.validate(json.loads(manifest.encoded()))


def test_axes_may_be_unnamed_and_tensors_scalar(document: dict[str, Any], schema: Any) -> None:
    document["inputs"][0]["shape"] = [None, 4]
    document["outputs"][0]["shape"] = []
    assert parse_manifest(document, "m").inputs[0].shape == (None, 4)
    schema.validate(document)


FP16 = {"file": "model.fp16.onnx", "format": "onnx", "precision": "fp16", "parity": {"p": 1}, "metrics": {}}
ENGINE = {**FP16, "file": "model.sm89.engine", "format": "tensorrt-rtx", "engine": {"library": "1.2"}}


@pytest.fixture
def full(document: dict[str, Any]) -> dict[str, Any]:
    """A document with everything that not every model has."""
    document["files"] |= {"model.fp16.onnx": "1" * 64, "model.sm89.engine": "2" * 64}
    document["variants"] = {"fp16": {**FP16, "engine": {}}, "tensorrt-rtx-fp16-sm89": dict(ENGINE)}
    return {**document, "preprocessing": {"scale": [0.5]}, "postprocessing": {"mode": "argmax"}}


def test_reading_a_full_manifest_gives_what_is_written(full: dict[str, Any], schema: Any) -> None:
    manifest = parse_manifest(full, "m")
    assert manifest.variants["fp16"] == Variant("model.fp16.onnx", "onnx", "fp16", {"p": 1}, {}, {})
    assert manifest.variants["tensorrt-rtx-fp16-sm89"].engine == {"library": "1.2"}
    assert manifest.preprocessing == {"scale": [0.5]}
    assert manifest.document() == full
    assert decode_manifest(manifest.encoded(), "m") == manifest
    schema.validate(json.loads(manifest.encoded()))


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at a path: `put("inputs", 0, "dtype", "complex64")`."""

    def change(document: Any) -> None:
        for key in path[:-2]:
            document = document[key]
        document[path[-2]] = path[-1]

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


# What is refused, by the reader and by the schema alike, and what the message must name.
REFUSED = [
    (put("schema", "trocar.manifest/2"), "expected schema 'trocar.manifest/1', got 'trocar.manifest/2'"),
    (put("schema", None), "expected schema"),
    (drop("limits"), "expected the key 'limits'"),
    (drop("novelty"), "expected the key 'novelty'"),
    (put("signature", "x"), "unknown key 'signature'"),
    (put("name", "../pair"), "expected a model name"),
    (put("name", "pair/1"), "expected a model name"),
    (put("name", ""), "expected a model name"),
    (put("name", ".hidden"), "expected a model name"),
    (put("name", "Pair"), "expected a model name"),
    (put("name", 7), "expected a model name"),
    (put("version", 0), "version: expected a whole number"),
    (put("version", -1), "version: expected a whole number"),
    (put("version", "3"), "version: expected a whole number"),
    (put("version", True), "version: expected a whole number"),
    (put("version", 10**30), "version: expected a whole number"),
    (put("opset", 17.5), "opset: expected a whole number"),
    (put("task", "  "), "task: expected text"),
    (put("intended_use", None), "intended_use: expected text"),
    (put("limits", "none"), "limits: expected a list"),
    (put("limits", [3]), "limits: expected text"),
    (put("training", []), "training: expected a JSON object"),
    (put("inputs", []), "inputs: expected one tensor or more"),
    (put("inputs", {}), "inputs: expected a list"),
    (put("inputs", ["left"]), "inputs: expected a JSON object"),
    (put("inputs", 0, "dtype", "complex64"), "left: expected a dtype"),
    (put("inputs", 0, "dtype", ["float32"]), "left: expected a dtype"),
    (put("inputs", 0, "name", "a b"), "expected a tensor name"),
    (put("inputs", 0, "extra", 1), "unknown key 'extra'"),
    (put("inputs", 0, "layout", ""), "layout: expected text"),
    (put("inputs", 0, "shape", "2x3"), "expected a list"),
    (put("inputs", 0, "shape", [0, 3]), "shape: expected a whole number"),
    (put("inputs", 0, "shape", [-1, 3]), "shape: expected a whole number"),
    (put("inputs", 0, "shape", [2.5]), "shape: expected a whole number"),
    (put("inputs", 0, "shape", [1] * 9), "at most 8 axes"),
    (put("files", []), "files: expected hashes"),
    (put("files", {"model.onnx": "0" * 64}), "files: expected hashes of model.onnx and card.md"),
    (put("files", "../weights.onnx", "0" * 64), "expected a plain file name, got '../weights.onnx'"),
    (put("files", "/etc/passwd.md", "0" * 64), "expected a plain file name"),
    (put("files", "a/b.onnx", "0" * 64), "expected a plain file name"),
    (put("files", "a\\b.onnx\n", "0" * 64), "expected a plain file name"),
    (put("files", ".hidden.md", "0" * 64), "expected a plain file name"),
    (put("files", "manifest.json", "0" * 64), "expected a plain file name"),
    (
        put("files", "weights.pkl", "0" * 64),
        "expected a file of .onnx, .engine, .md, .json, got",
    ),
    (put("files", "weights.pt", "0" * 64), "expected a file of"),
    (put("files", "model.onnx.data", "0" * 64), "expected a file of"),
    (put("files", "card.md", "0" * 63), "expected SHA-256"),
    (put("files", "card.md", "F" * 64), "expected SHA-256"),
    (put("files", "card.md", None), "expected SHA-256"),
]


FULL_REFUSED = [
    (put("variants", {}), "variants: expected at least one entry"),
    (put("variants", []), "variants: expected a JSON object"),
    (put("preprocessing", {}), "preprocessing: expected at least one entry"),
    (put("postprocessing", "argmax"), "postprocessing: expected a JSON object"),
    (put("variants", "Bad/name", {**FP16, "engine": {}}), "variants: expected a name of"),
    (put("variants", "fp16", "model.onnx"), "variants: fp16: expected a JSON object"),
    (put("variants", "fp16", FP16), "fp16: expected the key 'engine'"),
    (put("variants", "fp16", "code", "x"), "unknown key 'code'"),
    (put("variants", "fp16", "format", "pickle"), "expected a format of onnx, tensorrt, tensorrt-rtx"),
    (put("variants", "fp16", "format", ["onnx"]), "expected a format of"),
    (put("variants", "fp16", "precision", "fp64"), "expected a precision of fp32, fp16, int8"),
    (put("variants", "fp16", "file", "../model.onnx"), "expected a plain file name"),
    (
        put("variants", "fp16", "file", "model.sm89.engine"),
        "expected one of the files model.fp16",
    ),
    (
        put("variants", "tensorrt-rtx-fp16-sm89", "file", "model.onnx"),
        "expected one of the files model.sm",
    ),
    (put("variants", "fp16", "parity", None), "parity: expected a JSON object"),
]


@pytest.mark.parametrize(("change", "message"), FULL_REFUSED)
def test_reader_and_schema_refuse_variants(
    full: dict[str, Any], schema: Any, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    hostile = copy.deepcopy(full)
    change(hostile)
    with pytest.raises(InvalidInput) as refused:
        parse_manifest(hostile, "m")
    assert message in str(refused.value)
    assert not schema.is_valid(hostile)


def test_a_variant_is_one_of_the_files(full: dict[str, Any]) -> None:
    del full["files"]["model.fp16.onnx"]
    with pytest.raises(InvalidInput, match=r"fp16: expected one of the files model\.onnx, got 'model\.fp16"):
        parse_manifest(full, "m")


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_reader_and_schema_refuse(
    document: dict[str, Any], schema: Any, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    hostile = copy.deepcopy(document)
    change(hostile)
    with pytest.raises(InvalidInput) as refused:
        parse_manifest(hostile, "m")
    assert message in str(refused.value)
    assert str(refused.value).startswith("m: ")
    assert len(str(refused.value)) < 400
    assert not schema.is_valid(hostile)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
PLACES = ("schema", "name", "version", "limits", "inputs", "opset", "files", "training", "task", "variants")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_whatever_stands_there_is_refused_or_valid(
    document: dict[str, Any], schema: Any, place: str, value: Any
) -> None:
    hostile = {**document, place: value}
    try:
        manifest = parse_manifest(hostile, "m")
    except InvalidInput:
        return
    schema.validate(hostile)
    assert manifest.document() == hostile
    assert decode_manifest(manifest.encoded(), "m") == manifest


def test_tensor_names_are_unique(document: dict[str, Any]) -> None:
    document["inputs"][1]["name"] = "left"
    with pytest.raises(InvalidInput, match="a name each of its own"):
        parse_manifest(document, "m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"{" * 10_000,
        b"[" * 200_000,
        b'{"schema": "trocar.manifest/1", "schema": "trocar.manifest/1"}',
        b'{"schema": ' + b"9" * 10_000 + b"}",
        b" " * ((1 << 20) + 1),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^m: expected"):
        decode_manifest(data, "m")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(document: dict[str, Any], number: str) -> None:
    text = json.dumps(document).replace("0.5", number)
    with pytest.raises(InvalidInput, match="m: "):
        decode_manifest(text.encode(), "m")
