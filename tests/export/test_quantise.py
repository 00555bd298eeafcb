"""Fewer bits, on graphs small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.ort import open_session

onnx = pytest.importorskip("onnx", reason="onnx is not installed (train extra)")
pytest.importorskip("onnx_ir", reason="onnx_ir is not installed (train extra)")

from trocar.export.quantise import to_fp16, to_int8  # noqa: E402

FLOAT, HALF, INT8 = 1, 10, 3


@pytest.fixture
def graph() -> bytes:
    """y = conv(x, [[1, -0.5], [0.25, 100]]) + [3, 0.001], one pixel wide, two channels."""
    weights = np.array([[1.0, -0.5], [0.25, 100.0]], np.float32).reshape(2, 2, 1, 1)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Conv", ["x", "w", "b"], ["c"]),
                onnx.helper.make_node("Relu", ["c"], ["y"]),
            ],
            "graph",
            [onnx.helper.make_tensor_value_info("x", FLOAT, ["batch", 2, 1, 3])],
            [onnx.helper.make_tensor_value_info("y", FLOAT, ["batch", 2, 1, 3])],
            [
                onnx.numpy_helper.from_array(weights, "w"),
                onnx.numpy_helper.from_array(np.array([3.0, 0.001], np.float32), "b"),
            ],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    model.metadata_props.add(key="name", value="conv")
    return model.SerializeToString()


def inputs(seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).uniform(-1, 1, (4, 2, 1, 3)).astype(np.float32)}


def types(model: Any) -> dict[str, int]:
    """Element types of every tensor in a graph, by name; all of them must be said."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found |= {each.name: each.data_type for each in graph.initializer}
    missing = [name for node in graph.node for name in node.output if name not in found]
    assert missing == [], "a tensor without a type and a shape"
    return found


def test_float16_is_in_every_tensor_but_those_that_the_caller_sees(graph: bytes) -> None:
    written = to_fp16(graph)
    model = onnx.load_from_string(written)
    found = types(model)
    assert (found["x"], found["y"]) == (FLOAT, FLOAT)
    inner = {name: kind for name, kind in found.items() if name not in ("x", "y")}
    assert inner
    assert set(inner.values()) == {HALF}
    assert {each.key: each.value for each in model.metadata_props} == {"name": "conv", "precision": "fp16"}
    feeds = inputs(1)
    exact, half = (open_session(each, device="cpu").run(feeds)["y"] for each in (graph, written))
    # 11 bits of up to 100 from two products: a few times 100 / 2048.
    assert 0 < np.abs(exact - half).max() < 0.2
    assert half.dtype == np.float32


def test_float16_keeps_scales_that_two_resizes_share(graph: bytes) -> None:
    """In float16, 4/3 of a width of 3 is rounded down to 3."""
    model = onnx.load_from_string(graph)
    nodes = model.graph.node
    del nodes[1]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 1, 4 / 3], np.float32), "scales")
    model.graph.initializer.append(scales)
    # torch's exporter says the types of its constants too, and the converter believes it.
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("scales", FLOAT, [4]))
    for number in (0, 1):
        nodes.append(
            onnx.helper.make_node(
                "Resize", ["c", "", "scales"], [f"r{number}"], mode="nearest", name=f"n{number}"
            )
        )
    nodes.append(onnx.helper.make_node("Add", ["r0", "r1"], ["y"]))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 4
    written = to_fp16(model.SerializeToString())
    model_written = onnx.load_from_string(written)
    found = types(model_written)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model_written.graph.initializer}
    resizes = [node for node in model_written.graph.node if node.op_type == "Resize"]
    assert len(resizes) == 2
    for node in resizes:
        assert (found[node.input[0]], found[node.output[0]]) == (HALF, HALF)
        np.testing.assert_array_equal(constants[node.input[2]], np.array([1, 1, 1, 4 / 3], np.float32))
    assert [node.op_type for node in model_written.graph.node].count("Cast") == 2, "the input, the output"
    feeds = inputs(1)
    exact, half = (
        open_session(each, device="cpu").run(feeds)["y"] for each in (model.SerializeToString(), written)
    )
    assert exact.shape == half.shape == (4, 2, 1, 4)
    assert 0 < np.abs(exact - half).max() < 0.4


def test_int8_has_scales_by_channel_and_a_float_bias(graph: bytes) -> None:
    written = to_int8(graph, [inputs(2), inputs(3)])
    model = onnx.load_from_string(written)
    found = types(model)
    assert (found["x"], found["y"], found["b"]) == (FLOAT, FLOAT, FLOAT), "TensorRT takes no int32 bias"
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    (quantised,) = (array for array in weights.values() if array.shape == (2, 2, 1, 1))
    # Each output channel's largest weight is 127: 1 and 100.
    assert quantised.reshape(2, 2).tolist() == [[127, -64], [0, 127]]
    zeros = [array for name, array in weights.items() if "zero_point" in name]
    assert zeros
    assert not any(array.any() for array in zeros), "symmetric"
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Relu", "QuantizeLinear", "DequantizeLinear"}
    assert {each.domain for each in model.opset_import} == {""}
    feeds = inputs(2)
    exact, few = (open_session(each, device="cpu").run(feeds)["y"] for each in (graph, written))
    # Half a step of the input (1/127) times 100, and half a step of the output (100/127).
    assert 0 < np.abs(exact - few).max() < 1.3


def test_the_same_data_give_the_same_bytes(graph: bytes) -> None:
    assert to_int8(graph, [inputs(2)]) == to_int8(graph, [inputs(2)])
    assert to_int8(graph, [inputs(2)]) != to_int8(graph, [{"x": inputs(2)["x"] * 2}])
    assert to_fp16(graph) == to_fp16(graph)


def test_nothing_is_said_on_stdout(graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    to_int8(graph, [inputs(2)])
    to_fp16(graph)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_without_data_there_is_no_int8(graph: bytes) -> None:
    with pytest.raises(InvalidInput, match="the network cannot be quantised: no calibration data"):
        to_int8(graph, [])
