"""Logits to an annotated frame, one thread: the kernels beside NumPy with OpenCV, and what memory allows."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAME = "postprocess"
HELP = "labels, confidence, areas, boxes and overlay of a frame: kernels against NumPy with OpenCV"

FRAMES = {"1080p": (1080, 1920), "720p": (720, 1280)}
CHANNELS, ROWS, COLUMNS = 5, 256, 448
COLOURS = {2: (80, 200, 80), 3: (200, 160, 40), 4: (40, 40, 230)}  # BGR: shaft, wrist, clasper
ALPHA, CONTOUR = 0.4, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every frame size, and check what the kernels wrote against their specification."""
    import cv2

    from trocar.bench.floors import copy_bandwidth_gb_s
    from trocar.runtime.errors import InvalidInput

    if args.repeats < 1:
        raise InvalidInput(f"repeats: expected at least 1, got {args.repeats}")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        logits = _logits(args.seed)
        bandwidth = copy_bandwidth_gb_s()
        found = {
            name: _frame(logits, height, width, args, bandwidth) for name, (height, width) in FRAMES.items()
        }
    finally:
        cv2.setNumThreads(threads)
    return {
        "logits": f"{CHANNELS} x {ROWS} x {COLUMNS} float32",
        "copy_bandwidth_gb_s": bandwidth,
        "results": found,
        "passed": all(frame["equals_reference"] for frame in found.values()),
    }


def _frame(
    logits: npt.NDArray[np.float32], height: int, width: int, args: argparse.Namespace, bandwidth_gb_s: float
) -> dict[str, Any]:
    import numpy as np

    from trocar.bench.timing import beside, interleave
    from trocar.bench.workloads._opencv import Plain, Tuned
    from trocar.runtime.kernels.overlay import overlay, palette
    from trocar.runtime.kernels.postprocess import postprocess

    frame = np.random.default_rng(args.seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels, confidence = np.empty((2, height, width), np.uint8)
    areas, boxes = np.empty(CHANNELS, np.int32), np.empty((CHANNELS, 4), np.int32)
    colours = palette(COLOURS, alpha=ALPHA)
    plain, tuned = (chain(logits, height, width, COLOURS, ALPHA, CONTOUR) for chain in (Plain, Tuned))
    postprocess(logits, labels, confidence=confidence, areas=areas, boxes=boxes)
    drawn = _drawn(boxes, frame)
    equal = _equals_reference(logits, labels, confidence, areas, boxes)
    equal = equal and _overlay_equals(frame, labels, drawn)
    plain.postprocess()
    tuned.postprocess()
    cases: dict[str, Callable[[], Any]] = {
        "postprocess.native": lambda: postprocess(
            logits, labels, confidence=confidence, areas=areas, boxes=boxes
        ),
        "postprocess.numpy_opencv": plain.postprocess,
        "postprocess.numpy_opencv_tuned": tuned.postprocess,
        "overlay.native": lambda: overlay(frame, labels, colours, contour=CONTOUR),
        "overlay.native_in_boxes": lambda: overlay(frame[drawn], labels[drawn], colours, contour=CONTOUR),
        "overlay.numpy_opencv": lambda: plain.overlay(frame),
        "overlay.numpy_opencv_tuned": lambda: tuned.overlay(frame),
    }
    timings = {name: timing.document() for name, timing in interleave(cases, args.repeats).items()}
    painted = int(areas[list(COLOURS)].sum())
    read_and_written = {
        "postprocess": logits.nbytes + labels.nbytes + confidence.nbytes,
        "overlay": labels.nbytes + 6 * painted,
    }
    floor_ms = {op: size / (bandwidth_gb_s * 1e6) for op, size in read_and_written.items()}
    for name in timings:
        op, _, chain = name.partition(".")
        if chain.startswith("native"):
            timings[name] = beside(timings[name], floor_ms[op], "what it has to read and write, once")
    return {
        "timings": timings,
        "times_faster": _ratios(timings, "p50_ms"),
        "times_faster_at_best": _ratios(timings, "min_ms"),
        "floor_ms": floor_ms,
        "painted_pixels": painted,
        "labels_unlike_opencv": int(np.count_nonzero(plain.labels != labels)),
        "equals_reference": equal,
    }


def _ratios(timings: dict[str, dict[str, float]], figure: str) -> dict[str, float]:
    """Every chain's time over the kernel's.

    On a busy machine the best times are the ones to compare: the longer call is interrupted more often.
    """
    found = {}
    for name, timing in timings.items():
        op, _, chain = name.partition(".")
        if chain.startswith("numpy"):
            found[name] = timing[figure] / timings[f"{op}.native"][figure]
            if op == "overlay":
                found[f"{name}, in boxes"] = timing[figure] / timings["overlay.native_in_boxes"][figure]
    return found


def _logits(seed: int) -> npt.NDArray[np.float32]:
    """Two instruments (shaft, wrist, clasper) over tissue in an endoscope's circle, with noise."""
    import numpy as np

    y, x = np.mgrid[:ROWS, :COLUMNS].astype(np.float32)
    logits = np.zeros((CHANNELS, ROWS, COLUMNS), np.float32)
    logits[0] = np.hypot(y - ROWS / 2, x - COLUMNS / 2) - 0.52 * COLUMNS
    logits[1] = 3
    for tip_y, tip_x, angle, length in ((140, 190, 0.4, 400), (120, 290, 2.6, 300)):
        along = (tip_x - x) * np.cos(angle) + (tip_y - y) * np.sin(angle)
        across = np.abs((y - tip_y) * np.cos(angle) - (x - tip_x) * np.sin(angle))
        for channel, begin, end, half_width in ((2, 45, length, 15), (3, 18, 45, 12), (4, 0, 18, 7)):
            inside = np.minimum(half_width - across, np.minimum(along - begin, end - along))
            logits[channel] = np.maximum(logits[channel], 4 + np.clip(inside, -12, 4))
    noise = np.random.default_rng(seed).normal(0, 0.3, logits.shape)
    return (logits + noise).astype(np.float32)


def _drawn(boxes: npt.NDArray[np.int32], frame: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """The part of the frame where the overlay can change anything."""
    top, left = (boxes[list(COLOURS), :2].min(axis=0) - CONTOUR).clip(0)
    bottom, right = boxes[list(COLOURS), 2:].max(axis=0) + CONTOUR
    return slice(top, min(bottom, len(frame))), slice(left, min(right, frame.shape[1]))


def _equals_reference(logits: Any, labels: Any, confidence: Any, areas: Any, boxes: Any) -> bool:
    import numpy as np

    from trocar.runtime.kernels.postprocess import postprocess_reference

    expected = [np.empty_like(array) for array in (labels, confidence, areas, boxes)]
    postprocess_reference(logits, expected[0], confidence=expected[1], areas=expected[2], boxes=expected[3])
    return all(
        np.array_equal(*pair) for pair in zip(expected, (labels, confidence, areas, boxes), strict=True)
    )


def _overlay_equals(
    frame: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], drawn: tuple[slice, slice]
) -> bool:
    import numpy as np

    from trocar.runtime.kernels.overlay import overlay, overlay_reference, palette

    found, expected = frame.copy(), frame.copy()
    overlay(found[drawn], labels[drawn], palette(COLOURS, alpha=ALPHA), contour=CONTOUR)
    overlay_reference(expected, labels, palette(COLOURS, alpha=ALPHA), contour=CONTOUR)
    return np.array_equal(found, expected)
