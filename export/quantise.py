"""The same graph with fewer bits: float16, and int8 between Q/DQ pairs. Inputs and outputs stay float32.

Both are strongly typed: every tensor's type stands in the graph, so that a compiler has nothing to choose.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir
from onnx_ir.passes import common as passes

from trocar.export.network import Feeds
from trocar.export.onnx import check
from trocar.runtime.errors import InvalidInput


def to_fp16(graph: bytes) -> bytes:
    """Write a float32 graph in float16, weights and arithmetic.

    Operators that know no float16 keep float32 between casts, and so do the inputs and outputs: a caller need
    not know which variant runs.

    Raises
    ------
    InvalidInput
        The converter makes no valid graph of it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    source = onnx.load_from_string(graph)
    with _quiet("onnxruntime.transformers.float16"):
        half = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    _keep_float32_constants(half, source)
    # The converter puts its casts at the end, where no reader expects them.
    ordered = passes.TopologicalSortPass()(onnx_ir.serde.deserialize_model(half)).model
    return _finished(onnx_ir.serde.serialize_model(ordered), source, "fp16")


def to_int8(graph: bytes, calibration: Iterable[Feeds]) -> bytes:
    """Write a float32 graph with int8 convolutions and matrix products, by static quantisation.

    Weights have a scale a channel. Activations are symmetric and biases stay float32, as TensorRT wants.
    Ranges are the least and greatest values seen.

    Parameters
    ----------
    graph : in float32.
    calibration : batches of real inputs.

    Raises
    ------
    InvalidInput
        No calibration data, or no valid graph comes of it.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration)
            self.seen = 0

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.batches, None)
            self.seen += batch is not None
            return None if batch is None else dict(batch)

    source, reader = onnx.load_from_string(graph), Reader()
    with tempfile.TemporaryDirectory() as folder, _quiet(""):
        path = Path(folder) / "model.onnx"
        try:
            quantize_static(
                onnx.load_from_string(graph),
                path,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "MatMul"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"QuantizeBias": False, "ActivationSymmetric": True, "WeightSymmetric": True},
            )
        except ValueError as error:
            reason = "no calibration data" if not reader.seen else str(error).splitlines()[0]
            raise InvalidInput(f"the network cannot be quantised: {reason}") from error
        model = onnx.load(path)
    return _finished(model, source, "int8")


def _keep_float32_constants(half: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Give what wants float32 beside float16, such as Resize its scales, the constants as they were.

    The converter casts them where their types are said in the graph: a compiler is left without a constant,
    4/3 of 3 may be rounded to less than 4, and the cast stands twice where two nodes share one.
    """
    exact = {each.name: each for each in source.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    casts = {
        node.output[0]: node.input[0]
        for node in half.graph.node
        if node.op_type == "Cast" and node.input[0] in exact and node.attribute[0].i == onnx.TensorProto.FLOAT
    }
    kept = [node for node in half.graph.node if node.output[0] not in casts]
    del half.graph.node[:]
    half.graph.node.extend(kept)
    for node in half.graph.node:
        for index, name in enumerate(node.input):
            if name in casts:
                node.input[index] = f"{casts[name]}_float32"
    for name in dict.fromkeys(casts.values()):
        constant = half.graph.initializer.add()
        constant.CopyFrom(exact[name])
        constant.name = f"{name}_float32"
    used = {name for node in half.graph.node for name in node.input}
    wanted = [each for each in half.graph.initializer if each.name in used]
    del half.graph.initializer[:]
    half.graph.initializer.extend(wanted)


def _finished(model: onnx.ModelProto, source: onnx.ModelProto, precision: str) -> bytes:
    """Give the graph its source's metadata and every tensor its shape; check it."""
    model.ClearField("metadata_props")
    for each in source.metadata_props:
        model.metadata_props.add(key=each.key, value=each.value)
    model.metadata_props.add(key="precision", value=precision)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    ordered = passes.RemoveUnusedOpsetsPass()(onnx_ir.serde.deserialize_model(model)).model
    model = onnx_ir.serde.serialize_model(ordered)
    check(model, next(each.version for each in source.opset_import if not each.domain))
    written: bytes = model.SerializeToString(deterministic=True)
    return written


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep advice and progress of the quantiser off both streams: stdout is for the result."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
