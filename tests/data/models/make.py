"""Makes the graphs beside this file; needs the `onnx` package, which the tests do not.

`pair`: total and difference of two inputs; `double`: both doubled. `mixed`: other dtypes and an unnamed axis.
`external`: weights in a file outside. `broken_run`: opens, and fails when it runs. `unknown_operator`: none
that exists. `turns`: counts to its input, which takes as long as one likes. `kinds`: text and numbers of
every size, handed through; `brain`: bfloat16, handed through and as float; `text_and_brain`: both, which
nobody can run. `half`, `quantised`: a convolution in float16, and in int8 between Q/DQ pairs. `one_step`: a
single operation that takes as long as one likes: it compares that many boxes with each other. `not_a_plan`,
`not_a_picture`: tensors of the planning network and of the annotator, and nothing but NaN in their outputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
HEIGHT, WIDTH, CLASSES = 256, 448, 5


def floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 3])


def save(name: str, nodes: list[onnx.NodeProto], inputs: list, outputs: list, weights: list = ()) -> None:
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


node = helper.make_node
save(
    "pair",
    [node("Add", ["left", "right"], ["total"]), node("Sub", ["left", "right"], ["difference"])],
    [floats("left"), floats("right")],
    [floats("total"), floats("difference")],
)
save(
    "double",
    [
        node("Add", ["left", "right"], ["sum"]),
        node("Add", ["sum", "sum"], ["total"]),
        node("Sub", ["left", "right"], ["less"]),
        node("Add", ["less", "less"], ["difference"]),
    ],
    [floats("left"), floats("right")],
    [floats("total"), floats("difference")],
)
save(
    "mixed",
    [node("Cast", ["pixels"], ["wide"], to=TensorProto.INT64), node("Not", ["mask"], ["inverse"])],
    [
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, [None, 4]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, []),
    ],
    [
        helper.make_tensor_value_info("wide", TensorProto.INT64, [None, 4]),
        helper.make_tensor_value_info("inverse", TensorProto.BOOL, []),
    ],
)
kinds = {
    "text": TensorProto.STRING,
    "bool": TensorProto.BOOL,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
}
save(
    "kinds",
    [node("Identity", [name], [f"{name}_out"]) for name in kinds],
    [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name, kind in kinds.items()],
    [helper.make_tensor_value_info(f"{name}_out", kind, ["batch", 2]) for name, kind in kinds.items()],
)
brain = helper.make_tensor_value_info("brain", TensorProto.BFLOAT16, ["batch", 2])
same = helper.make_tensor_value_info("same", TensorProto.BFLOAT16, ["batch", 2])
wide = helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 2])
save(
    "brain",
    [node("Identity", ["brain"], ["same"]), node("Cast", ["brain"], ["wide"], to=TensorProto.FLOAT)],
    [brain],
    [same, wide],
)
text = helper.make_tensor_value_info("text", TensorProto.STRING, ["batch", 2])
text_out = helper.make_tensor_value_info("text_out", TensorProto.STRING, ["batch", 2])
save(
    "text_and_brain",
    [node("Identity", ["brain"], ["same"]), node("Identity", ["text"], ["text_out"])],
    [brain, text],
    [same, text_out],
)
weights = numpy_helper.from_array(np.ones((2, 3), np.float32), "weights")
weights.ClearField("raw_data")
weights.data_location = TensorProto.EXTERNAL
for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "24")):
    weights.external_data.add(key=key, value=value)
save(
    "external", [node("Add", ["left", "weights"], ["total"])], [floats("left")], [floats("total")], [weights]
)
seven = numpy_helper.from_array(np.array([7, 7], np.int64), "seven")
save(
    "broken_run",
    [node("Reshape", ["left", "seven"], ["square"])],
    [floats("left")],
    [helper.make_tensor_value_info("square", TensorProto.FLOAT, [7, 7])],
    [seven],
)
save(
    "unknown_operator",
    [node("Transmogrify", ["left"], ["total"], name="the_odd_one")],
    [floats("left")],
    [floats("total")],
)
body = helper.make_graph(
    [node("Identity", ["go"], ["go_on"]), node("Add", ["count", "one"], ["next"])],
    "body",
    [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("count", TensorProto.INT64, []),
    ],
    [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.INT64, []),
    ],
)
save(
    "turns",
    [node("Loop", ["turns", "", "nought"], ["counted"], body=body)],
    [helper.make_tensor_value_info("turns", TensorProto.INT64, [])],
    [helper.make_tensor_value_info("counted", TensorProto.INT64, [])],
    [
        numpy_helper.from_array(np.int64(0), "nought"),
        numpy_helper.from_array(np.int64(1), "one"),
    ],
)


def halves(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", channels, 8, 8])


ramp = np.linspace(-1, 1, 4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
save(
    "half",
    [
        node("Conv", ["image", "kernel"], ["sums"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["sums"], ["logits"], name="relu"),
    ],
    [halves("image", 2)],
    [halves("logits", 4)],
    [numpy_helper.from_array(ramp.astype(np.float16), "kernel")],
)
step = numpy_helper.from_array(np.float32(1 / 127), "step")
nought = numpy_helper.from_array(np.int8(0), "nought")
save(
    "quantised",
    [
        node("QuantizeLinear", ["image", "step", "nought"], ["image_q"], name="image_q"),
        node("DequantizeLinear", ["image_q", "step", "nought"], ["image_dq"], name="image_dq"),
        node("DequantizeLinear", ["kernel_q", "step", "nought"], ["kernel"], name="kernel_dq"),
        node("Conv", ["image_dq", "kernel"], ["logits"], name="conv", pads=[1, 1, 1, 1]),
    ],
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 8, 8])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 8, 8])],
    [step, nought, numpy_helper.from_array(np.round(ramp * 127).astype(np.int8), "kernel_q")],
)

save(
    "one_step",
    [
        node("Cast", ["boxes"], ["count"], to=TensorProto.FLOAT),
        node("Range", ["nought", "count", "one"], ["place"]),
        node("Unsqueeze", ["place", "last"], ["low"]),
        node("Add", ["low", "half"], ["high"]),
        node("Concat", ["low", "low", "high", "high"], ["corners"], axis=1),
        node("Unsqueeze", ["corners", "first"], ["one_batch"]),
        node("Unsqueeze", ["place", "two_first"], ["scores"]),
        node("NonMaxSuppression", ["one_batch", "scores", "most", "share"], ["apart"]),
        node("Shape", ["apart"], ["shape"]),
        node("Gather", ["shape", "index"], ["kept"]),
    ],
    [helper.make_tensor_value_info("boxes", TensorProto.INT64, [])],
    [helper.make_tensor_value_info("kept", TensorProto.INT64, [])],
    [
        numpy_helper.from_array(np.float32(0), "nought"),
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(np.float32(0.5), "half"),
        numpy_helper.from_array(np.float32(0.5), "share"),
        numpy_helper.from_array(np.array([1 << 40], np.int64), "most"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.array([0, 1], np.int64), "two_first"),
        numpy_helper.from_array(np.int64(0), "index"),
    ],
)
not_a_number = numpy_helper.from_array(np.float32(np.nan), "nan")
no_index = numpy_helper.from_array(np.int64(0), "channel")
cube = [16, 16, 16]
save(
    "not_a_plan",
    [
        node("Gather", ["features", "channel"], ["one"], axis=1),
        node("Gather", ["noise", "channel"], ["other"], axis=1),
        node("Add", ["one", "other"], ["both"]),
        node("Mul", ["both", "nan"], ["probability"]),
    ],
    [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8, *cube]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["batch", 2, *cube]),
    ],
    [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", *cube])],
    [not_a_number, no_index],
)

# Five classes at the picture's own size, and tips at a quarter of it.
save(
    "not_a_picture",
    [
        node("Gather", ["image", "channels"], ["five"], axis=1),
        node("Mul", ["five", "nan"], ["logits"]),
        node("MaxPool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Gather", ["pooled", "first"], ["one"], axis=1),
        node("Mul", ["one", "nan"], ["tips"]),
    ],
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH])],
    [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES, HEIGHT, WIDTH]),
        helper.make_tensor_value_info("tips", TensorProto.FLOAT, ["batch", 1, HEIGHT // 4, WIDTH // 4]),
    ],
    [
        not_a_number,
        numpy_helper.from_array(np.array([0] * CLASSES, np.int64), "channels"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
    ],
)
