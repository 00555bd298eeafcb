"""A camera's frame to a network's input in one pass: crop, resize, colour, scale and bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.devices import Array, target

PixelFormat: TypeAlias = Literal["bgr", "rgb", "nv12", "grey"]
Frame: TypeAlias = Array | tuple[Array, Array]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Int64Array: TypeAlias = npt.NDArray[np.int64]

PIXEL_FORMATS: Final = ("bgr", "rgb", "nv12", "grey")
# Shares of red and blue in luma: ITU-R BT.601-7, 2.5.1; BT.709-6, 3.2.
_LUMA_SHARES: Final = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
_LARGEST_SIDE: Final = 1 << 24


def preprocess(
    src: Frame,
    out: Array,
    *,
    pixel_format: PixelFormat,
    crop: tuple[int, int, int, int] | None = None,
    resize: Literal["bilinear", "area"] = "bilinear",
    scale: float | Sequence[float] = 1 / 255,
    bias: float | Sequence[float] = 0.0,
    order: Literal["rgb", "bgr"] = "rgb",
    matrix: Literal["bt709", "bt601"] = "bt709",
    stream: int | None = None,
) -> None:
    """Fill `out` from a frame: `out[c] = level[c] * scale[c] + bias[c]`, with levels from 0 to 255.

    Nothing is allocated and nothing copied; rows may be padded or part of a larger frame. The CPU and the GPU
    give the bits of `preprocess_reference`.

    Bilinear samples as OpenCV's INTER_LINEAR (centres coincide, the crop's edge repeats), but keeps fractions
    of a level where OpenCV rounds: within 0.02 of exact arithmetic. Area is the mean under each output pixel.
    NV12 is resized first and turned to colour after; its chroma samples sit in the middle of their 2 x 2 pixels.

    Parameters
    ----------
    src : uint8 (height, width, 3) of `bgr` or `rgb`, (height, width) of `grey`, or, of `nv12` with an even height
        and width, (height * 3 / 2, width) or a pair: luma (height, width), chroma (height / 2, width).
    out : float32 or float16 (3, height, width), of `grey` (1, height, width); rows dense, apart from `src`.
    crop : top, left, height and width in pixels of the frame; odd ones too.
    scale, bias : one, or one a channel in the order of `out`.
    order : of the channels of `out`; `grey` has one channel and ignores it.
    matrix : how NV12 of limited range becomes colour: BT.709 as HD video, BT.601 as SD video and OpenCV.
    stream : handle of the caller's CUDA stream where the arrays are on a GPU; None on the CPU.

    Raises
    ------
    InvalidInput
        An array, the crop or an option cannot be used; it is named.
    DeviceError
        The arrays are on a GPU and this build has no CUDA kernels, or the GPU failed.
    """
    luma, chroma = _planes(src, pixel_format)
    arrays = {"src": luma, "out": out} if chroma is None else {"src": luma, "chroma": chroma, "out": out}
    where = target(stream, **arrays)
    where.native.preprocess(
        luma,
        chroma,
        out,
        _one_of("pixel_format", pixel_format, PIXEL_FORMATS),
        _crop(crop),
        _one_of("resize", resize, ("bilinear", "area")) == "area",
        _reversed(pixel_format, order),
        _per_channel("scale", scale, pixel_format),
        _per_channel("bias", bias, pixel_format),
        _MATRICES[_one_of("matrix", matrix, tuple(_MATRICES))],
        False,
        where.stream,
    )
