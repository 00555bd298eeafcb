"""What the pipeline and its worker say to each other: small JSON documents, one a datagram.

Pixels never travel here; they lie in the ring. JSON and not pickle: what a damaged or hostile worker sends
can be wrong, and nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trocar.runtime.errors import DeviceError
from trocar.video.frames import Annotation, Instance, UInt8Array

MAX_BYTES = 1 << 16
MAX_INSTANCES = 64


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
    except ValueError as error:
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
        A field is missing, of another kind, or not a probability.
    """
    try:
        instances = tuple(
            Instance(
                label=str(label),
                box_xyxy_px=_box(box),
                area_px=int(area),
                confidence=_probability(confidence),
                tip_xy_px=None if tip is None else (float(tip[0]), float(tip[1])),
            )
            for label, box, area, confidence, tip in document["instances"]
        )
        return Annotation(
            frame_index=frame_index,
            pts_s=pts_s,
            labels=labels,
            object_from=int(document["object_from"]),
            instances=instances,
            confidence=_probability(document["confidence"]),
            stage_ms={str(name): float(value) for name, value in document["stage_ms"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DeviceError(f"expected an annotation, got something else: {error}") from error


def _box(values: Any) -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(value) for value in values)
    return left, top, right, bottom


def _probability(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"expected a probability, got {number}")
    return number
