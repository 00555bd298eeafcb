"""COCO instance segmentation: run-length masks, integer ids; pycocotools loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from trocar.video.frames import Shown
from trocar.video.sinks.base import Stream, Whole, instance_mask


class CocoSink:
    """One image a frame, one annotation an instrument; `file_name` is `NAME_FRAME.png`."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file, self._stream = Whole(path), stream
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = {name: number for number, name in enumerate(stream.objects, start=1)}

    def write(self, shown: Shown) -> None:
        """Take the frame's instances."""
        index = shown.frame.index
        height, width = shown.frame.image_bgr.shape[:2]
        self._images.append(
            {
                "id": index + 1,
                "file_name": f"{Path(self._stream.name).stem}_{index:06d}.png",
                "height": height,
                "width": width,
                "pts_s": round(shown.frame.pts_s, 6),
            }
        )
        if shown.annotation is None:
            return
        for one in shown.annotation.instances:
            mask = instance_mask(shown.annotation, one)
            encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            counts: Any = encoded["counts"]
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": index + 1,
                    "category_id": self._categories[one.label],
                    "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
                    "area": int(mask.sum()),
                    "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
                    "iscrowd": 0,
                    "score": round(one.confidence, 4),
                    "track_id": one.track,
                    **(
                        {} if one.tip_xy_px is None else {"tip": [round(value, 2) for value in one.tip_xy_px]}
                    ),
                }
            )

    def close(self) -> tuple[Path, ...]:
        """Write the document."""
        document = {
            "info": {"description": f"annotations of {self._stream.name} by trocar; not checked by a person"},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": number, "name": name} for name, number in self._categories.items()],
        }
        return self._file.write_text(json.dumps(document))

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._file.remove()
