"""What flows through the video pipeline: frames in, annotations beside them, shown frames out.

Coordinates are pixels of the source frame, x to the right, y down, the origin at the upper left corner of
the first pixel. Boxes are half open. Times are seconds: `pts_s` on the stream's clock, `*_at_s` on the
monotonic one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a frame can be seen, inside the endoscope's circle; see `trocar.video.quality`.

    Parameters
    ----------
    smoke, blur, fouling, highlights : 0 (none) to 1.
    exposure : mean luma, 0 (black) to 1 (white).
    out_of_body : 0 (inside a patient) to 1 (outside).
    """

    smoke: float = 0.0
    blur: float = 0.0
    fouling: float = 0.0
    highlights: float = 0.0
    exposure: float = 0.5
    out_of_body: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    Parameters
    ----------
    index : counts from 0 in the source's order, dropped ones included.
    pts_s : when it is to be shown, on the stream's clock.
    captured_at_s : when it was decoded, on the monotonic clock.
    image_bgr : (height, width, 3) uint8; borrowed from the pipeline, valid while the frame is handled.
    quality : how well it can be seen.
    received_at_s : when its bytes were there, on the monotonic clock; of a server's frames.
    """

    index: int
    pts_s: float
    captured_at_s: float
    image_bgr: UInt8Array
    quality: Quality = Quality()
    received_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One instrument in a frame.

    Parameters
    ----------
    label : `instrument`, or another class that a model finds, such as `polyp`.
    box_xyxy_px : left, top, right, bottom; half open.
    area_px : pixels of it.
    confidence : mean probability of its pixels' class, 0 to 1.
    tip_xy_px : where it works; None where no tip is seen.
    track : the same number while the same instrument is in view; 0 before tracking.
    """

    label: str
    box_xyxy_px: tuple[int, int, int, int]
    area_px: int
    confidence: float
    tip_xy_px: tuple[float, float] | None = None
    track: int = 0


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a model says of one frame.

    Parameters
    ----------
    frame_index, pts_s : of the frame it was computed on.
    labels : (height, width) uint8, a class a pixel, as in the model's `classes`; borrowed like the image.
    object_from : the least label of an object; smaller ones are what is around it.
    instances : what was found, the largest first.
    confidence : mean probability of the foreground's pixels; 1 where there is no foreground.
    stage_ms : how long each stage took.
    """

    frame_index: int
    pts_s: float
    labels: UInt8Array
    object_from: int
    instances: tuple[Instance, ...] = ()
    confidence: float = 1.0
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame as it went out.

    Parameters
    ----------
    frame : the clean frame.
    image_bgr : (height, width, 3) uint8, what is displayed: the overlay, or the clean frame with its badge.
    annotation : the one that was drawn; None where the clean frame was shown.
    ai_on : whether overlays are being shown.
    reason : why not, in a few words; empty while they are.
    shown_at_s : when it was handed over, on the monotonic clock.
    stage_ms : decode, the model's stages, overlay and `total` from decoded to drawn.
    """

    frame: Frame
    image_bgr: UInt8Array
    annotation: Annotation | None
    ai_on: bool
    reason: str
    shown_at_s: float
    stage_ms: Mapping[str, float]
