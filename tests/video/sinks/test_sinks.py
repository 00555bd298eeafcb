"""Every format, read back by the reader its users have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import av
import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
import yaml
from pycocotools.coco import COCO

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Annotation, Frame, Instance, Quality, Shown
from trocar.video.privacy import PrivacyGuard, PrivacySettings
from trocar.video.recording import Recording
from trocar.video.sinks.base import Stream, instance_mask
from trocar.video.sinks.coco import CocoSink
from trocar.video.sinks.cvat import CvatSink
from trocar.video.sinks.dicom_seg import DicomSegSink
from trocar.video.sinks.lines import JsonlSink, MotSink, YoloSink
from trocar.video.sinks.mp4 import Mp4Sink
from trocar.video.sinks.sheet import SheetSink
from trocar.video.sinks.webvtt import WebVttSink

HEIGHT, WIDTH, FPS = 92, 122, 25.0
STREAM = Stream("clip <1>.mp4", HEIGHT, WIDTH, FPS, None, ("instrument",))
ALL = (
    ("coco.json", CocoSink),
    ("cvat.xml", CvatSink),
    ("a.jsonl", JsonlSink),
    ("gt.txt", MotSink),
    ("yolo", YoloSink),
    ("p.vtt", WebVttSink),
    ("v.mp4", Mp4Sink),
    ("dicom", DicomSegSink),
    ("sheet.png", SheetSink),
)


def disc(centre: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def shown(index: int, *, away: bool = False) -> Shown:
    """Track 1 is a disc that moves a pixel a frame; track 2 a second one, there on even frames only."""
    image = np.full((HEIGHT, WIDTH, 3), 40 + index, np.uint8)
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    instances = []
    discs = [(1, (30 + index, 40), 12)] + ([(2, (95, 70), 8)] if index % 2 == 0 else [])
    for track, centre, radius in [] if away else discs:
        mask = disc(centre, radius)
        labels[mask] = 2
        rows, columns = np.nonzero(mask)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        tip = (float(centre[0]), float(centre[1] - radius))
        instances.append(Instance("instrument", box, int(mask.sum()), 0.75, tip, track))
    frame = Frame(index, index / FPS, 0.0, image, Quality(smoke=0.25))
    annotation = Annotation(index, index / FPS, labels, 2, tuple(instances), 0.75)
    return Shown(frame, image, annotation, True, "", 0.0, {"total": 12.5})


def written(path: Path, sink_type, frames: int = 6, **more) -> Path:
    sink = sink_type(path, STREAM, **more)
    for index in range(frames):
        sink.write(shown(index))
    assert sink.close() == (path,)
    return path


def test_coco_is_loaded_by_pycocotools_with_the_masks_of_the_frames(tmp_path: Path) -> None:
    found = COCO(str(written(tmp_path / "coco.json", CocoSink)))
    assert [one["file_name"] for one in found.loadImgs([1])] == ["clip <1>_000000.png"]
    assert len(found.anns) == 6 + 3
    for one in found.anns.values():
        frame = shown(one["image_id"] - 1)
        instance = next(each for each in frame.annotation.instances if each.track == one["track_id"])
        mask = instance_mask(frame.annotation, instance)
        assert np.array_equal(found.annToMask(one).astype(bool), mask)
        assert one["area"] == mask.sum() == instance.area_px
        left, top, right, bottom = instance.box_xyxy_px
        assert one["bbox"] == [left, top, right - left, bottom - top]
        assert one["category_id"] == 1
        assert found.cats[1]["name"] == "instrument"


def test_cvat_polygons_fill_to_the_masks_and_tracks_end_outside(tmp_path: Path) -> None:
    root = ElementTree.parse(written(tmp_path / "cvat.xml", CvatSink)).getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "6"
    assert root.findtext("meta/task/name") == "clip <1>.mp4"
    tracks = root.findall("track")
    assert [(one.get("id"), one.get("label")) for one in tracks] == [("0", "instrument"), ("1", "instrument")]
    for polygon in tracks[0].findall("polygon"):
        points = np.array([point.split(",") for point in polygon.get("points").split(";")], float)
        filled = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(filled, [points.astype(np.int32)], 1)
        index = int(polygon.get("frame"))
        assert np.array_equal(filled.astype(bool), disc((30 + index, 40), 12))
    outside = [(int(one.get("frame")), one.get("outside")) for one in tracks[1].findall("polygon")]
    assert outside == [(0, "0"), (1, "1"), (2, "0"), (3, "1"), (4, "0"), (5, "1")]


def test_cvat_polygons_stay_in_place_when_the_resolution_changes(tmp_path: Path) -> None:
    sink = CvatSink(tmp_path / "cvat.xml", STREAM)
    for index in range(6):
        one = shown(0)
        if index >= 3:
            # The same scene, three times as wide and twice as high.
            larger = one.frame.image_bgr.repeat(2, axis=0).repeat(3, axis=1)
            labels = one.annotation.labels.repeat(2, axis=0).repeat(3, axis=1)
            instances = tuple(
                replace(each, box_xyxy_px=tuple(np.multiply(each.box_xyxy_px, (3, 2, 3, 2)).tolist()))
                for each in one.annotation.instances
            )
            annotation = replace(one.annotation, labels=labels, instances=instances)
            one = replace(one, frame=replace(one.frame, image_bgr=larger), annotation=annotation)
        sink.write(replace(one, frame=replace(one.frame, index=index)))
    (path,) = sink.close()
    root = ElementTree.parse(path).getroot()
    size = root.find("meta/task/original_size")
    assert (size.findtext("width"), size.findtext("height")) == (str(WIDTH), str(HEIGHT))
    polygons = root.findall("track")[0].findall("polygon")
    assert len(polygons) == 6
    for polygon in polygons:
        points = np.array([point.split(",") for point in polygon.get("points").split(";")], float)
        assert points.min(axis=0) == pytest.approx([18, 28], abs=0.5)
        assert points.max(axis=0) == pytest.approx([42, 52], abs=0.5)


def test_yolo_polygons_are_shares_of_the_frame(tmp_path: Path) -> None:
    folder = written(tmp_path / "yolo", YoloSink)
    files = sorted((folder / "labels").iterdir())
    assert [one.name for one in files] == [f"clip <1>_{index:06d}.txt" for index in range(6)]
    kind, *values = files[3].read_text().split()
    points = np.array(values, float).reshape(-1, 2) * (WIDTH, HEIGHT) - 0.5
    filled = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(filled, [np.rint(points).astype(np.int32)], 1)
    assert kind == "0"
    assert np.array_equal(filled.astype(bool), disc((33, 40), 12))


def test_yolo_is_a_data_set_that_loads_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolved as Ultralytics does: `check_det_dataset`, then `img2label_paths`."""
    file = written(tmp_path / "yolo", YoloSink) / "data.yaml"
    monkeypatch.chdir("/")
    data = yaml.safe_load(file.read_text())
    assert data["names"] == {0: "instrument"}
    root = Path(data.get("path") or file.parent)
    for part in ("train", "val"):
        images = sorted((root / data[part]).iterdir())
        assert len(images) == 6
        for index, image in enumerate(images):
            labels = Path("/labels/".join(str(image).rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt")
            assert labels.read_text().count("\n") == len(shown(index).annotation.instances)
            pixels = cv2.imread(str(image))
            assert pixels.shape == (HEIGHT, WIDTH, 3)
            assert np.abs(pixels.astype(int) - shown(index).frame.image_bgr).max() <= 2


def test_yolo_has_neither_image_nor_label_of_what_was_not_annotated_or_not_kept(tmp_path: Path) -> None:
    recording = Recording([YoloSink(tmp_path / "yolo", STREAM)], PrivacyGuard(PrivacySettings(inside_for=1)))
    recording.write(shown(0))
    recording.write(replace(shown(1), annotation=None))
    outside = shown(2)
    recording.write(replace(outside, frame=replace(outside.frame, quality=Quality(out_of_body=1.0))))
    recording.write(replace(shown(3), annotation=shown(0).annotation))  # drawn, but of a frame before
    recording.write(shown(4, away=True))
    recording.close()
    for part in ("images", "labels"):
        names = sorted(one.stem for one in (tmp_path / "yolo" / part).iterdir())
        assert names == ["clip <1>_000000", "clip <1>_000004"]


def test_mot_lines_count_from_one(tmp_path: Path) -> None:
    rows = np.loadtxt(written(tmp_path / "gt.txt", MotSink), delimiter=",")
    assert rows.shape == (9, 9)
    # Frame 0: the disc of radius 12 about (30, 40) spans columns 18..42 and rows 28..52.
    assert rows[0].tolist() == [1, 1, 19, 29, 25, 25, 1, 1, 1]
    assert sorted(set(rows[:, 1])) == [1, 2]


def test_no_mot_line_is_left_out_by_trackeval(tmp_path: Path) -> None:
    """Read as TrackEval's MotChallenge2DBox reads ground truth; the package itself brings a second OpenCV."""
    boxes: dict[int, list[tuple[int, ...]]] = {}
    for line in written(tmp_path / "gt.txt", MotSink).read_text().splitlines():
        row = line.split(",")
        track, zero_marked, kind = int(row[1]), int(float(row[6])), int(float(row[7]))
        if zero_marked != 0 and kind == 1:
            boxes.setdefault(int(row[0]), []).append((track, *(int(float(one)) for one in row[2:6])))
    for index in range(6):
        expected = [
            (one.track, left + 1, top + 1, right - left, bottom - top)
            for one in shown(index).annotation.instances
            for left, top, right, bottom in [one.box_xyxy_px]
        ]
        assert boxes[index + 1] == expected


def test_jsonl_has_a_line_a_frame(tmp_path: Path) -> None:
    lines = written(tmp_path / "a.jsonl", JsonlSink).read_text().splitlines()
    documents = [json.loads(line) for line in lines]
    assert [one["frame"] for one in documents] == list(range(6))
    assert documents[2]["pts_s"] == 0.08
    assert (documents[2]["height"], documents[2]["width"]) == (HEIGHT, WIDTH)
    assert documents[2]["quality"]["smoke"] == 0.25
    assert documents[2]["stage_ms"] == {"total": 12.5}
    assert documents[2]["instances"][0]["tip_xy_px"] == [32.0, 28.0]


def test_webvtt_cues_cover_the_stream(tmp_path: Path) -> None:
    sink = WebVttSink(tmp_path / "p.vtt", STREAM)
    # Two seconds of looking around, then two of an instrument that moves a pixel a frame: 25 pixels a second.
    for index in range(100):
        one = shown(min(index, 60), away=index < 50)
        frame = Frame(index, index / FPS, 0.0, one.frame.image_bgr)
        sink.write(Shown(frame, one.image_bgr, one.annotation, True, "", 0.0, {}))
    text = sink.close()[0].read_text()
    assert text.startswith("WEBVTT\n")
    time = r"(\d\d:\d\d:\d\d\.\d{3})"
    cues = re.findall(rf"^{time} --> {time}\n(\w+)$", text, re.MULTILINE)
    # Speed shows with the second frame of an instrument.
    assert cues[0] == ("00:00:00.000", "00:00:02.040", "exploring")
    assert cues[1][::2] == ("00:00:02.040", "working")
    assert cues[-1][1] == "00:00:04.000"
    assert [one[1] for one in cues[:-1]] == [one[0] for one in cues[1:]]


def test_mp4_plays_with_the_stream_s_times_and_picture(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "v.mp4", STREAM)
    for index in range(12):
        image = np.full((HEIGHT, WIDTH, 3), 20 + 16 * index, np.uint8)
        sink.write(Shown(Frame(index, index / FPS, 0.0, image), image, None, False, "", 0.0, {}))
    (path,) = sink.close()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
    assert [round(one.time * FPS) for one in frames] == list(range(12))
    assert (frames[0].height, frames[0].width) == (HEIGHT, WIDTH)
    for index, one in enumerate(frames):
        assert abs(float(one.to_ndarray(format="bgr24").mean()) - (20 + 16 * index)) < 4


def test_mp4_takes_odd_sides_and_another_size_midway(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "v.mp4", Stream("odd", 91, 121, FPS, None, ("instrument",)))
    for index, size in enumerate([(91, 121), (91, 121), (40, 60), (91, 121)]):
        image = np.full((*size, 3), 128, np.uint8)
        frame = Frame(index, index / FPS, 0.0, image)
        sink.write(Shown(frame, image, None, False, "", 0.0, {}))
    with av.open(str(sink.close()[0])) as container:
        frames = list(container.decode(video=0))
    assert [(one.height, one.width) for one in frames] == [(90, 120)] * 4


@pytest.mark.parametrize("frames", [1, 5, 6, 100])
def test_a_sheet_has_six_pictures_from_begin_to_end(tmp_path: Path, frames: int) -> None:
    sink = SheetSink(tmp_path / "sheet.png", STREAM)
    for index in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), 2 * index, np.uint8)
        sink.write(Shown(Frame(index, index / FPS, 0.0, image), image, None, False, "", 0.0, {}))
    sheet = cv2.imread(str(sink.close()[0]))
    height = round(HEIGHT * 480 / WIDTH)
    assert sheet.shape == (2 * height, 3 * 480, 3)
    shades = [
        int(sheet[height // 2 + row * height, 240 + column * 480, 0]) for row in (0, 1) for column in range(3)
    ]
    assert shades == sorted(shades)
    assert shades[0] == 0
    assert shades[-1] >= 2 * 0.85 * (frames - 1)


def test_dicom_segments_are_the_masks_and_refer_to_their_frame(tmp_path: Path) -> None:
    folder = written(tmp_path / "dicom", DicomSegSink, every_s=2 / FPS)
    names = sorted(one.name for one in folder.iterdir())
    assert names == [f"{index:06d}_{kind}.dcm" for index in (0, 2, 4) for kind in ("image", "seg")]
    image = pydicom.dcmread(folder / "000002_image.dcm")
    segmentation = hd.seg.segread(folder / "000002_seg.dcm")
    assert np.array_equal(image.pixel_array[..., ::-1], shown(2).frame.image_bgr)
    assert segmentation.StudyInstanceUID == image.StudyInstanceUID
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["instrument 1", "instrument 2"]
    masks = segmentation.get_pixels_by_source_instance([image.SOPInstanceUID])[0]
    assert np.array_equal(masks[..., 0].astype(bool), disc((32, 40), 12))
    assert np.array_equal(masks[..., 1].astype(bool), disc((95, 70), 8))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_dicom_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "dicom", DicomSegSink, every_s=2 / FPS)
    for path in folder.iterdir():
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in (said.stderr + said.stdout).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


@pytest.mark.parametrize(("name", "sink_type"), ALL)
def test_a_sink_that_is_abandoned_leaves_nothing(tmp_path: Path, name: str, sink_type) -> None:
    sink = sink_type(tmp_path / name, STREAM)
    for index in range(3):
        sink.write(shown(index))
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "sink_type"), ALL)
def test_nothing_stands_under_the_name_before_it_is_whole(tmp_path: Path, name: str, sink_type) -> None:
    sink = sink_type(tmp_path / name, STREAM)
    sink.write(shown(0))
    assert not (tmp_path / name).exists()
    sink.close()
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "sink_type"), ALL)
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str, sink_type) -> None:
    with pytest.raises(InvalidInput, match=r"missing.*no such folder"):
        sink_type(tmp_path / "missing" / name, STREAM)


@pytest.mark.parametrize("sink_type", [YoloSink, DicomSegSink])
def test_a_folder_that_exists_is_not_written_into(tmp_path: Path, sink_type) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InvalidInput, match="it exists"):
        sink_type(tmp_path / "taken", STREAM)


@pytest.mark.parametrize(("name", "sink_type"), ALL)
def test_a_stream_without_instruments_is_a_file_too(tmp_path: Path, name: str, sink_type) -> None:
    sink = sink_type(tmp_path / name, STREAM)
    for index in range(3):
        sink.write(shown(index, away=True))
    assert sink.close() == (tmp_path / name,)
    if name == "coco.json":
        assert len(COCO(str(tmp_path / name)).imgs) == 3
