"""What a surgeon sees of an annotation: classes, outlines, tips, numbers; or a badge that says AI off."""

from __future__ import annotations

from collections.abc import Mapping

import cv2

from trocar.runtime.kernels.overlay import Palette, overlay, palette
from trocar.video.frames import Annotation, UInt8Array
from trocar.video.types import INSTRUMENT, PALETTE_RGB

_ALPHA = 0.35
_TIP_BGR = (255, 255, 255)
_BADGE_BGR, _BADGE_TEXT_BGR = (40, 40, 40), (255, 255, 255)
# Sizes grow with the frame: these are for 720 rows.
_ROWS = 720
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_POLYP_BGR = (0, 158, 230)


def instrument_palette() -> Palette:
    """Return the colours of the annotator's classes, in a BGR frame's order."""
    colours = {int(label): PALETTE_RGB[label] for label in INSTRUMENT}
    return _palette({label: (blue, green, red) for label, (red, green, blue) in colours.items()})


def object_palette() -> Palette:
    """Return the colour of a model that has one class beside the rest."""
    return _palette({1: _POLYP_BGR})


class Overlay:
    """Draws on a frame in place: `draw` is what the pipeline calls."""

    def __init__(self, colours: Palette) -> None:
        self._palette = colours

    def draw(self, image_bgr: UInt8Array, annotation: Annotation | None, reason: str) -> None:
        """Draw an annotation, or the badge where there is none.

        Parameters
        ----------
        image_bgr : (height, width, 3) uint8.
        reason : why there is none.
        """
        scale = max(1.0, image_bgr.shape[0] / _ROWS)
        if annotation is None:
            _badge(image_bgr, f"AI off: {reason}" if reason else "AI off", scale)
            return
        overlay(image_bgr, annotation.labels, self._palette, contour=round(scale))
        for one in annotation.instances:
            if one.tip_xy_px is not None:
                tip = round(one.tip_xy_px[0]), round(one.tip_xy_px[1])
                cv2.circle(image_bgr, tip, round(9 * scale), _TIP_BGR, round(2 * scale), cv2.LINE_AA)
            left, top, _, _ = one.box_xyxy_px
            corner = left + round(4 * scale), max(round(20 * scale), top + round(20 * scale))
            _text(image_bgr, f"{one.label} {one.track}", corner, 0.55 * scale)


def _palette(colours: Mapping[int, tuple[int, int, int]]) -> Palette:
    return palette(colours, alpha=_ALPHA)


def _badge(image_bgr: UInt8Array, text: str, scale: float) -> None:
    (width, height), below = cv2.getTextSize(text, _FONT, 0.6 * scale, max(1, round(scale)))
    margin = round(8 * scale)
    corner = (margin, margin + height)
    cv2.rectangle(image_bgr, (0, 0), (width + 2 * margin, height + below + 2 * margin), _BADGE_BGR, -1)
    cv2.putText(
        image_bgr, text, corner, _FONT, 0.6 * scale, _BADGE_TEXT_BGR, max(1, round(scale)), cv2.LINE_AA
    )


def _text(image_bgr: UInt8Array, text: str, corner: tuple[int, int], size: float) -> None:
    """White on a dark outline: readable on any tissue."""
    thick = max(1, round(size * 1.5))
    cv2.putText(image_bgr, text, corner, _FONT, size, _BADGE_BGR, thick + 2, cv2.LINE_AA)
    cv2.putText(image_bgr, text, corner, _FONT, size, _BADGE_TEXT_BGR, thick, cv2.LINE_AA)
