"""Formats of one line a thing: JSONL, MOT and YOLO segmentation."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

import cv2

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Shown
from trocar.video.sinks.base import Stream, Whole, instance_mask, outlines, writing

# Fractions of the frame's side: finer than a hundredth of a pixel at 8192 columns.
_YOLO_DIGITS = 6
_YOLO_JPEG_QUALITY = 95


class JsonlSink:
    """A JSON object a frame: times, stages, quality, instances. Written as it goes."""

    def __init__(self, path: Path, stream: Stream) -> None:  # noqa: ARG002 (every sink opens alike)
        self._file = Whole(path)
        with writing(path):
            self._text: IO[str] = self._file.partial.open("w", encoding="utf-8")

    def write(self, shown: Shown) -> None:
        """Write the frame's line."""
        with writing(self._file.path):
            self._text.write(json.dumps(frame_document(shown)) + "\n")

    def close(self) -> tuple[Path, ...]:
        """Put the file in place."""
        with writing(self._file.path):
            self._text.close()
        return self._file.publish()

    def abandon(self) -> None:
        """Remove the partial file."""
        with suppress(OSError):  # what could not be written before cannot be now
            self._text.close()
        self._file.remove()


class MotSink:
    """MOTChallenge's `gt.txt`: frame and track from 1, box, 1 for "consider it", class from 1, visibility 1.

    The seventh column is a confidence in a tracker's file alone: readers of `gt.txt` leave a 0 out.
    """

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file, self._stream = Whole(path), stream
        self._lines: list[str] = []

    def write(self, shown: Shown) -> None:
        """Add a line an instance."""
        for one in shown.annotation.instances if shown.annotation is not None else ():
            left, top, right, bottom = one.box_xyxy_px
            # MOT counts pixels from 1.
            box = (left + 1, top + 1, right - left, bottom - top)
            kind = self._stream.objects.index(one.label) + 1
            fields = (shown.frame.index + 1, one.track, *box, 1, kind, 1)
            self._lines.append(",".join(str(value) for value in fields))

    def close(self) -> tuple[Path, ...]:
        """Write the file."""
        return self._file.write_text("".join(f"{line}\n" for line in self._lines))

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._file.remove()


class YoloSink:
    """A data set as Ultralytics reads it: `images/NAME_FRAME.jpg`; `labels/NAME_FRAME.txt`, a polygon a line.

    Frames without an annotation of their own are left out: an empty file of labels would say that nothing
    is there.
    """

    def __init__(self, path: Path, stream: Stream) -> None:
        if path.exists():
            raise InvalidInput(f"expected a new folder for a YOLO data set, got {path}: it exists")
        if not path.parent.is_dir():
            raise InvalidInput(f"expected a folder to make {path.name} in, got {path.parent}: no such folder")
        self._path, self._stream = path, stream
        self._partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        with writing(path):
            for name in ("images", "labels"):
                (self._partial / name).mkdir(parents=True)

    def write(self, shown: Shown) -> None:
        """Write the frame and its labels; one without instances has an empty file of them."""
        annotation, image = shown.annotation, shown.frame.image_bgr
        if annotation is None or annotation.frame_index != shown.frame.index:
            return
        height, width = image.shape[:2]
        lines = []
        for one in annotation.instances:
            kind = self._stream.objects.index(one.label)
            for part in outlines(instance_mask(annotation, one)):
                # Pixel centres, as shares of the frame.
                points = ((part + 0.5) / (width, height)).ravel()
                lines.append(f"{kind} " + " ".join(f"{value:.{_YOLO_DIGITS}f}" for value in points))
        name = f"{Path(self._stream.name).stem}_{shown.frame.index:06d}"
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _YOLO_JPEG_QUALITY])[1]
        with writing(self._path):
            (self._partial / "images" / f"{name}.jpg").write_bytes(encoded.tobytes())
            (self._partial / "labels" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))

    def close(self) -> tuple[Path, ...]:
        """Name the classes and put the folder in place."""
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(self._stream.objects))
        with writing(self._path):
            # Without `path` folders are sought beside this file; "." would be where the reader was started.
            (self._partial / "data.yaml").write_text(
                "# One clip is no validation of itself: name another's images under val.\n"
                f"train: images\nval: images\nnames:\n{names}"
            )
            self._partial.rename(self._path)
        return (self._path,)

    def abandon(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self._partial, ignore_errors=True)


def frame_document(shown: Shown) -> dict[str, object]:
    """Return what is known of a frame, in plain JSON values."""
    quality = shown.frame.quality
    return {
        "frame": shown.frame.index,
        "pts_s": round(shown.frame.pts_s, 6),
        "height": shown.frame.image_bgr.shape[0],
        "width": shown.frame.image_bgr.shape[1],
        "ai_on": shown.ai_on,
        "reason": shown.reason,
        "annotated_frame": None if shown.annotation is None else shown.annotation.frame_index,
        "stage_ms": {name: round(value, 3) for name, value in shown.stage_ms.items()},
        "quality": {name: round(getattr(quality, name), 4) for name in quality.__slots__},
        "instances": [
            {
                "track": one.track,
                "label": one.label,
                "box_xyxy_px": list(one.box_xyxy_px),
                "area_px": one.area_px,
                "confidence": round(one.confidence, 4),
                "tip_xy_px": None if one.tip_xy_px is None else [round(value, 2) for value in one.tip_xy_px],
            }
            for one in (shown.annotation.instances if shown.annotation is not None else ())
        ],
    }
