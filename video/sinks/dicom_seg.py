"""DICOM: a key frame as a Secondary Capture image, and its instruments as a Segmentation that refers to it.

There is no patient in a video file: the patient module is left empty, as the standard allows (type 2). Two
instruments are two segments, each tracked by its number.
"""

from __future__ import annotations

import shutil
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Instance, Shown, UInt8Array
from trocar.video.sinks.base import Stream, instance_mask, writing

_EVERY_S = 1.0
_MAKER = "trocar"
# Segment labels of DICOM are long strings of 64 characters at most.
_ALGORITHM = "trocar annotator"


class DicomSegSink:
    """A folder of pairs `FRAME_image.dcm`, `FRAME_seg.dcm`: one a second while an instrument is in view."""

    def __init__(self, path: Path, stream: Stream, *, every_s: float = _EVERY_S) -> None:
        if path.exists():
            raise InvalidInput(f"expected a new folder for DICOM files, got {path}: it exists")
        if not path.parent.is_dir():
            raise InvalidInput(f"expected a folder to make {path.name} in, got {path.parent}: no such folder")
        self._path, self._stream, self._every_s = path, stream, every_s
        self._partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        with writing(path):
            self._partial.mkdir()
        self._study, self._images, self._segmentations = (hd.UID() for _ in range(3))
        self._next_s = float("-inf")
        self._count = 0

    def write(self, shown: Shown) -> None:
        """Write the frame's pair if it is a key frame."""
        annotation = shown.annotation
        if annotation is None or not annotation.instances or shown.frame.pts_s < self._next_s:
            return
        self._next_s = shown.frame.pts_s + self._every_s
        self._count += 1
        image = self._image(shown.frame.image_bgr)
        masks = [instance_mask(annotation, one) for one in annotation.instances]
        kept = [(one, mask) for one, mask in zip(annotation.instances, masks, strict=True) if mask.any()]
        if not kept:
            return
        segmentation = self._segmentation(image, kept)
        name = f"{shown.frame.index:06d}"
        with writing(self._path):
            image.save_as(self._partial / f"{name}_image.dcm", enforce_file_format=True)
            segmentation.save_as(self._partial / f"{name}_seg.dcm", enforce_file_format=True)

    def close(self) -> tuple[Path, ...]:
        """Put the folder in place."""
        with writing(self._path):
            self._partial.rename(self._path)
        return (self._path,)

    def abandon(self) -> None:
        """Remove the partial folder."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _image(self, image_bgr: UInt8Array) -> Any:
        now = datetime.now()
        image: Any = hd.sc.SCImage(
            pixel_array=np.ascontiguousarray(image_bgr[..., ::-1]),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            study_instance_uid=self._study,
            series_instance_uid=self._images,
            series_number=1,
            sop_instance_uid=hd.UID(),
            instance_number=self._count,
            manufacturer=_MAKER,
            patient_orientation=("L", "P"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        image.SeriesDescription = "key frames"
        image.ContentDate, image.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        # No one knows how the camera was held.
        image.PatientOrientation = None
        image.Laterality = None
        return image

    def _segmentation(self, image: Dataset, kept: list[tuple[Instance, npt.NDArray[np.bool_]]]) -> Any:
        masks = np.stack([mask for _, mask in kept], axis=-1)[None].astype(np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation: Any = hd.seg.Segmentation(
                source_images=[image],
                pixel_array=masks,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(number, one) for number, (one, _) in enumerate(kept, start=1)],
                series_instance_uid=self._segmentations,
                series_number=2,
                sop_instance_uid=hd.UID(),
                instance_number=self._count,
                manufacturer=_MAKER,
                manufacturer_model_name=_ALGORITHM,
                software_versions=_version(),
                device_serial_number="none",
                content_label="INSTRUMENTS",
                content_description="not checked by a person",
                omit_empty_frames=False,
            )
        segmentation.PatientOrientation = None
        return segmentation


def _segment(number: int, one: Instance) -> hd.seg.SegmentDescription:
    polyp = one.label == "polyp"
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{one.label} {one.track}",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure
        if polyp
        else codes.SCT.PhysicalObject,
        segmented_property_type=codes.SCT.PolypOfColon if polyp else codes.SCT.InstrumentDevice,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=_ALGORITHM, version=_version(), family=codes.DCM.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"track {one.track}",
    )


def _version() -> str:
    from importlib.metadata import version

    return version("trocar")
