"""ONNX to an engine of TensorRT or TensorRT-RTX; importing this imports neither."""

from trocar.export.engines.build import build_engine
from trocar.export.engines.types import FLAVOURS, RTX_CAPABILITIES, EngineFacts, Layer, Profile

__all__ = ["FLAVOURS", "RTX_CAPABILITIES", "EngineFacts", "Layer", "Profile", "build_engine"]
