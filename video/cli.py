"""`trocar annotate`."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trocar.runtime.address import shown
from trocar.runtime.channel import access_of, add_access
from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.video.pipeline import VideoSettings
    from trocar.video.run import Server

EXAMPLES = """\
examples:
  trocar annotate clip.mp4 --overlay out.mp4 --report report.html
  trocar annotate clip.mp4 --coco masks.json --webvtt phases.vtt --dicom-seg seg/
  trocar annotate /dev/video0 --display                  a camera, on the screen as it comes
  trocar annotate rtsp://10.0.0.7/or2 --live --jsonl log.jsonl
  trocar annotate rendered:7 --overlay demo.mp4          a scene from the renderer
  trocar annotate clip.mp4 --server 127.0.0.1:8001       the model of a server

A file is annotated frame by frame, none dropped; with --live it is played at its own pace, as a camera would
deliver it: the newest frame wins, and the picture never waits for the model.
What is kept or sent is blurred while the camera is outside the body; --keep-out-of-body turns that off.
exit codes: 0 done, 1 frames could not be annotated or the stream broke off, 2 bad input,
  3 internal or no server
"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "input", metavar="INPUT", help="a video file, camera, address, test: or rendered:SEED[:SECONDS]"
    )
    there = parser.add_argument_group("a server")
    there.add_argument("--server", metavar="ADDR", help="annotate there: host:port or unix:/path")
    add_access(there)
    model = parser.add_argument_group("model")
    model.add_argument("--model", default="annotator", help="annotator (instruments) or polyp (%(default)s)")
    model.add_argument("--repository", metavar="DIR", default="", help="a folder of models of your own")
    model.add_argument("--threads", type=int, metavar="N", help="of the network (2)")
    model.add_argument("--device", choices=("auto", "cpu", "cuda"), help="(auto)")
    model.add_argument(
        "--config", type=Path, metavar="FILE", help="thresholds: [services.video] of a trocar.toml"
    )
    flow = parser.add_argument_group("playing")
    flow.add_argument("--live", action="store_true", help="at the source's pace; the newest frame wins")
    flow.add_argument(
        "--display", action="store_true", help="show it fullscreen; q or Esc ends it (needs opencv-python)"
    )
    flow.add_argument("--mm-per-px", type=_scale, metavar="MM", help="scale of a calibrated camera")
    out = parser.add_argument_group("what to write")
    out.add_argument("--overlay", type=Path, metavar="OUT.mp4", help="the picture with its overlay, H.264")
    out.add_argument("--picture", type=Path, metavar="F.png", help="six frames with their overlay")
    out.add_argument("--coco", type=Path, metavar="F.json", help="COCO instances, run-length masks")
    out.add_argument("--cvat", type=Path, metavar="F.xml", help="CVAT for video 1.1, polygons by track")
    out.add_argument(
        "--yolo",
        type=Path,
        metavar="DIR",
        help="YOLO segmentation data set, a new folder: labels, and each labelled frame as a JPEG",
    )
    out.add_argument("--mot", type=Path, metavar="F.txt", help="boxes by track, MOTChallenge's gt.txt")
    out.add_argument("--webvtt", type=Path, metavar="F.vtt", help="phases (by rules) as chapters")
    out.add_argument("--jsonl", type=Path, metavar="F.jsonl", help="a JSON object a frame")
    out.add_argument("--dicom-seg", type=Path, metavar="DIR", help="key frames with DICOM SEG, a new folder")
    out.add_argument("--metrics", type=Path, metavar="F.json", help="latency, quality, motion, phases")
    out.add_argument("--report", type=Path, metavar="F.html", help="the same to look at, with pictures")
    out.add_argument("--keep-out-of-body", action="store_true", help="do not blur what is kept")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive, finite number, got {text!r}")
    return value


def _run(args: argparse.Namespace) -> int:
    from trocar.runtime.config import load_config
    from trocar.video.config import read_config
    from trocar.video.run import Job, annotate
    from trocar.video.show import progress, show

    config = read_config(load_config(args.config).services.get("video", {}) if args.config else {})
    job = Job(
        input=args.input,
        model=args.model,
        repository=args.repository,
        threads=config.threads if args.threads is None else args.threads,
        device=args.device or config.device,
        live=args.live,
        display=args.display,
        mm_per_px=args.mm_per_px,
        keep_out_of_body=args.keep_out_of_body,
        files={kind: getattr(args, kind) for kind in _KINDS if getattr(args, kind) is not None},
        metrics=args.metrics,
        report=args.report,
    )
    with _interruptible() as stop, progress(shown(args.input)) as moved:
        document = annotate(job, stop=stop, moved=moved, settings=config, server=_server(args, config))
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)
    # A network loses pictures now and then; a file has them, or is damaged.
    damaged = document["broke_off"] or (document["corrupt_frames"] and not document["live"])
    return 1 if document["frames"]["failed"] or damaged else 0


def _server(args: argparse.Namespace, settings: VideoSettings) -> Server | None:
    access = access_of(args)
    if access is None:
        return None
    from trocar.video.servicer.client import connect

    privacy = settings.privacy
    if args.keep_out_of_body:
        privacy = replace(privacy, blur_out_of_body=False)
    return connect(access, args.model, privacy)


_KINDS = ("overlay", "picture", "coco", "cvat", "yolo", "mot", "webvtt", "jsonl", "dicom_seg")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the stream and keep what was written; a second one ends the program."""
    stop = threading.Event()

    def end(number: int, frame: object) -> None:  # noqa: ARG001 (what signal calls)
        print("trocar: ending; what was annotated so far is kept", file=sys.stderr)
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMAND = Command(
    name="annotate",
    help="Annotate surgical video: instruments, tips, quality, motion; as overlay, files or a live picture.",
    configure=_configure,
    run=_run,
)
