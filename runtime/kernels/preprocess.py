"""A camera's frame to a network's input in one pass: crop, resize, colour, scale and bias."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Real
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
_MOST_INT32: Final = 2**31 - 1
_MOST_FLOAT32: Final = float(np.finfo(np.float32).max)


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

    Nothing is allocated or copied; rows may be padded or part of a larger frame. The bits are those of
    `preprocess_reference`: of the CUDA kernel that was tried on an emulated device, not yet on a GPU.

    Bilinear samples where OpenCV's INTER_LINEAR does (centres coincide, the crop's edge repeats), but keeps
    fractions of a level where OpenCV rounds: within 0.025 of exact arithmetic. Area is the mean of what lies
    under an output pixel. NV12 is resized first and turned to colour after; its chroma sits in the middle of
    2 x 2 pixels.

    Parameters
    ----------
    src : uint8 (height, width, 3) of `bgr` or `rgb`, (height, width) of `grey`; of `nv12`, with even sides,
        (height * 3 / 2, width) or a pair: luma (height, width) and chroma (height / 2, width).
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


def preprocess_reference(
    src: UInt8Array | tuple[UInt8Array, UInt8Array],
    out: npt.NDArray[np.float32] | npt.NDArray[np.float16],
    *,
    pixel_format: PixelFormat,
    crop: tuple[int, int, int, int] | None = None,
    resize: Literal["bilinear", "area"] = "bilinear",
    scale: float | Sequence[float] = 1 / 255,
    bias: float | Sequence[float] = 0.0,
    order: Literal["rgb", "bgr"] = "rgb",
    matrix: Literal["bt709", "bt601"] = "bt709",
) -> None:
    """Specify `preprocess` in NumPy, bit for bit: positions and weights in integers, the rest in float32."""
    luma, chroma = _planes(src, pixel_format)
    rows = luma.shape[0] // 3 * 2 if pixel_format == "nv12" and chroma is None else luma.shape[0]
    box = crop if crop is not None else (0, 0, rows, luma.shape[1])
    sampled = _bilinear if resize == "bilinear" else _area
    size = (out.shape[1], out.shape[2])
    if pixel_format == "nv12":
        below = luma[rows:] if chroma is None else chroma
        yuv = (
            sampled(luma[:rows, :, None], box, size, 1),
            sampled(below.reshape(rows // 2, -1, 2), box, size, 2),
        )
        levels = _rgb_of_yuv(*yuv, _MATRICES[matrix])
    else:
        levels = sampled(luma.reshape(rows, luma.shape[1], -1), box, size, 1)
    if pixel_format != "grey" and _reversed(pixel_format, order):
        levels = levels[..., ::-1]
    scales = np.array(_per_channel("scale", scale, pixel_format), dtype=np.float32)
    biases = np.array(_per_channel("bias", bias, pixel_format), dtype=np.float32)
    with np.errstate(over="ignore"):
        for channel in range(out.shape[0]):
            out[channel] = levels[..., channel] * scales[channel] + biases[channel]


def _matrix(red: float, blue: float) -> tuple[float, ...]:
    """Coefficients of luma, red by V, green by U, green by V, blue by U: luma has 219 steps, chroma 224."""
    green = 1.0 - red - blue
    chroma = 255.0 / 224.0
    red_v, blue_u = 2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma
    return 255.0 / 219.0, red_v, -blue_u * blue / green, -red_v * red / green, blue_u


_MATRICES: Final = {name: _matrix(*shares) for name, shares in _LUMA_SHARES.items()}


def _rgb_of_yuv(luma: Float32Array, chroma: Float32Array, coefficients: tuple[float, ...]) -> Float32Array:
    """R, G, B of limited range, on the last axis, clipped to 0 to 255."""
    of_luma, red_v, green_u, green_v, blue_u = np.array(coefficients, dtype=np.float32)
    grey = (luma[..., 0] - np.float32(16)) * of_luma
    u, v = chroma[..., 0] - np.float32(128), chroma[..., 1] - np.float32(128)
    rgb = np.stack([grey + v * red_v, (grey + u * green_u) + v * green_v, grey + u * blue_u], axis=-1)
    clipped: Float32Array = np.clip(rgb, np.float32(0), np.float32(255)) + np.float32(0)
    return clipped


def _bilinear(
    plane: UInt8Array, crop: tuple[int, int, int, int], size: tuple[int, int], cell: int
) -> Float32Array:
    """(height, width, channels) of levels, in steps of 1/128 level: rows are blended first, then columns."""
    top, left, height, width = crop
    above, below, row_weight = _taps(top, height, size[0], cell)
    here, right, column_weight = _taps(left, width, size[1], cell)
    fine = plane.astype(np.int64) << 7
    rows = _blend(fine[above], fine[below], row_weight[:, None, None])
    blended = _blend(rows[:, here], rows[:, right], column_weight[:, None])
    return blended.astype(np.float32) * np.float32(1 / 128)


def _taps(begin: int, length: int, out: int, cell: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Sample, next sample and its weight / 2^15 of each output position; a sample spans `cell` pixels."""
    unit = 2 * out * cell
    position = (2 * np.arange(out, dtype=np.int64) + 1) * length + 2 * out * begin - out * cell
    first, last = begin // cell, (begin + length - 1) // cell
    index = np.clip(position // unit, first, last)
    weight = np.minimum((((position - index * unit) << 15) + unit // 2) // unit, (1 << 15) - 1)
    inside = (position > first * unit) & (index < last)
    return index, index + inside, np.where(inside, weight, 0)


def _blend(a: Int64Array, b: Int64Array, weight: Int64Array) -> Int64Array:
    blended: Int64Array = a + (((b - a) * weight + (1 << 14)) >> 15)
    return blended


def _area(
    plane: UInt8Array, crop: tuple[int, int, int, int], size: tuple[int, int], cell: int
) -> Float32Array:
    """(height, width, channels) of mean levels: first down each column, then along each row."""
    top, left, height, width = crop
    sums = _shares_of(plane.astype(np.float32), top, height, size[0], cell)
    return _shares_of(sums.swapaxes(0, 1), left, width, size[1], cell).swapaxes(0, 1)


def _shares_of(values: Float32Array, begin: int, length: int, out: int, cell: int) -> Float32Array:
    """Sums along the first axis of what each output position covers, added in order."""
    unit = out * cell
    low = begin * out + np.arange(out, dtype=np.int64) * length
    first, last = low // unit, (low + length - 1) // unit
    total = np.zeros((out, *values.shape[1:]), dtype=np.float32)
    for step in range(int((last - first).max(initial=-1)) + 1):
        index = np.minimum(first + step, last)
        overlap = np.minimum(low + length, (index + 1) * unit) - np.maximum(low, index * unit)
        share = np.where(first + step <= last, overlap, 0).astype(np.float32) / np.float32(length)
        total += share[:, None, None] * values[index]
    return total


def _planes(src: Any, pixel_format: PixelFormat) -> tuple[Any, Any]:
    if not isinstance(src, tuple):
        return src, None
    if pixel_format != "nv12" or len(src) != 2:
        raise InvalidInput(f"src: expected an array, or two of nv12, got {len(src)} of {pixel_format}")
    luma, chroma = src
    return luma, chroma


def _one_of(name: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        raise InvalidInput(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    return value


def _reversed(pixel_format: PixelFormat, order: str) -> bool:
    return (pixel_format == "bgr") != (_one_of("order", order, ("rgb", "bgr")) == "bgr")


def _crop(crop: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
    if crop is None:
        return None
    try:
        top, left, height, width = (operator.index(value) for value in crop)
    except (TypeError, ValueError):
        raise InvalidInput(f"crop: expected 4 integers (top, left, height, width), got {crop!r}") from None
    if max(abs(top), abs(left), abs(height), abs(width)) > _MOST_INT32:
        raise InvalidInput(f"crop: expected numbers of at most {_MOST_INT32}, got {crop!r}")
    return top, left, height, width


def _per_channel(name: str, values: Any, pixel_format: PixelFormat) -> tuple[float, float, float]:
    """Three finite float32 numbers; of grey the first counts."""
    channels = 1 if pixel_format == "grey" else 3
    try:
        each = (float(values),) * channels if isinstance(values, Real) else tuple(map(float, values))
    except (TypeError, ValueError):
        each = ()
    if len(each) != channels or not all(abs(value) <= _MOST_FLOAT32 for value in each):
        raise InvalidInput(f"{name}: expected a finite float32 number, or {channels}, got {values!r}")
    return each[0], each[-2 % channels], each[-1]
