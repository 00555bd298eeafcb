"""From a network's logits to a frame's label map, confidence, areas and boxes, in one pass."""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.devices import Array, target

Mode = Literal["argmax", "sigmoid"]
Crop = tuple[int, int, int, int]
Float32Array = npt.NDArray[np.float32]

_MODES = ("argmax", "sigmoid")
_LARGEST = 2**31 - 1
_TO_INTEGER = np.float32(12582912.0)
_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def postprocess(
    logits: Array,
    labels: Array,
    *,
    confidence: Array | None = None,
    areas: Array | None = None,
    boxes: Array | None = None,
    faults: Array | None = None,
    mode: Mode = "argmax",
    threshold: float = 0.5,
    crop: Crop | None = None,
    stream: int | None = None,
) -> None:
    """Decide every pixel of a frame from logits of the network's size; write into the caller's arrays.

    `argmax`: label c is the class of the largest logit, of equals the lowest; its confidence is its softmax
    probability. `sigmoid`: the strongest channel c gives label c + 1 where its sigmoid reaches `threshold`,
    else 0; the confidence is that sigmoid, reached or not. So there are as many classes as channels, or one
    more. A frame pixel inside `crop` shows the network pixel under its centre (nearest neighbour); outside
    it has label 0 and confidence 0. Equals `postprocess_reference` bit for bit.

    Parameters
    ----------
    logits : (channels, h, w) float32 or float16, w dense, at most 256 labels.
    labels : (H, W) uint8, W dense; rows may be padded or part of a larger frame, as in `confidence`.
    confidence : (H, W) uint8 (probability times 255, rounded), float16 or float32.
    areas : (classes,) int32, frame pixels of each label.
    boxes : (classes, 4) int32, top, left, bottom, right of each label in the frame, half-open; zeros if none.
    faults : (1,) int32, network pixels with a NaN or infinite logit; such a pixel has label 0, confidence 0.
        Where given, nothing is raised: look at it. On a GPU it must be given.
    crop : top, left, height, width in the frame of what the network saw; the whole frame if None.
    stream : handle of the CUDA stream, for arrays on a GPU.

    Raises
    ------
    InvalidInput
        An array or an option does not fit, outputs overlap anything, or a logit is NaN or infinite (the
        outputs are written then, those pixels as label 0).
    """
    given = {
        "logits": logits,
        "labels": labels,
        "confidence": confidence,
        "areas": areas,
        "boxes": boxes,
        "faults": faults,
    }
    where = target(stream, **{name: array for name, array in given.items() if array is not None})
    if mode not in _MODES:
        raise InvalidInput(f"mode: expected {' or '.join(_MODES)}, got {mode!r}")
    where.native.postprocess(
        *given.values(), mode == "sigmoid", float(threshold), _integers(crop), where.stream
    )


def postprocess_reference(
    logits: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    *,
    confidence: npt.NDArray[Any] | None = None,
    areas: npt.NDArray[np.int32] | None = None,
    boxes: npt.NDArray[np.int32] | None = None,
    faults: npt.NDArray[np.int32] | None = None,
    mode: Mode = "argmax",
    threshold: float = 0.5,
    crop: Crop | None = None,
) -> None:
    """Specify `postprocess` in NumPy, step by step in float32."""
    label, probability, finite = _decide(logits.astype(np.float32), mode, np.float32(threshold))
    top, left, height, width = crop or (0, 0, *labels.shape)
    view = np.s_[top : top + height, left : left + width]
    source = np.ix_(nearest_source(height, label.shape[0]), nearest_source(width, label.shape[1]))
    labels[...] = 0
    labels[view] = label[source]
    if confidence is not None:
        stored = probability
        if confidence.dtype == np.uint8:
            stored = np.floor(probability * np.float32(255) + np.float32(0.5))
        confidence[...] = 0
        confidence[view] = stored[source]
    classes = logits.shape[0] + (mode == "sigmoid")
    if areas is not None:
        areas[...] = np.bincount(labels.ravel(), minlength=classes)
    if boxes is not None:
        boxes[...] = [_box(labels == c) for c in range(classes)]
    count = int(np.count_nonzero(~finite))
    if faults is not None:
        faults[0] = count
    elif count:
        raise InvalidInput(
            f"logits: expected finite values, got NaN or infinite ones in {count} network pixels"
        )


def nearest_source(targets: int, sources: int) -> npt.NDArray[np.int64]:
    """Find the source pixel under the centre of each target pixel, where `sources` span `targets`."""
    return (
        (2 * np.arange(targets, dtype=np.int64) + 1) * sources // (2 * targets) if targets else np.arange(0)
    )


def exp_of_negative(x: Float32Array) -> Float32Array:
    """Exponential of x <= 0 in float32 steps, not below exp(-87): what the kernels compute, within 2 ulp.

    Range reduction and polynomial of expf in the Cephes library (S. L. Moshier).
    """
    x = np.where(x > np.float32(-87), x, np.float32(-87))
    n = (x * np.float32(1.44269504088896341) + _TO_INTEGER) - _TO_INTEGER
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.full_like(x, np.float32(_POLYNOMIAL[0]))
    for coefficient in _POLYNOMIAL[1:]:
        p = p * r + np.float32(coefficient)
    p = (p * (r * r) + r) + np.float32(1)
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return np.asarray(p * power, dtype=np.float32)


def _decide(
    logits: Float32Array, mode: Mode, threshold: np.float32
) -> tuple[npt.NDArray[np.int64], Float32Array, npt.NDArray[np.bool_]]:
    """Label, confidence and whether all logits are finite, of each network pixel."""
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(logits), axis=0)
    logits = np.where(finite, logits, np.float32(0))
    strongest, channel = logits.max(axis=0), logits.argmax(axis=0)
    if mode == "sigmoid":
        small = exp_of_negative(-np.abs(strongest))
        probability = np.where(strongest < 0, small, np.float32(1)) / (np.float32(1) + small)
        label = np.where(probability >= threshold, channel + 1, 0)
    else:
        total = np.zeros_like(strongest)
        for row in logits:
            with np.errstate(over="ignore"):
                total = total + exp_of_negative(row - strongest)
        probability, label = np.float32(1) / total, channel
    return np.where(finite, label, 0), np.where(finite, probability, np.float32(0)), finite


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return (0, 0, 0, 0)
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _integers(crop: Crop | None) -> Crop | None:
    if crop is None:
        return None
    try:
        top, left, height, width = (operator.index(value) for value in crop)
    except (TypeError, ValueError):
        raise InvalidInput(f"crop: expected four integers top, left, height, width, got {crop!r}") from None
    if max(map(abs, (top, left, height, width))) > _LARGEST:
        raise InvalidInput(f"crop: expected values of at most {_LARGEST}, got {crop!r}")
    return top, left, height, width
