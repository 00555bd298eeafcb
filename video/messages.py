"""What the pipeline and its worker say to each other: small JSON documents, one a datagram.

Pixels never travel here; they lie in the ring. JSON and not pickle: what a damaged or hostile worker sends
can be wrong, and nothing more.
"""

from __future__ import annotations

import json
import math
import socket
from array import array
from collections.abc import Mapping
from typing import Any

from trocar.runtime.errors import DeviceError
from trocar.video.frames import Annotation, Instance, UInt8Array

MAX_BYTES = 1 << 16
MAX_INSTANCES = 64


class Inbox:
    """Memory for one message at a time: a new buffer for each would be the largest a frame takes."""

    def __init__(self) -> None:
        self._room = bytearray(MAX_BYTES)

    def receive(self, link: socket.socket) -> tuple[bytes, list[int]]:
        """Wait for a message; returns its bytes, none where the other side has ended, and its descriptors."""
        size, extra, _, _ = link.recvmsg_into([self._room], socket.CMSG_SPACE(array("i").itemsize))
        descriptors = array("i")
        for level, kind, data in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) // descriptors.itemsize * descriptors.itemsize])
        return bytes(memoryview(self._room)[:size]), list(descriptors)


def encode(document: Mapping[str, Any]) -> bytes:
    """Return a message's bytes."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Read a message.

    Raises
    ------
    DeviceError
        It is none: the other side is damaged.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"expected a message, got {len(data)} bytes that are none") from error
    if not isinstance(document, dict):
        raise DeviceError(f"expected a message, got a {type(document).__name__}")
    return document


def annotation_document(annotation: Annotation) -> dict[str, Any]:
    """Return what an annotation says, less its label map."""
    return {
        "instances": [
            [
                one.label,
                list(one.box_xyxy_px),
                one.area_px,
                one.confidence,
                None if one.tip_xy_px is None else list(one.tip_xy_px),
            ]
            for one in annotation.instances[:MAX_INSTANCES]
        ],
        "object_from": annotation.object_from,
        "confidence": annotation.confidence,
        "stage_ms": dict(annotation.stage_ms),
    }


def read_annotation(
    document: Mapping[str, Any], *, frame_index: int, pts_s: float, labels: UInt8Array
) -> Annotation:
    """Return the annotation that a worker sent.

    Raises
    ------
    DeviceError
        A field is missing, of another kind, not a probability, or outside the frame: what draws and writes
        it relies on that.
    """
    try:
        if len(document["instances"]) > MAX_INSTANCES:
            raise ValueError(f"expected at most {MAX_INSTANCES} instances")
        instances = tuple(
            Instance(
                label=str(label),
                box_xyxy_px=_box(box, labels.shape),
                area_px=_within(int(area), labels.size),
                confidence=_probability(confidence),
                tip_xy_px=None if tip is None else _tip(tip, labels.shape),
            )
            for label, box, area, confidence, tip in document["instances"]
        )
        return Annotation(
            frame_index=frame_index,
            pts_s=pts_s,
            labels=labels,
            object_from=_within(int(document["object_from"]), 255),
            instances=instances,
            confidence=_probability(document["confidence"]),
            stage_ms={str(name): _finite(value) for name, value in document["stage_ms"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DeviceError(f"expected an annotation, got something else: {error}") from error


def _box(values: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(value) for value in values)
    if not (0 <= left <= right <= shape[1] and 0 <= top <= bottom <= shape[0]):
        raise ValueError(f"expected a box in a frame of {shape[1]} x {shape[0]}, got {values}")
    return left, top, right, bottom


def _tip(values: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    x, y = (float(value) for value in values)
    if not (0 <= x <= shape[1] and 0 <= y <= shape[0]):
        raise ValueError(f"expected a tip in a frame of {shape[1]} x {shape[0]}, got {values}")
    return x, y


def _within(number: int, most: int) -> int:
    if not 0 <= number <= most:
        raise ValueError(f"expected 0 to {most}, got {number}")
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {number}")
    return number


def _probability(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"expected a probability, got {number}")
    return number
