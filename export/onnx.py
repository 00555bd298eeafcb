"""torch to ONNX: one file, any batch, checked, and nothing of the machine that made it in it."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from trocar.runtime.errors import InvalidInput

OPSET = 18
BATCH = "batch"


def to_onnx(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
    *,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module as an ONNX file.

    Parameters
    ----------
    module : in evaluation mode.
    example_inputs : positional inputs of `forward`; axis 0 of each is the batch, and of one size.
    input_names, output_names : names of the graph's tensors, in `forward`'s order.
    path : the file, weights included.
    opset : the ONNX operator set.
    metadata : text by key, to be found in the file.

    Raises
    ------
    InvalidInput
        The module cannot be traced for any batch, or what came out is not valid ONNX.
    """
    if len(example_inputs) != len(input_names):
        raise InvalidInput(f"expected {len(input_names)} example inputs, got {len(example_inputs)}")
    # A batch of 1 would be traced as a constant.
    pairs = tuple(torch.cat([tensor[:1], tensor[:1]]) for tensor in example_inputs)
    batch = torch.export.Dim(BATCH)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                pairs,
                input_names=list(input_names),
                output_names=list(output_names),
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=tuple({0: batch} for _ in pairs),
                external_data=False,
                verbose=False,
            )
        model = program.model_proto
    except Exception as error:  # the exporter raises what its many parts raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise InvalidInput(f"the network cannot be exported: {type(error).__name__}: {first}") from error
    _strip(model)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    check(model, opset)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter off stdout, and what it says of packages nobody needs off stderr."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Drop stack traces and scopes: they name files of the machine that exported."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    graph = model.graph
    parts = (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (*parts, *model.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def check(model: onnx.ModelProto, opset: int) -> None:
    """Refuse a graph that is not valid, uses other operators than the set's, or fixes the batch.

    Raises
    ------
    InvalidInput
        It is so; the message says what.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidInput(f"the exporter wrote ONNX that is not valid: {error}") from error
    found = {each.domain: each.version for each in model.opset_import}
    if found != {"": opset}:
        raise InvalidInput(f"expected ONNX opset {opset} and no other operators, got {found}")
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].dim_param != BATCH:
            raise InvalidInput(f"expected axis 0 of {value.name} to be any batch; the network fixes it")
