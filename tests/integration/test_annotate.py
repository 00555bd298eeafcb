"""`trocar annotate`, the installed command, on clips and against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from trocar.video.annotator.renderer import render_frame

SIZE = (256, 448)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, image_bgr: Any) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(np.roll(image_bgr, 2 * index, axis=1), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


OUTPUTS = {
    "--overlay": "o.mp4",
    "--picture": "s.png",
    "--coco": "c.json",
    "--cvat": "c.xml",
    "--yolo": "yolo",
    "--mot": "gt.txt",
    "--webvtt": "p.vtt",
    "--jsonl": "a.jsonl",
    "--dicom-seg": "seg",
    "--metrics": "m.json",
    "--report": "r.html",
}


def test_every_output_of_a_clip(trocar: Run, clip: Path, tmp_path: Path) -> None:
    options = [part for name, file in OUTPUTS.items() for part in (name, str(tmp_path / file))]
    done = trocar("annotate", str(clip), *options, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["frames"]["annotated"] == 30
    assert sorted(document["files"]) == sorted(str(tmp_path / file) for file in OUTPUTS.values())
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(OUTPUTS.values())
    assert len(COCO(str(tmp_path / "c.json")).imgs) == 30
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 30
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["latency_ms"]["model"]["p50"] > 0
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page
    assert page.count("<img") >= 3


def test_a_server_and_this_process_agree(trocar: Run, server: Any, clip: Path, tmp_path: Path) -> None:
    here = trocar("annotate", str(clip), "--jsonl", str(tmp_path / "a.jsonl"), "--json")
    there = trocar(
        "annotate", str(clip), "--server", server.target, "--jsonl", str(tmp_path / "b.jsonl"), "--json"
    )
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["frames"]["annotated"] == 30
    first, second = (
        [json.loads(line)["instances"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("a.jsonl", "b.jsonl")
    )
    assert here.returncode == 0
    # Frames travel as JPEG: masks move by some pixels, instruments do not come or go.
    assert np.mean([len(a) == len(b) for a, b in zip(first, second, strict=True)]) > 0.7


def test_live_keeps_the_clip_s_pace(trocar: Run, clip: Path, tmp_path: Path) -> None:
    done = trocar("annotate", str(clip), "--live", "--overlay", str(tmp_path / "o.mp4"), "--json")
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    assert document["live"]
    assert document["frames"]["frames"] == 30
    assert document["duration_s"] > 29 / 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.mp4",), "nowhere.mp4: no such file"),
        (("{clip}", "--overlay", "missing/o.mp4"), "missing: no such folder"),
        (("{clip}", "--coco", "x", "--jsonl", "x"), "one name twice"),
        (("{clip}", "--model", "nothing"), "nothing"),
        (("{clip}", "--server", "127.0.0.1:9"), "127.0.0.1:9"),
        (("rendered:0:x",), "rendered:SEED"),
        (("{clip}", "--display"), "expected a screen"),
        (("{clip}", "--mm-per-px", "-1"), "expected a positive, finite number, got '-1'"),
        (("{clip}", "--mm-per-px", "0"), "expected a positive, finite number, got '0'"),
        (("{clip}", "--mm-per-px", "nan"), "expected a positive, finite number, got 'nan'"),
        (("{clip}", "--mm-per-px", "1e999"), "expected a positive, finite number, got '1e999'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    trocar: Run, clip: Path, tmp_path: Path, monkeypatch: Any, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = trocar("annotate", *(one.format(clip=clip) for one in arguments))
    assert done.returncode in (2, 3)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []


FILLS_UP = """
import resource, sys, threading
from pathlib import Path
from trocar.runtime.errors import InvalidInput
from trocar.video.run import Job, annotate

folder = Path(sys.argv[2])
files = {kind: folder / kind for kind in sys.argv[3:]}

def full(share):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

try:
    annotate(Job(sys.argv[1], files=files), stop=threading.Event(), moved=full)
except InvalidInput as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("kind", ["jsonl", "overlay", "coco", "cvat", "yolo", "dicom_seg", "picture"])
def test_a_disk_that_fills_up_leaves_no_half_file(clip: Path, tmp_path: Path, kind: str) -> None:
    """A limit on file size, set once frames flow, stands for a full disk: writes fail as they do there."""
    done = subprocess.run(
        [sys.executable, "-c", FILLS_UP, str(clip), str(tmp_path), kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("cannot write"), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_refuses_the_client_is_one_line_and_no_file(
    start_server: Any, trocar: Run, tmp_path: Path
) -> None:
    """By its token, or by the model that it asks for: another try would say the same."""
    tokens, record = tmp_path / "tokens.toml", tmp_path / "frames.jsonl"
    given = {}
    for name, scope in (("planner", "planning"), ("camera", "video")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(
            trocar("token", "add", name, "--scope", scope, "--tokens", tokens).stdout
        )
        given[name] = ("--token-file", tmp_path / name)
    (tmp_path / "stranger").touch(0o600)
    (tmp_path / "stranger").write_text("nobody's")
    given["stranger"] = ("--token-file", tmp_path / "stranger")
    server = start_server(config=f'[server]\nservices = "video"\n[server.auth]\ntokens = "{tokens}"\n')
    ask = ("annotate", "rendered:3:1", "--server", server.target, "--jsonl", record)
    for mine, said in (
        (given["planner"], "expected a token with the scope 'video'"),
        (given["stranger"], "expected a token that this server knows"),
        ((*given["camera"], "--model", "nothing"), "nothing"),
    ):
        done = trocar(*ask, *mine)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert done.stderr.count("\n") == 1
        assert not record.exists()
    done = trocar(*ask, *given["camera"])
    assert done.returncode == 0, done.stderr
    assert len(record.read_text().splitlines()) == 25


def _clip(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Twelve rendered frames, changed, every bit of them kept."""
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}
    ) as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "mpeg4", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "yuv420p"
        for seed in range(12):
            image = change(render_frame(seed, SIZE).image_rgb)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _grey(image_rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _exchanged(image_rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_rgb[..., ::-1])


def test_pictures_without_colour_are_annotated_and_exchanged_colours_are_said(
    trocar: Run, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    done = trocar("annotate", _clip(tmp_path / "grey.mkv", _grey), "--report", report, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["blurred_out_of_body"]) == (0, 0)
    assert document["colours"].startswith("the picture has no colour")
    assert "the picture has no colour" in report.read_text()
    done = trocar("annotate", _clip(tmp_path / "exchanged.mkv", _exchanged))
    assert "with red and blue exchanged most frames would show the inside of a body" in done.stdout
    done = trocar("annotate", _clip(tmp_path / "right.mkv", np.copy), "--json")
    assert json.loads(done.stdout)["colours"] == ""


def test_a_cut_or_damaged_file_keeps_what_came_and_says_so(trocar: Run, tmp_path: Path) -> None:
    whole = _clip(tmp_path / "whole.mp4", np.copy)
    data = whole.read_bytes()
    record, report = tmp_path / "frames.jsonl", tmp_path / "report.html"
    assert trocar("annotate", whole).returncode == 0
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    done = trocar("annotate", tmp_path / "cut.mp4", "--jsonl", record, "--report", report)
    assert done.returncode == 1
    assert "the stream broke off: expected 12 frames as the file says, got" in done.stdout
    assert "the stream broke off" in report.read_text()
    assert 0 < len(record.read_text().splitlines()) < 12
