"""A model behind nvidia-pytriton. Arguments: model.onnx, its name, port, threads; needs onnxruntime too."""

import importlib.metadata
import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main() -> None:
    """Serve until stdin ends."""
    path, name, port, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]

    @batch
    def infer(**inputs: Any) -> dict[str, Any]:
        return dict(zip(names, session.run(None, inputs), strict=True))

    def tensors(nodes: Any) -> list[Tensor]:
        return [Tensor(name=node.name, dtype=np.float32, shape=tuple(node.shape[1:])) for node in nodes]

    addresses = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "metrics_address": "127.0.0.1"}
    config = TritonConfig(http_port=port + 1, grpc_port=port, metrics_port=port + 2, **addresses)
    with Triton(config=config) as triton:
        triton.bind(
            model_name=name,
            infer_func=infer,
            inputs=tensors(session.get_inputs()),
            outputs=tensors(session.get_outputs()),
            config=ModelConfig(max_batch_size=8),
        )
        triton.run()
        time.sleep(1.0)
        said = {"name": "nvidia-pytriton", "version": importlib.metadata.version("nvidia-pytriton")}
        print(json.dumps(said), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
