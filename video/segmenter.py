"""One frame through a model: preprocess kernel, session, postprocess kernel, instances.

Everything a frame needs is allocated once: the network's tensors, bound to the session, and the small label
map in which instances are found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import ManifestMismatch
from trocar.runtime.kernels.postprocess import postprocess
from trocar.runtime.kernels.preprocess import preprocess
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.manifest import Manifest
from trocar.runtime.repository.store import Repository, shipped
from trocar.runtime.session.base import Session
from trocar.video.frames import Annotation, Frame, Instance, UInt8Array
from trocar.video.types import CLASSES, INSTRUMENT

Kind = TypeVar("Kind", bound=np.generic)

MODEL = "annotator"
INSTRUMENT_LABEL = "instrument"
# No class of an object wins where it has this logit.
_NEVER = -1e4
_TIP_REACH_PX = 9
_TIP_WINDOW = np.ones((2 * _TIP_REACH_PX + 1, 2 * _TIP_REACH_PX + 1), np.uint8)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a manifest says of a model's picture and answer.

    Parameters
    ----------
    classes : names by label.
    object_from : the least label of an object.
    label : what one object is called.
    least_px : smaller regions of the network's picture are no objects.
    tip_stride, tip_threshold : of the `tips` output; 0 and 1 where the model has none.
    """

    height: int
    width: int
    resize: str
    order: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    classes: tuple[str, ...]
    object_from: int
    label: str
    least_px: int
    tip_stride: int
    tip_threshold: float


def recipe(manifest: Manifest) -> Recipe:
    """Read a manifest's pre- and postprocessing.

    Raises
    ------
    ManifestMismatch
        It is not a model that annotates frames.
    """
    try:
        image = manifest.preprocessing["image"]
        logits = manifest.postprocessing["logits"]
        tips = manifest.postprocessing.get("tips", {})
        classes = tuple(str(name) for name in logits["classes"])
        instruments = classes == CLASSES
        return Recipe(
            height=int(image["height"]),
            width=int(image["width"]),
            resize=str(image["resize"]),
            order=str(image["order"]),
            scale=tuple(float(value) for value in image["scale"]),
            bias=tuple(float(value) for value in image["bias"]),
            classes=classes,
            object_from=int(INSTRUMENT[0]) if instruments else 1,
            label=INSTRUMENT_LABEL if instruments else classes[-1],
            least_px=int(logits.get("least_instrument_px", 0)),
            tip_stride=int(tips.get("stride", 0)),
            tip_threshold=float(tips.get("threshold", 1.0)),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ManifestMismatch(
            f"{manifest.name}/{manifest.version}: expected a model of frames; its manifest lacks {error}"
        ) from error


def open_segmenter(
    model: str = MODEL,
    repository: str = "",
    version: int | None = None,
    threads: int = 2,
    device: str = "auto",
) -> Segmenter:
    """Open a model as a worker runs it; the shipped ones where `repository` is empty.

    Raises
    ------
    ModelNotFound, ManifestMismatch
        See `Repository.open`.
    """
    # A worker has one thing to do at a time, and the network's threads are idle by then.
    cv2.setNumThreads(1)
    found = (Repository(Path(repository)) if repository else shipped()).open(model, version)
    return Segmenter(open_model(found, threads=threads, device=device), recipe(found.manifest))


class Segmenter:
    """A model with its buffers. One frame at a time."""

    def __init__(self, session: Session, how: Recipe) -> None:
        self._how = how
        size = (how.height, how.width)
        self._image = np.empty((1, 3, *size), np.float32)
        self._logits = np.empty((1, len(how.classes), *size), np.float32)
        outputs: dict[str, npt.NDArray[Any]] = {"logits": self._logits}
        self._tips: npt.NDArray[np.float32] | None = None
        if how.tip_stride:
            self._tips = np.empty((1, 1, *(side // how.tip_stride for side in size)), np.float32)
            outputs["tips"] = self._tips
        self._binding = session.bind({"image": self._image}, outputs)
        self._small = np.empty(size, np.uint8)
        self._confidence = np.empty(size, np.uint8)
        self._room = _Room(how)
        self.device = str(session.device)

    def annotate(self, frame: Frame, labels: UInt8Array) -> Annotation:
        """Annotate one frame; see `trocar.video.worker.Annotator`.

        Raises
        ------
        InvalidInput
            The network gave values that are not numbers.
        """
        how = self._how
        clock = _Clock()
        preprocess(
            frame.image_bgr,
            self._image[0],
            pixel_format="bgr",
            resize="area" if how.resize == "area" else "bilinear",
            order="rgb" if how.order == "rgb" else "bgr",
            scale=how.scale,
            bias=how.bias,
        )
        clock.lap("preprocess")
        self._binding.run()
        clock.lap("model")
        postprocess(self._logits[0], self._small, confidence=self._confidence)
        instances = self._instances(labels.shape)
        # At the frame's size last: specks have been taken out of the logits by now.
        postprocess(self._logits[0], labels)
        clock.lap("postprocess")
        found = np.greater_equal(self._small, how.object_from, out=self._room.objects)
        sure = _mean(self._confidence, found) / 255 if found.any() else 1.0
        return Annotation(
            frame.index, frame.pts_s, labels, how.object_from, instances, sure, stage_ms=clock.laps_ms
        )

    def _instances(self, shape: Sequence[int]) -> tuple[Instance, ...]:
        how = self._how
        scale_y, scale_x = shape[0] / how.height, shape[1] / how.width
        found = []
        for left, top, area, region in self._regions():
            height, width = region.shape
            window = np.s_[top : top + height, left : left + width]
            if area < how.least_px:
                self._small[window][region] = how.object_from - 1
                self._logits[0, how.object_from :][:, window[0], window[1]][:, region] = _NEVER
                continue
            tip = self._tip(region, top, left)
            found.append(
                Instance(
                    label=how.label,
                    box_xyxy_px=(
                        round(left * scale_x),
                        round(top * scale_y),
                        round((left + width) * scale_x),
                        round((top + height) * scale_y),
                    ),
                    area_px=round(area * scale_x * scale_y),
                    confidence=_mean(self._confidence[window], region) / 255,
                    tip_xy_px=None if tip is None else (tip[0] * scale_x, tip[1] * scale_y),
                )
            )
        return tuple(sorted(found, key=lambda one: -one.area_px))

    def _regions(self) -> Iterator[tuple[int, int, int, npt.NDArray[np.bool_]]]:
        """Left, top, area and pixels of each connected region; the pixels are good until the next one."""
        room = self._room
        objects = np.greater_equal(self._small, self._how.object_from, out=room.objects).view(np.uint8)
        # Only where there are any: a picture's regions take as long as deciding all of its pixels.
        first_x, first_y, columns, rows = cv2.boundingRect(objects)
        if not columns:
            return
        count, regions, stats, _ = cv2.connectedComponentsWithStats(
            objects[first_y : first_y + rows, first_x : first_x + columns],
            labels=_first(room.regions, (rows, columns)),
            connectivity=8,
        )
        for number in range(1, count):
            left, top, width, height, area = (int(value) for value in stats[number])
            region = regions[top : top + height, left : left + width]
            yield (
                first_x + left,
                first_y + top,
                area,
                np.equal(region, number, out=room.region[:height, :width]),
            )

    def _tip(self, region: npt.NDArray[np.bool_], top: int, left: int) -> tuple[float, float] | None:
        """The strongest tip on a region or near it, x and y in the network's pixels."""
        if self._tips is None:
            return None
        height, width = region.shape
        shape = (height + 2 * _TIP_REACH_PX, width + 2 * _TIP_REACH_PX)
        near = _first(self._room.near, shape)
        near[...] = 0
        near[_TIP_REACH_PX : _TIP_REACH_PX + height, _TIP_REACH_PX : _TIP_REACH_PX + width] = region
        wide = cv2.dilate(near, _TIP_WINDOW, dst=_first(self._room.wide, shape))
        stride, heat = self._how.tip_stride, self._tips[0, 0]
        rows, near_rows = _cells(top - _TIP_REACH_PX, wide.shape[0], stride, heat.shape[0])
        columns, near_columns = _cells(left - _TIP_REACH_PX, wide.shape[1], stride, heat.shape[1])
        if not len(rows) or not len(columns):
            return None
        room = _first(self._room.candidates, (len(rows), len(columns)))
        cells = heat[rows.start : rows.stop, columns.start : columns.stop]
        candidates = np.multiply(cells, wide[near_rows, near_columns], out=room)
        row, column = np.unravel_index(int(candidates.argmax()), candidates.shape)
        # The other way round: what is not a number is no tip.
        if not candidates[row, column] >= self._how.tip_threshold:
            return None
        return (columns[int(column)] + 0.5) * stride, (rows[int(row)] + 0.5) * stride


class _Room:
    """What is computed on the way, as large for every frame."""

    def __init__(self, how: Recipe) -> None:
        size = (how.height, how.width)
        self.objects, self.region = np.empty((2, *size), np.bool_)
        self.regions = np.empty(size[0] * size[1], np.int32)
        reached = (size[0] + 2 * _TIP_REACH_PX, size[1] + 2 * _TIP_REACH_PX)
        # As the tips' map is: NumPy takes memory to convert.
        self.near, self.wide = np.empty((2, reached[0] * reached[1]), np.float32)
        self.candidates = np.empty(size[0] * size[1], np.float32)


def _first(room: npt.NDArray[Kind], shape: tuple[int, int]) -> npt.NDArray[Kind]:
    """A map in the first of some room: without gaps, since what has any is copied before it is read."""
    return room[: shape[0] * shape[1]].reshape(shape)


def _cells(first: int, count: int, stride: int, most: int) -> tuple[range, slice]:
    """The cells of a coarse map whose middles lie in a span of pixels, and those pixels within the span."""
    begin = max(0, -(-(first - stride // 2) // stride))
    end = min(most, (first + count - 1 - stride // 2) // stride + 1)
    start = begin * stride + stride // 2 - first
    return range(begin, max(begin, end)), slice(start, start + max(0, end - begin) * stride, stride)


def _mean(values: UInt8Array, where: npt.NDArray[np.bool_]) -> float:
    return float(cv2.mean(values, mask=where.view(np.uint8))[0])


class _Clock:
    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last_s = time.monotonic()

    def lap(self, name: str) -> None:
        now_s = time.monotonic()
        self.laps_ms[name] = 1000 * (now_s - self._last_s)
        self._last_s = now_s
