"""One job of `trocar annotate` in this process: source, worker, display, files, digest."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2

from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import Repository, shipped
from trocar.video.digest import Digest
from trocar.video.frames import Shown
from trocar.video.overlay import Overlay, instrument_palette, object_palette
from trocar.video.pipeline import OpenEngine, VideoSettings, in_process, run_live, run_offline
from trocar.video.privacy import PrivacyGuard
from trocar.video.quality import Inspector
from trocar.video.recording import Recording
from trocar.video.remote import WorkerSpec
from trocar.video.segmenter import INSTRUMENT_LABEL, recipe
from trocar.video.sinks.base import OpenSink, Sink, Stream, Whole
from trocar.video.source import Source, open_source

# Which class of which module writes a kind of file.
_SINKS = {
    "overlay": "mp4:Mp4Sink",
    "picture": "sheet:SheetSink",
    "coco": "coco:CocoSink",
    "cvat": "cvat:CvatSink",
    "yolo": "lines:YoloSink",
    "mot": "lines:MotSink",
    "webvtt": "webvtt:WebVttSink",
    "jsonl": "lines:JsonlSink",
    "dicom_seg": "dicom_seg:DicomSegSink",
}
Moved = Callable[[float | None], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done; `files` are paths by the kind of sink."""

    input: str
    model: str = "annotator"
    repository: str = ""
    threads: int = 2
    device: str = "auto"
    live: bool = False
    display: bool = False
    mm_per_px: float | None = None
    keep_out_of_body: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    metrics: Path | None = None
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """What annotates a job's frames.

    Parameters
    ----------
    model : its name and version, as shown to people.
    label : what it calls an object.
    """

    model: str
    label: str
    open_engine: OpenEngine


def annotate(
    job: Job,
    *,
    stop: threading.Event,
    moved: Moved,
    settings: VideoSettings | None = None,
    server: Server | None = None,
) -> dict[str, Any]:
    """Do a job; return its document.

    Parameters
    ----------
    stop : ends the stream; what was annotated is kept.
    moved : told the share that is done, None where nobody knows.
    server : annotates in the place of a process of this machine.

    Raises
    ------
    InvalidInput
        The input or a file cannot be used; no file is left behind.
    ModelNotFound, ManifestMismatch
        See `Repository.open`.
    """
    check_places(job)
    # The model's process has work for the other cores; OpenCV's threads take them to save microseconds.
    cv2.setNumThreads(1)
    settings = settings or VideoSettings()
    if job.keep_out_of_body:
        settings = replace(settings, privacy=replace(settings.privacy, blur_out_of_body=False))
    server = server or _here(job, settings)
    source = open_source(job.input)
    try:
        return _annotate(job, source, server, stop, moved, settings)
    finally:
        source.close()


def _here(job: Job, settings: VideoSettings) -> Server:
    found = (Repository(Path(job.repository)) if job.repository else shipped()).open(job.model)
    worker = WorkerSpec(
        "trocar.video.segmenter:open_segmenter",
        {"model": job.model, "repository": job.repository, "threads": job.threads, "device": job.device},
    )
    name = f"{job.model}/{found.manifest.version}"
    return Server(name, recipe(found.manifest).label, in_process(worker, settings.watchdog))


def _annotate(
    job: Job,
    source: Source,
    server: Server,
    stop: threading.Event,
    moved: Moved,
    settings: VideoSettings,
) -> dict[str, Any]:
    from trocar.video.display import open_display

    digest = Digest(source.fps or 25.0, job.mm_per_px)
    guard = PrivacyGuard(settings.privacy)
    sinks = _Opened(job, source, server.label, digest)
    recording = Recording([sinks], guard)
    drawn = Overlay(instrument_palette() if server.label == INSTRUMENT_LABEL else object_palette())
    screen = open_display(stop) if job.display else None

    def shown(one: Shown) -> None:
        if screen is not None:
            screen.show(one.image_bgr)
        moved(None if source.frames is None else (one.frame.index + 1) / source.frames)

    live = job.live or job.display or source.live
    try:
        if live:
            summary = run_live(
                source,
                server.open_engine,
                draw=drawn.draw,
                display=shown,
                inspect=Inspector(),
                settings=settings,
                stop=stop,
                recording=recording,
            )
        else:

            def kept(one: Shown) -> None:
                shown(one)
                recording.write(one)

            summary = run_offline(
                source,
                server.open_engine,
                draw=drawn.draw,
                display=kept,
                inspect=Inspector(),
                settings=settings,
                stop=stop,
            )
        document = {
            "input": job.input,
            "model": server.model,
            "live": live,
            **digest.document(summary),
            "blurred_out_of_body": guard.blurred,
            "not_recorded": recording.missed,
            "files": [str(path) for path in recording.close()],
        }
        document["files"] += [str(path) for path in _write_documents(job, document, digest)]
        return document
    except BaseException:
        recording.abandon()
        raise
    finally:
        if screen is not None:
            screen.close()


class _Opened:
    """The job's sinks, opened at the first frame: only that says how large the picture is."""

    def __init__(self, job: Job, source: Source, label: str, digest: Digest) -> None:
        self._job, self._source, self._label = job, source, label
        self._sinks: list[Sink] | None = None
        self._digest = digest

    def write(self, shown: Shown) -> None:
        if self._sinks is None:
            height, width = shown.frame.image_bgr.shape[:2]
            stream = Stream(
                Path(self._source.name).name or self._source.name,
                height,
                width,
                self._source.fps or 25.0,
                self._source.frames,
                (self._label,),
            )
            self._sinks = [self._digest]
            for kind, path in self._job.files.items():
                # One by one: if a later one cannot be opened, those before it are abandoned.
                self._sinks.append(_opener(kind)(path, stream))
        for sink in self._sinks:
            sink.write(shown)

    def close(self) -> tuple[Path, ...]:
        return tuple(path for sink in self._sinks or () for path in sink.close())

    def abandon(self) -> None:
        for sink in self._sinks or ():
            sink.abandon()


def _opener(kind: str) -> OpenSink:
    """Import one sink: pycocotools and highdicom are slow to load."""
    module, _, name = _SINKS[kind].partition(":")
    opener: OpenSink = getattr(import_module(f"trocar.video.sinks.{module}"), name)
    return opener


def check_places(job: Job) -> None:
    """Refuse a place that cannot be written before an hour has gone into it.

    Raises
    ------
    InvalidInput
        A folder is missing, or two files have one name.
    """
    paths = [*job.files.values(), *(path for path in (job.metrics, job.report) if path is not None)]
    for path in paths:
        if not path.parent.is_dir():
            raise InvalidInput(
                f"expected a folder to write {path.name} in, got {path.parent}: no such folder"
            )
    if len({path.resolve() for path in paths}) < len(paths):
        raise InvalidInput(f"expected a file each, got one name twice: {', '.join(map(str, paths))}")


def _write_documents(job: Job, document: Mapping[str, Any], digest: Digest) -> Sequence[Path]:
    written: list[Path] = []
    if job.metrics is not None:
        written += Whole(job.metrics).write_text(json.dumps(document, indent=2) + "\n")
    if job.report is not None:
        from trocar.video.report import render

        written += Whole(job.report).write_text(render(document, digest))
    return written
