"""Our messages are the protocol's: field by field what tritonclient's are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trocar.inference_v2 import open_inference_pb2 as ours


def _theirs() -> Any:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed", exc_type=ImportError)
    from tritonclient.grpc import model_config_pb2, service_pb2

    return service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR


def _facts(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    # A label before protobuf 7, a property since.
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    return (field.number, field.type, repeated, kind.full_name if kind else None)


def test_every_field_is_the_protocols() -> None:
    theirs: dict[str, Any] = {}
    for file in _theirs():
        theirs |= dict(file.message_types_by_name)

    def compare(mine: Any, other: Any) -> int:
        for name, field in mine.fields_by_name.items():
            assert _facts(field) == _facts(other.fields_by_name[name]), f"{mine.full_name}.{name}"
        nested = mine.nested_types_by_name
        return len(mine.fields) + sum(
            compare(nested[name], other.nested_types_by_name[name]) for name in nested
        )

    assert (
        sum(compare(mine, theirs[name]) for name, mine in ours.DESCRIPTOR.message_types_by_name.items()) > 100
    )


def test_every_method_and_datatype_is_the_protocols() -> None:
    service, config = _theirs()
    mine = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    other = service.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in mine.items():
        assert method.input_type.full_name == other[name].input_type.full_name
        assert method.output_type.full_name == other[name].output_type.full_name
        assert method.client_streaming == other[name].client_streaming
    from trocar.runtime.server.inference.service import UNSUPPORTED

    assert set(other) == set(mine) | set(UNSUPPORTED)
    assert dict(ours.DataType.items()) == {
        value.name: value.number for value in config.enum_types_by_name["DataType"].values
    }


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_one_process_may_hold_both(first: str) -> None:
    """Two definitions of package `inference` in protobuf's default pool would be an import error."""
    _theirs()
    lines = [
        "from trocar.inference_v2 import open_inference_pb2 as ours",
        "from tritonclient.grpc import service_pb2 as theirs",
    ]
    script = "\n".join(
        [
            *(lines if first == "ours" else lines[::-1]),
            "sent = ours.ModelInferRequest(model_name='m', raw_input_contents=[b'x'])",
            "sent.parameters['timeout'].int64_param = 5",
            "read = theirs.ModelInferRequest.FromString(sent.SerializeToString())",
            "assert ours.ModelInferRequest.FromString(read.SerializeToString()) == sent",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
