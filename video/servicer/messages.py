"""Between the pipeline's dataclasses and the messages of the wire."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from trocar.runtime.errors import DeviceError
from trocar.v1 import video_pb2
from trocar.video.frames import Annotation, Instance, Quality, UInt8Array
from trocar.video.servicer.hub import Answer
from trocar.video.sinks.base import instance_mask, outlines

# Initial metadata of a stream that the server has taken.
ACCEPTED = ("trocar-stream", "accepted")
_QUALITIES = tuple(Quality.__slots__)


def reply_message(answer: Answer, masks: int) -> video_pb2.AnnotateReply:
    """Return the reply to one frame, with masks in the format asked for."""
    reply = video_pb2.AnnotateReply(
        id=answer.id,
        pts_us=round(1e6 * answer.frame.pts_s),
        error=answer.reason,
        dropped=answer.dropped,
    )
    if answer.slot is not None:
        reply.quality.CopyFrom(quality_message(answer.frame.quality))
    reply.stage_ms["queue"], reply.stage_ms["total"] = answer.queued_ms, answer.total_ms
    annotation = answer.annotation
    if annotation is None:
        return reply
    reply.confidence = annotation.confidence
    for name, value in annotation.stage_ms.items():
        reply.stage_ms[name] = value
    reply.instances.extend(_instance(annotation, one, masks) for one in annotation.instances)
    if masks == video_pb2.MASK_FORMAT_LABELS_PNG:
        reply.labels_png = _png(annotation.labels)
    return reply


def quality_message(quality: Quality) -> video_pb2.PictureQuality:
    """Return a frame's quality as a message."""
    return video_pb2.PictureQuality(**{name: getattr(quality, name) for name in _QUALITIES})


def quality_of(message: video_pb2.PictureQuality) -> Quality:
    """Return what a message says of a frame's quality."""
    return Quality(**{name: getattr(message, name) for name in _QUALITIES})


def annotation_of(
    reply: video_pb2.AnnotateReply, *, frame_index: int, object_from: int, labels: UInt8Array
) -> Annotation:
    """Return the annotation that a reply holds; its label map is decoded into `labels`.

    Raises
    ------
    DeviceError
        The reply has no label map of the frame's size, or an instance that is not inside the frame.
    """
    found = None
    if reply.labels_png:
        found = cv2.imdecode(np.frombuffer(reply.labels_png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if found is None or found.shape != labels.shape:
        raise DeviceError(f"expected a label map of {labels.shape[1]} x {labels.shape[0]} from the server")
    for one in reply.instances:
        inside = one.left <= one.right <= labels.shape[1] and one.top <= one.bottom <= labels.shape[0]
        tip = not one.HasField("tip") or (
            0 <= one.tip.x <= labels.shape[1] and 0 <= one.tip.y <= labels.shape[0]
        )
        if not (inside and tip and one.left >= 0 and one.top >= 0):
            raise DeviceError("expected instances inside the frame from the server, got one outside")
    np.copyto(labels, np.asarray(found, np.uint8))
    instances = tuple(
        Instance(
            label=one.label,
            box_xyxy_px=(one.left, one.top, one.right, one.bottom),
            area_px=one.area_px,
            confidence=one.confidence,
            tip_xy_px=(one.tip.x, one.tip.y) if one.HasField("tip") else None,
            track=one.track,
        )
        for one in reply.instances
    )
    return Annotation(
        frame_index,
        reply.pts_us / 1e6,
        labels,
        object_from,
        instances,
        reply.confidence,
        stage_ms=dict(reply.stage_ms),
    )


def _instance(annotation: Annotation, one: Instance, masks: int) -> video_pb2.VideoInstance:
    left, top, right, bottom = one.box_xyxy_px
    message = video_pb2.VideoInstance(
        label=one.label,
        track=one.track,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        area_px=one.area_px,
        confidence=one.confidence,
    )
    if one.tip_xy_px is not None:
        message.tip.x, message.tip.y = one.tip_xy_px
    if masks == video_pb2.MASK_FORMAT_RLE:
        message.rle.CopyFrom(_rle(annotation, one))
    if masks == video_pb2.MASK_FORMAT_POLYGONS:
        for outline in outlines(instance_mask(annotation, one)):
            message.polygons.add(xy=outline.ravel().astype(float))
    return message


def _rle(annotation: Annotation, one: Instance) -> video_pb2.Rle:
    from pycocotools import mask as coco_mask

    encoded: Any = coco_mask.encode(np.asfortranarray(instance_mask(annotation, one).astype(np.uint8)))
    height, width = encoded["size"]
    return video_pb2.Rle(height=height, width=width, counts=encoded["counts"].decode("ascii"))


def _png(labels: UInt8Array) -> bytes:
    # The fastest level: label maps are mostly runs.
    return bytes(cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
