"""CVAT for video 1.1: a track an instrument, a polygon a frame, in XML.

Every frame of a track is a key frame: nothing is left to interpolation. Where an instrument is not seen its
track ends with a shape marked `outside`. A task has one size, that of the first frame: where the resolution
changes, polygons are scaled to it.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from trocar.video.frames import Instance, Shown
from trocar.video.sinks.base import Stream, Whole, instance_mask, outlines

_VERSION = "1.1"


class CvatSink:
    """One file; several parts of one instrument are given by the largest."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file, self._stream = Whole(path), stream
        self._tracks: dict[int, ElementTree.Element] = {}
        self._open: dict[int, str] = {}
        self._frames = 0

    def write(self, shown: Shown) -> None:
        """Add the frame's instances to their tracks."""
        index = shown.frame.index
        self._frames = max(self._frames, index + 1)
        seen: dict[int, str] = {}
        if shown.annotation is not None:
            for one in shown.annotation.instances:
                mask = instance_mask(shown.annotation, one)
                parts = outlines(mask)
                if parts:
                    points = self._scaled(parts[0], mask.shape)
                    seen[one.track] = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
                    _shape(self._track(one), index, seen[one.track], outside=False)
        for number in self._open.keys() - seen.keys():
            _shape(self._tracks[number], index, self._open[number], outside=True)
        self._open = seen

    def close(self) -> tuple[Path, ...]:
        """Write the document."""
        root = ElementTree.Element("annotations")
        _text(root, "version", _VERSION)
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        _text(task, "name", self._stream.name)
        _text(task, "size", str(self._frames))
        _text(task, "mode", "interpolation")
        _text(task, "overlap", "0")
        labels = ElementTree.SubElement(task, "labels")
        for name in self._stream.objects:
            label = ElementTree.SubElement(labels, "label")
            _text(label, "name", name)
            ElementTree.SubElement(label, "attributes")
        size = ElementTree.SubElement(task, "original_size")
        _text(size, "width", str(self._stream.width))
        _text(size, "height", str(self._stream.height))
        root.extend(track for _, track in sorted(self._tracks.items()))
        ElementTree.indent(root)
        return self._file.write_text(
            ElementTree.tostring(root, encoding="unicode", xml_declaration=True, short_empty_elements=True)
        )

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._file.remove()

    def _scaled(self, points: npt.NDArray[np.int32], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Pixel centres of a frame of some shape, in the first frame's pixels."""
        scale = np.array([self._stream.width / shape[1], self._stream.height / shape[0]])
        scaled: npt.NDArray[np.float64] = (points + 0.5) * scale - 0.5
        return scaled

    def _track(self, one: Instance) -> ElementTree.Element:
        if one.track not in self._tracks:
            # CVAT numbers tracks from 0.
            self._tracks[one.track] = ElementTree.Element(
                "track", id=str(one.track - 1), label=one.label, source="auto"
            )
        return self._tracks[one.track]


def _shape(track: ElementTree.Element, frame: int, points: str, *, outside: bool) -> None:
    ElementTree.SubElement(
        track,
        "polygon",
        frame=str(frame),
        keyframe="1",
        outside=str(int(outside)),
        occluded="0",
        points=points,
        z_order="0",
    )


def _text(parent: ElementTree.Element, name: str, value: str) -> None:
    ElementTree.SubElement(parent, name).text = value
