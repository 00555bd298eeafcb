"""A 1080p frame to a network's input in one thread, beside OpenCV, NumPy and kornia-rs doing the same job."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    UInt8Array = npt.NDArray[np.uint8]
    Float32Array = npt.NDArray[np.float32]

NAME = "preprocess"
HELP = "crop, resize, colour, scale and bias of a frame, against OpenCV, NumPy and kornia-rs, one thread each"

# One scale for all channels: cv2.dnn.blobFromImage has no other.
MEAN_RGB = (0.485, 0.456, 0.406)
STD = 0.226
GOALS = {"cv2_numpy": 5.0, "cv2_tuned": 2.0, "cv2_blob_from_image": 2.0, "kornia_rs": 1.8}
# Largest difference of a level: OpenCV rounds to whole ones; of NV12 it repeats chroma and rounds twice.
BOUND_LEVELS, NV12_BOUND_LEVELS = 1.0, 4.0
# All interpolate alike: bilinear, centres on centres, no filter before (OpenCV's INTER_LINEAR).

# Frames that are taken in turn, and what is done with one.
Way: TypeAlias = "tuple[tuple[UInt8Array, ...], Callable[[UInt8Array], Any]]"


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture as BGR and as NV12, in several buffers each, and the side of the output."""

    bgr: tuple[UInt8Array, ...]
    nv12: tuple[UInt8Array, ...]
    side: int

    @property
    def frames(self) -> dict[str, tuple[UInt8Array, ...]]:
        """By pixel format."""
        return {"bgr": self.bgr, "nv12": self.nv12}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the output, as OpenCV says it."""
        return self.side, self.side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--side", type=int, default=512, help="of the square output")
    parser.add_argument(
        "--frames",
        type=int,
        default=8,
        help="buffers that the calls take in turn, as a camera's; 1 stays in cache",
    )
    parser.add_argument("--repeats", type=int, default=300)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every way in one interleaved run, and check that they give the same picture."""
    import cv2

    from trocar.bench.timing import beside, interleave
    from trocar.runtime.errors import InvalidInput

    if min(args.repeats, args.side, args.frames) < 1:
        raise InvalidInput("expected repeats, side and frames >= 1")
    if min(args.height, args.width) < 2 or (args.height | args.width) % 2:
        raise InvalidInput("expected an even height and width >= 2")
    os.environ["RAYON_NUM_THREADS"] = "1"  # kornia-rs reads it when first used
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        scene = _scene(args.height, args.width, args.side, args.frames)
        ways = _ours(scene) | _opencv(scene) | _kornia(scene)
        reads = {f"read_{name}_once": (frames, _read) for name, frames in scene.frames.items()}
        times = interleave({name: _in_turn(*way) for name, way in (ways | reads).items()}, args.repeats)
        differences = _differences(ways)
    finally:
        cv2.setNumThreads(threads)
    timings = {name: timing.document() for name, timing in times.items()}
    for name in ways:
        read_ms = timings[f"read_{'nv12' if 'nv12' in name else 'bgr'}_once"]["p50_ms"]
        timings[name] = beside(timings[name], read_ms, "the frame read once")
    p50, least = ({name: timing[key] for name, timing in timings.items()} for key in ("p50_ms", "min_ms"))
    return {
        "frame": f"{args.width} x {args.height}",
        "output": f"3 x {args.side} x {args.side}",
        "threads": 1,
        "frame_buffers": args.frames,
        "timings": timings,
        "times_faster": _ratios(p50),
        "times_faster_at_best": _ratios(least),
        "goals": GOALS,
        "times_reading_the_frame_once": {
            "bgr": p50["trocar"] / p50["read_bgr_once"],
            "nv12": p50["trocar_nv12"] / p50["read_nv12_once"],
        },
        "largest_difference_levels": differences,
        "passed": all(
            value <= (NV12_BOUND_LEVELS if "nv12" in name else BOUND_LEVELS)
            for name, value in differences.items()
        ),
    }


def ways_of_a_frame() -> dict[str, Callable[[], Any]]:
    """Ours, OpenCV's and kornia-rs's way with a 1080p frame of BGR, eight buffers in turn."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    scene = _scene(1080, 1920, 512, 8)
    ways = {"trocar": _ours(scene)["trocar"], **_opencv(scene), **_kornia(scene)}
    return {name: _in_turn(*way) for name, way in ways.items() if "nv12" not in name}


def _scene(height: int, width: int, side: int, count: int) -> Scene:
    """A smooth picture: what differs between two ways is then rounding, not chroma that NV12 cannot carry."""
    import cv2
    import numpy as np

    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    waves = [np.sin(9 * x + 6 * y), np.cos(12 * y - 3 * x), np.sin(6 * x * y + 1)]
    bgr = np.stack([(128 + 90 * wave).astype(np.uint8) for wave in waves], axis=-1)
    planar = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    chroma = np.moveaxis(planar[height:].reshape(2, height // 2, width // 2), 0, -1)
    nv12 = np.concatenate([planar[:height], chroma.reshape(height // 2, width)])
    return Scene(tuple(bgr.copy() for _ in range(count)), tuple(nv12.copy() for _ in range(count)), side)


def _in_turn(frames: tuple[UInt8Array, ...], call: Callable[[UInt8Array], Any]) -> Callable[[], Any]:
    """Make each call take the next buffer."""
    following = itertools.cycle(frames)
    return lambda: call(next(following))


def _read(frame: UInt8Array) -> Any:
    """Touch every byte and do next to nothing with it: the floor."""
    import numpy as np

    flat = frame.reshape(-1)
    return np.bitwise_or.reduce(flat[: flat.size // 8 * 8].view(np.uint64))


def _ours(scene: Scene) -> dict[str, Way]:
    import numpy as np

    from trocar.runtime.kernels.preprocess import preprocess

    normal: dict[str, Any] = {"scale": 1 / (255 * STD), "bias": tuple(-mean / STD for mean in MEAN_RGB)}
    out32 = np.empty((3, scene.side, scene.side), np.float32)
    out16 = np.empty((3, scene.side, scene.side), np.float16)

    def into(out: Any, **options: Any) -> Callable[[UInt8Array], Any]:
        def call(frame: UInt8Array) -> Any:
            preprocess(frame, out, **normal, **options)
            return out

        return call

    return {
        "trocar": (scene.bgr, into(out32, pixel_format="bgr")),
        "trocar_float16": (scene.bgr, into(out16, pixel_format="bgr")),
        "trocar_area": (scene.bgr, into(out32, pixel_format="bgr", resize="area")),
        "trocar_nv12": (scene.nv12, into(out32, pixel_format="nv12", matrix="bt601")),
    }


def _opencv(scene: Scene) -> dict[str, Way]:
    """The usual chain, the best that OpenCV can do with buffers of one's own, and its ready-made function."""
    import cv2
    import numpy as np

    mean, scale = np.array(MEAN_RGB, np.float32), 1 / (255 * STD)
    means = tuple(255 * m for m in MEAN_RGB)
    tables = [(np.arange(256) * scale - m / STD).astype(np.float32) for m in MEAN_RGB]
    colour = np.empty_like(scene.bgr[0])
    small = np.empty((scene.side, scene.side, 3), np.uint8)
    planes = [np.empty((scene.side, scene.side), np.uint8) for _ in range(3)]
    out = np.empty((3, scene.side, scene.side), np.float32)

    def chain(frame: Any) -> Any:
        rgb = cv2.cvtColor(cv2.resize(frame, scene.size), cv2.COLOR_BGR2RGB)
        return ((rgb.astype(np.float32) / 255 - mean) / STD).transpose(2, 0, 1).copy()

    def split(frame: UInt8Array) -> None:
        cv2.resize(frame, scene.size, dst=small, interpolation=cv2.INTER_LINEAR)
        cv2.split(small, planes)

    def by_table(frame: UInt8Array) -> Any:
        split(frame)
        for channel, table in enumerate(tables):
            cv2.LUT(planes[2 - channel], table, dst=out[channel])
        return out

    def by_arithmetic(frame: UInt8Array) -> Any:
        split(frame)
        for channel, m in enumerate(MEAN_RGB):
            np.multiply(planes[2 - channel], np.float32(scale), out=out[channel])
            np.subtract(out[channel], np.float32(m / STD), out=out[channel])
        return out

    def nv12_by_table(frame: UInt8Array) -> Any:
        cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12, dst=colour)
        return by_table(colour)

    return {
        "cv2_numpy": (scene.bgr, chain),
        "cv2_tuned_table": (scene.bgr, by_table),
        "cv2_tuned_arithmetic": (scene.bgr, by_arithmetic),
        "cv2_blob_from_image": (
            scene.bgr,
            lambda frame: cv2.dnn.blobFromImage(frame, scale, scene.size, means, True)[0],
        ),
        "cv2_nv12_numpy": (scene.nv12, lambda frame: chain(cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12))),
        "cv2_nv12_tuned": (scene.nv12, nv12_by_table),
    }


def _kornia(scene: Scene) -> dict[str, Way]:
    """The fused preprocessor of kornia-rs, where it is installed; it has none for NV12 on the CPU."""
    try:
        import kornia_rs
    except ImportError:
        return {}
    ready = kornia_rs.Preprocessor(
        mode="stretch", format="bgr", sampling="bilinear", mean=MEAN_RGB[::-1], std=(STD,) * 3
    )

    # On the CPU 0.2.0 leaves the channels in the frame's order: less work, the same picture reversed.
    def call(frame: UInt8Array) -> Any:
        height, width = frame.shape[:2]
        return ready.run(frame.reshape(-1), width, height, scene.side, scene.side).numpy()[0, ::-1]

    return {"kornia_rs": (scene.bgr, call)}


def _differences(ways: dict[str, Way]) -> dict[str, float]:
    """Largest difference of each other way from ours, in levels of 0 to 255."""
    import numpy as np

    found = {name: call(frames[0]).copy() for name, (frames, call) in ways.items()}
    return {
        name: float(np.abs(out - found["trocar_nv12" if "nv12" in name else "trocar"]).max()) * 255 * STD
        for name, out in found.items()
        if not name.startswith("trocar")
    }


def _ratios(p50: dict[str, float]) -> dict[str, float]:
    """How many times faster ours is; of the two tuned chains than the better one."""
    tuned = min(p50["cv2_tuned_table"], p50["cv2_tuned_arithmetic"])
    others = {"cv2_numpy": p50["cv2_numpy"], "cv2_tuned": tuned} | {
        name: p50[name] for name in ("cv2_blob_from_image", "kornia_rs") if name in p50
    }
    ratios = {f"than_{name}": value / p50["trocar"] for name, value in others.items()}
    for name in ("cv2_nv12_numpy", "cv2_nv12_tuned"):
        ratios[f"nv12_than_{name}"] = p50[name] / p50["trocar_nv12"]
    return ratios
